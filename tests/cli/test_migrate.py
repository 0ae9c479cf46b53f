"""`patients-api migrate` in processes of its own."""

import asyncio
import subprocess
from contextlib import ExitStack

import asyncpg
import pytest

from tests.processes import await_blocked, await_migrators, command_running, run_command

ADVISORY_LOCK = 0x70617469656E7473
"""What migrations of all versions lock; a migrator that took another would not wait for the others."""


@pytest.fixture
async def unmigrated_url(database_url: str, connection: asyncpg.Connection) -> str:
    """The URL of an empty database."""
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return database_url


async def test_two_at_once_both_succeed(unmigrated_url: str, connection: asyncpg.Connection) -> None:
    """Two replicas that migrate at once: one waits for the other, both succeed, the schema is there once."""
    await connection.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
    with ExitStack() as stack:
        both = [stack.enter_context(command_running("migrate", DATABASE_URL=unmigrated_url)) for _ in range(2)]
        await await_migrators(connection, 2)  # now both are at the same point
        assert await connection.fetch("SELECT FROM pg_tables WHERE schemaname = 'public'") == []
        await connection.execute("SELECT pg_advisory_unlock($1)", ADVISORY_LOCK)
        assert [await asyncio.to_thread(process.wait, 30) for process in both] == [0, 0]
    assert await connection.fetchval("SELECT count(*) FROM alembic_version") == 1
    assert await connection.fetchval("SELECT count(*) FROM patients") == 0


async def test_again_is_harmless(database_url: str, connection: asyncpg.Connection) -> None:
    """Migrating a database that is up to date succeeds and keeps its data."""
    await connection.execute("INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hos', 'General Hospital')")
    before = await connection.fetch("SELECT * FROM alembic_version, hospitals")
    assert run_command("migrate", DATABASE_URL=database_url).returncode == 0
    assert await connection.fetch("SELECT * FROM alembic_version, hospitals") == before


async def test_interrupted_migration_is_taken_up_again(unmigrated_url: str, connection: asyncpg.Connection) -> None:
    """A migration that fails, or is killed, leaves nothing half-made and no lock; the next one succeeds."""
    await connection.execute("CREATE TABLE doctors ()")  # in the way: the first revision fails on it
    failed = run_command("migrate", DATABASE_URL=unmigrated_url)
    assert failed.returncode != 0
    tables = [row[0] for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    assert set(tables) <= {"doctors", "alembic_version"}
    await connection.execute("DROP TABLE doctors")
    async with connection.transaction():
        await connection.execute("CREATE TABLE patients ()")  # uncommitted: the migrator waits for its fate
        with command_running("migrate", DATABASE_URL=unmigrated_url) as migrator:
            await await_blocked(connection)
            migrator.kill()
            await asyncio.to_thread(migrator.wait, 30)
        await connection.execute("DROP TABLE patients")
    assert run_command("migrate", DATABASE_URL=unmigrated_url).returncode == 0
    assert await connection.fetchval("SELECT count(*) FROM patients") == 0


def test_without_a_database_it_says_what_to_set() -> None:
    """Without DATABASE_URL there is nothing to migrate: exit status 1, and the name of what is missing."""
    answer = run_command("migrate")
    assert answer.returncode == 1
    assert "DATABASE_URL" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_database_out_of_reach_is_one_clear_line() -> None:
    """A database that cannot be reached is exit status 1 and a sentence, without a traceback or the password."""
    answer: subprocess.CompletedProcess[str] = run_command(
        "migrate", DATABASE_URL="postgresql://patients:hunter2@127.0.0.1:1/patients"
    )
    assert answer.returncode == 1
    assert "database cannot be reached" in answer.stderr
    assert "hunter2" not in answer.stderr
    assert "Traceback" not in answer.stderr
