"""Existing audit rows when the audit is partitioned: no row moves, no number changes, and all rights remain."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest
from alembic import command

from tests.db.test_migrations import run_alembic

REVISION_BEFORE, PARTITIONING_REVISION = "20261125_02", "20261129_03"
INSERT_READ = (
    "INSERT INTO audit (principal, method, route, status, resource, ids)"
    " VALUES ('me', 'GET', '/', 200, 'patients', ARRAY['pat1']) RETURNING id"
)


@pytest.fixture
async def role(connection: asyncpg.Connection) -> AsyncIterator[str]:
    """Create a role for the rights that the unpartitioned audit table has."""
    role = f"Serving-{secrets.token_hex(4)}"
    await connection.execute(f'CREATE ROLE "{role}"')
    yield role
    await connection.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


async def test_existing_audit_becomes_the_first_partition_beside_writers(
    database_url: str, connection: asyncpg.Connection, role: str
) -> None:
    """The existing table becomes the first partition, with its file, rows and rights, while a service keeps writing."""
    await run_alembic(command.downgrade, database_url, REVISION_BEFORE)
    columns = "principal, method, route, status, resource, ids"
    await connection.execute(f'GRANT SELECT, INSERT ({columns}) ON audit TO "{role}"')
    await connection.execute(
        "INSERT INTO audit (time, principal, method, route, status, resource, ids)"
        " SELECT now() - n * interval '1 day', 'me', 'GET', '/', 200, 'patients', ARRAY['pat' || n]"
        " FROM generate_series(1, 1000) n"
    )
    file = await connection.fetchval("SELECT pg_relation_filenode('audit')")
    rows = await connection.fetch("SELECT * FROM audit ORDER BY id")
    writer = await asyncpg.connect(database_url)
    await writer.execute(f'SET ROLE "{role}"')
    written: list[int] = []

    async def go_on_writing() -> None:
        while not upgrading.done():
            written.append(await writer.fetchval(INSERT_READ))

    upgrading = asyncio.create_task(run_alembic(command.upgrade, database_url, "head"))
    await asyncio.gather(upgrading, go_on_writing())
    written.append(await writer.fetchval(INSERT_READ))
    assert await connection.fetchval("SELECT pg_relation_filenode('audit_before')") == file
    assert (await connection.fetch("SELECT * FROM audit ORDER BY id"))[: len(rows)] == rows
    last = rows[-1]["id"]
    assert written == list(range(last + 1, last + 1 + len(written))), "the numbering has a gap or a duplicate"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await writer.fetch("SELECT 1 FROM audit_before")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await writer.execute("INSERT INTO audit (time) VALUES (now())")
    assert await writer.fetchval("SELECT add_audit_months()") == 0
    await writer.close()
    valid = await connection.fetchval(
        "SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = CAST('audit' AS regclass)"
    )
    assert valid, "a partition lacks an index of the audit table"


async def test_downgrade_merges_partitions_into_one_table(
    database_url: str, connection: asyncpg.Connection, role: str
) -> None:
    """A downgrade keeps the rows of all months, the numbering and the rights, and rows still cannot be changed."""
    await connection.execute(f'GRANT SELECT ON audit TO "{role}"')
    await connection.execute(
        "INSERT INTO audit (time, principal, method, route, status, resource, ids)"
        " SELECT now() + n * interval '20 days', 'me', 'GET', '/', 200, 'patients', ARRAY['pat' || n]"
        " FROM generate_series(-9, 9) n"
    )
    rows = await connection.fetch("SELECT * FROM audit ORDER BY id")
    await run_alembic(command.downgrade, database_url, REVISION_BEFORE)
    assert await connection.fetch("SELECT * FROM audit ORDER BY id") == rows
    assert await connection.fetchval(INSERT_READ) == rows[-1]["id"] + 1
    assert await connection.fetchval("SELECT has_table_privilege($1, 'audit', 'SELECT')", role)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("DELETE FROM audit")
    remaining = await connection.fetch(r"SELECT relname FROM pg_class WHERE relname LIKE 'audit\_%'")
    assert [row["relname"] for row in remaining] == ["audit_id_seq"]
