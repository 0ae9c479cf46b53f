"""`patients-api migrate`, run in separate processes."""

import asyncio
import subprocess
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest

import migrations
from tests.processes import run_cli, running_cli, wait_until_blocked, wait_until_migrators_queue

ADVISORY_LOCK = 0x70617469656E7473
"""The lock that migrations of all versions take; a version with another lock would not wait for the others."""


@pytest.fixture
async def unmigrated_url(database_url: str, connection: asyncpg.Connection) -> str:
    """Return the URL of an empty database."""
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return database_url


async def test_concurrent_migrations_both_succeed(unmigrated_url: str, connection: asyncpg.Connection) -> None:
    """If two replicas migrate at once, one waits for the other, both succeed, and the schema is created once."""
    await connection.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
    with ExitStack() as stack:
        both = [stack.enter_context(running_cli("migrate", DATABASE_URL=unmigrated_url)) for _ in range(2)]
        await wait_until_migrators_queue(connection, 2)  # now both wait for the same lock
        assert await connection.fetch("SELECT FROM pg_tables WHERE schemaname = 'public'") == []
        await connection.execute("SELECT pg_advisory_unlock($1)", ADVISORY_LOCK)
        assert [await asyncio.to_thread(process.wait, 30) for process in both] == [0, 0]
    assert await connection.fetchval("SELECT count(*) FROM alembic_version") == 1
    assert await connection.fetchval("SELECT count(*) FROM patients") == 0


async def test_migrating_again_keeps_schema_and_data(database_url: str, connection: asyncpg.Connection) -> None:
    """Migrating an up-to-date database succeeds and keeps its data."""
    await connection.execute("INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hos', 'General Hospital')")
    before = await connection.fetch("SELECT * FROM alembic_version, hospitals")
    again = run_cli("migrate", DATABASE_URL=database_url)
    expected = f"The schema is up to date (revision {before[0]['version_num']}): nothing to migrate.\n"
    assert (again.returncode, again.stdout, again.stderr) == (0, expected, "")
    assert await connection.fetch("SELECT * FROM alembic_version, hospitals") == before


async def test_a_newer_schema_is_left_as_it_is(database_url: str, connection: asyncpg.Connection) -> None:
    """On a database that a newer version has migrated, as after a rollback, there is nothing to migrate or to grant."""
    await connection.execute("UPDATE alembic_version SET version_num = '29991231_07'")
    result = await asyncio.to_thread(run_cli, "migrate", "--serving-role", "pg_monitor", DATABASE_URL=database_url)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("A newer version has migrated the database, and this version works with it")
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == "29991231_07"
    assert not await connection.fetchval("SELECT has_table_privilege('pg_monitor', 'patients', 'SELECT')")


async def test_migrate_names_the_revisions_that_it_applied(unmigrated_url: str, connection: asyncpg.Connection) -> None:
    """The output has one line for each revision, and only revisions that were missing."""
    names = sorted(path.stem for path in Path(migrations.__file__).parent.glob("versions/*.py"))
    result = run_cli("migrate", DATABASE_URL=unmigrated_url)
    assert (result.returncode, result.stderr) == (0, "")
    first, *applied = result.stdout.splitlines()
    assert first == f"Applied {len(names)} revisions:"
    assert [line.strip() for line in applied] == names
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == names[-1][:11]


async def test_interrupted_migration_can_be_repeated(unmigrated_url: str, connection: asyncpg.Connection) -> None:
    """A migration that fails or is killed leaves no partial schema and no lock, and the next one succeeds."""
    await connection.execute("CREATE TABLE doctors ()")  # makes the first revision fail
    failed = run_cli("migrate", DATABASE_URL=unmigrated_url)
    assert failed.returncode != 0
    tables = [row[0] for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    assert set(tables) <= {"doctors", "alembic_version"}
    await connection.execute("DROP TABLE doctors")
    async with connection.transaction():
        await connection.execute("CREATE TABLE patients ()")  # uncommitted: the migrator waits for its outcome
        with running_cli("migrate", DATABASE_URL=unmigrated_url) as migrator:
            await wait_until_blocked(connection)
            migrator.kill()
            await asyncio.to_thread(migrator.wait, 30)
        await connection.execute("DROP TABLE patients")
    assert run_cli("migrate", DATABASE_URL=unmigrated_url).returncode == 0
    assert await connection.fetchval("SELECT count(*) FROM patients") == 0


def test_missing_database_url_is_named() -> None:
    """Without DATABASE_URL, the command exits with status 1 and names the missing setting."""
    result = run_cli("migrate")
    assert result.returncode == 1
    assert "DATABASE_URL" in result.stderr
    assert "Traceback" not in result.stderr


def test_database_out_of_reach_is_one_clear_line() -> None:
    """An unreachable database is exit status 1 and one sentence, without a traceback or the password."""
    result: subprocess.CompletedProcess[str] = run_cli(
        "migrate", DATABASE_URL="postgresql://patients:hunter2@127.0.0.1:1/patients"
    )
    assert result.returncode == 1
    assert "database cannot be reached" in result.stderr
    assert "hunter2" not in result.stderr
    assert "Traceback" not in result.stderr
