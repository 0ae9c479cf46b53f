"""The migration that chains older entries: beside a service that writes, cut off midway, and run again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest
from alembic import command as alembic
from sqlalchemy.exc import SQLAlchemyError

from tests.journal.conftest import Command
from tests.journal.test_chain import chain, records
from tests.journal.test_older_data import to
from tests.processes import await_blocked

BEFORE = "20261129_01"
"""The revision before the chain."""
AFTER = "20261129_02"
DOCTORS = "/doctors/doctors/"
FIRST, LAST = f"{DOCTORS}000/", f"{DOCTORS}zzz/"
"""Of which the entries are chained before all others, and after them."""
OLDER = """
    INSERT INTO journal (resource, unique_id, version, action, actor, record)
    SELECT 'doctors', 'gone-' || to_char(n, 'FM0000'), 1, 'created', 'local', '{}'::json FROM generate_series(1, 1500) n
    UNION ALL
    SELECT 'doctors', 'gone-' || to_char(n, 'FM0000'), 2, 'deleted', 'local', NULL FROM generate_series(1, 1500) n
"""
UNCHAINED = "SELECT count(*) FROM journal WHERE hash IS NULL"


WAIT = """
    CREATE OR REPLACE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = '1min' AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(1);
        RETURN NEW;
    END $$;
    CREATE OR REPLACE TRIGGER wait BEFORE UPDATE ON journal FOR EACH ROW
    WHEN (OLD.unique_id = '{0}') EXECUTE FUNCTION wait()
"""


@asynccontextmanager
async def waiting(connection: asyncpg.Connection, url: str, unique_id: str) -> AsyncIterator[asyncio.Task[None]]:
    """Chain the older entries; the migration waits at those of this id while this lasts."""
    await connection.execute(WAIT.format(unique_id))
    await connection.execute("SELECT pg_advisory_lock(1)")
    migrating = asyncio.create_task(to(alembic.upgrade, url, AFTER))
    await await_blocked(connection)
    yield migrating
    await connection.execute("SELECT pg_advisory_unlock(1)")


async def write(client: httpx.AsyncClient, name: str) -> None:
    """Change the first doctor and the last one."""
    for path in (FIRST, LAST):
        assert (await client.put(path, json={"doctor_first_name": name})).status_code == 200


async def test_cut_off_and_resumed(
    client: httpx.AsyncClient, database_url: str, connection: asyncpg.Connection, command: Command
) -> None:
    """What is done stays done, what is written meanwhile is chained too, and the rest is when it is run again."""
    await to(alembic.downgrade, database_url, BEFORE)
    for path in (FIRST, LAST):
        body = {"unique_id": path.split("/")[-2], "doctor_first_name": "Ann"}
        assert (await client.post(DOCTORS, json=body)).status_code == 201
    await connection.execute(OLDER)
    async with waiting(connection, database_url, "gone-0700") as migrating:
        assert 1000 < await connection.fetchval(UNCHAINED) < 3000
        await write(client, "Bea")
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
        with pytest.raises(SQLAlchemyError):
            await migrating
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == BEFORE
    assert 1000 < await connection.fetchval(UNCHAINED) < 3000
    await write(client, "Cleo")

    other = await asyncpg.connect(database_url)
    transaction = other.transaction()
    async with waiting(connection, database_url, "gone-1400") as migrating:
        await transaction.start()
        await other.execute(
            "INSERT INTO journal (resource, unique_id, version, action, actor)"
            " VALUES ('doctors', 'gone-1499', 3, 'deleted', 'local')"
        )
    await await_blocked(connection)
    await write(client, "Dora")
    await transaction.commit()
    await migrating
    await other.close()
    await connection.execute("DROP FUNCTION wait CASCADE")
    assert await connection.fetchval(UNCHAINED) == 0
    chains = await records(connection)
    assert {entries[0]["unique_id"]: len(entries) for entries in chains} == {
        **{f"gone-{n:04}": 2 for n in range(1, 1501)},
        "gone-1499": 3,
        "000": 4,
        "zzz": 4,
    }
    for entries in chains:
        assert [entry["hash"] for entry in entries] == chain(entries)
    assert await connection.fetchval("SELECT count(*) FROM pg_indexes WHERE indexname = 'ix_journal_unchained'") == 0
    await to(alembic.upgrade, database_url, "head")
    assert (await command("journal", "verify")).status == 0
