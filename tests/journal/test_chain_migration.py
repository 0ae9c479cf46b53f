"""The migration that chains older entries: alongside a service that writes, interrupted, and run again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest
from alembic import command as alembic
from sqlalchemy.exc import SQLAlchemyError

from tests.journal.conftest import Command
from tests.journal.test_chain import chain_hashes, entries_by_record
from tests.journal.test_journal_migration import migrate_to
from tests.processes import wait_until_blocked

REVISION_BEFORE = "20261129_01"
"""The revision before the chain."""
CHAIN_REVISION = "20261129_02"
DOCTORS = "/doctors/doctors/"
FIRST_DOCTOR_PATH, LAST_DOCTOR_PATH = f"{DOCTORS}000/", f"{DOCTORS}zzz/"
"""Doctors with entries that are chained before and after all others."""
INSERT_OLDER_ENTRIES = """
    INSERT INTO journal (resource, unique_id, version, action, actor, record)
    SELECT 'doctors', 'gone-' || to_char(n, 'FM0000'), 1, 'created', 'local', '{}'::json FROM generate_series(1, 1500) n
    UNION ALL
    SELECT 'doctors', 'gone-' || to_char(n, 'FM0000'), 2, 'deleted', 'local', NULL FROM generate_series(1, 1500) n
"""
SELECT_UNCHAINED_COUNT = "SELECT count(*) FROM journal WHERE hash IS NULL"


CREATE_WAIT_TRIGGER = """
    CREATE OR REPLACE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = '1min' AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(1);
        RETURN NEW;
    END $$;
    CREATE OR REPLACE TRIGGER wait BEFORE UPDATE ON journal FOR EACH ROW
    WHEN (OLD.unique_id = '{0}') EXECUTE FUNCTION wait()
"""


@asynccontextmanager
async def paused_migration(
    connection: asyncpg.Connection, url: str, unique_id: str
) -> AsyncIterator[asyncio.Task[None]]:
    """Start to chain the older entries; the migration waits at those of `unique_id` until the context ends."""
    await connection.execute(CREATE_WAIT_TRIGGER.format(unique_id))
    await connection.execute("SELECT pg_advisory_lock(1)")
    migrating = asyncio.create_task(migrate_to(alembic.upgrade, url, CHAIN_REVISION))
    await wait_until_blocked(connection)
    yield migrating
    await connection.execute("SELECT pg_advisory_unlock(1)")


async def rename_doctors(client: httpx.AsyncClient, name: str) -> None:
    """Change the first and the last doctor."""
    for path in (FIRST_DOCTOR_PATH, LAST_DOCTOR_PATH):
        assert (await client.put(path, json={"doctor_first_name": name})).status_code == 200


async def test_an_interrupted_chain_migration_is_resumed_beside_writers(
    client: httpx.AsyncClient, database_url: str, connection: asyncpg.Connection, command: Command
) -> None:
    """An interrupted migration keeps its progress, new entries are chained too, and another run chains the rest."""
    await migrate_to(alembic.downgrade, database_url, REVISION_BEFORE)
    for path in (FIRST_DOCTOR_PATH, LAST_DOCTOR_PATH):
        body = {"unique_id": path.split("/")[-2], "doctor_first_name": "Ann"}
        assert (await client.post(DOCTORS, json=body)).status_code == 201
    await connection.execute(INSERT_OLDER_ENTRIES)
    async with paused_migration(connection, database_url, "gone-0700") as migrating:
        assert 1000 < await connection.fetchval(SELECT_UNCHAINED_COUNT) < 3000
        await rename_doctors(client, "Bea")
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
        with pytest.raises(SQLAlchemyError):
            await migrating
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == REVISION_BEFORE
    assert 1000 < await connection.fetchval(SELECT_UNCHAINED_COUNT) < 3000
    await rename_doctors(client, "Cleo")

    other = await asyncpg.connect(database_url)
    transaction = other.transaction()
    async with paused_migration(connection, database_url, "gone-1400") as migrating:
        await transaction.start()
        await other.execute(
            "INSERT INTO journal (resource, unique_id, version, action, actor)"
            " VALUES ('doctors', 'gone-1499', 3, 'deleted', 'local')"
        )
    await wait_until_blocked(connection)
    await rename_doctors(client, "Dora")
    await transaction.commit()
    await migrating
    await other.close()
    await connection.execute("DROP FUNCTION wait CASCADE")
    assert await connection.fetchval(SELECT_UNCHAINED_COUNT) == 0
    chains = await entries_by_record(connection)
    assert {entries[0]["unique_id"]: len(entries) for entries in chains} == {
        **{f"gone-{n:04}": 2 for n in range(1, 1501)},
        "gone-1499": 3,
        "000": 4,
        "zzz": 4,
    }
    for entries in chains:
        assert [entry["hash"] for entry in entries] == chain_hashes(entries)
    assert await connection.fetchval("SELECT count(*) FROM pg_indexes WHERE indexname = 'ix_journal_unchained'") == 0
    await migrate_to(alembic.upgrade, database_url, "head")
    assert (await command("journal", "verify")).status == 0
