"""Deploying a later version while the previous one serves: no request waits or fails, and no write is lost."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from app.db.migrate import MIGRATION_LOCK_KEY
from tests.chaos.load import PATIENTS, Writers
from tests.db.versions import version_environment, version_with_column, version_with_field
from tests.processes import run_cli, running_cli, wait_until_migrators_queue
from tests.support import ServiceProcess

Serve = Callable[..., ServiceProcess]
CLIENT_COUNT = 4
WRITES_PER_STEP = 40
"""Writes that are acknowledged while a step is under way."""
SELECT_INDEX_IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_patients_patient_nickname')"
SELECT_INDEX_BUILD_PHASE = "SELECT phase FROM pg_stat_progress_create_index"


@pytest.fixture(scope="module")
def later_versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the next version, which adds a column, and the one after it, which publishes the field."""
    later = version_with_column(tmp_path_factory.mktemp("versions"))
    return later, version_with_field(later)


@asynccontextmanager
async def long_transaction(database_url: str) -> AsyncIterator[None]:
    """Hold a snapshot open, as a dump does: no concurrent index build finishes before it ends."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetch("SELECT FROM hospitals")
            yield
    finally:
        await connection.close()


async def await_index_build(connection: asyncpg.Connection) -> None:
    """Wait until an index build waits for older transactions."""
    async with asyncio.timeout(30):
        while await connection.fetchval(SELECT_INDEX_BUILD_PHASE) != "waiting for old snapshots":
            await connection.execute("SELECT pg_sleep(0.02)")


@pytest.mark.crowd
async def test_no_request_fails_during_a_rolling_deployment(
    serve: Serve, later_versions: tuple[Path, Path], database_url: str, connection: asyncpg.Connection
) -> None:
    """All requests succeed while the next version migrates, serves beside this one, and gives way to the one after it.

    The journal agrees with what all versions have written.
    """
    next_version, last_version = later_versions
    settings = {"DATABASE_URL": database_url, "PATIENTS_DRAIN_SECONDS": "1"}
    current = serve(**settings)
    async with Writers(current.url, CLIENT_COUNT) as writers:
        await writers.await_acknowledged(WRITES_PER_STEP)
        with running_cli("migrate", DATABASE_URL=database_url, **version_environment(next_version)) as migrator:
            async with long_transaction(database_url):
                await await_index_build(connection)
                await writers.await_acknowledged(WRITES_PER_STEP)
                assert migrator.poll() is None
            assert await asyncio.to_thread(migrator.wait, 30) == 0
        assert await connection.fetchval(SELECT_INDEX_IS_VALID)
        await writers.await_acknowledged(WRITES_PER_STEP)
        later = await asyncio.to_thread(serve, **settings, **version_environment(next_version))  # the writers go on
        await move_writers(writers, current, later)
        assert writers.write_log.statuses.keys() == {200, 201, 204}
        last = await asyncio.to_thread(serve, **settings, **version_environment(last_version))
        await check_versions_side_by_side(later.url, last.url)
        await move_writers(writers, later, last)
    write_log = writers.write_log
    # an ETag covers the whole representation: one from the version without the field does not match and is requested
    # again
    assert write_log.statuses[412] <= CLIENT_COUNT
    assert write_log.statuses.keys() - {412} == {200, 201, 204}
    assert write_log.broken_connections == 0
    stored = dict(await connection.fetch("SELECT patient_last_name, unique_id FROM patients"))
    for key, made in write_log.created.items():
        assert (stored.get(key) == made) != (made in write_log.deleted)
    verified = run_cli("journal", "verify", DATABASE_URL=database_url, **version_environment(last_version))
    assert verified.returncode == 0, verified.stdout


async def move_writers(writers: Writers, old: ServiceProcess, new: ServiceProcess) -> None:
    """Switch the writers to the new version, as a proxy does, and stop the old one.

    The old one drains, so that requests sent to it just before still get their responses.
    """
    writers.switch_to(new.url)
    old.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(old.process.wait, 30) == 0
    await writers.await_acknowledged(WRITES_PER_STEP)


async def check_versions_side_by_side(earlier: str, later: str) -> None:
    """Check that a value in a new field survives changes by the earlier version, which does not show it."""
    async with httpx.AsyncClient() as client:
        body = {"unique_id": "nick", "patient_last_name": "Doe", "patient_nickname": "Nick"}
        assert (await client.post(f"{later}{PATIENTS}", json=body)).status_code == 201
        changed = await client.put(f"{earlier}{PATIENTS}nick/", json={"patient_race": "1"})
        assert (changed.status_code, "patient_nickname" in changed.json()) == (200, False)
        read = (await client.get(f"{later}{PATIENTS}nick/")).json()
        assert (read["patient_nickname"], read["patient_race"]) == ("Nick", "1")


async def test_concurrent_migrations_that_build_an_index_both_succeed(
    later_versions: tuple[Path, Path], database_url: str, connection: asyncpg.Connection
) -> None:
    """A process that waits for its turn to migrate does not block the other's concurrent index build."""
    environ = {"DATABASE_URL": database_url, **version_environment(later_versions[0])}
    await connection.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK_KEY)
    with running_cli("migrate", **environ) as first, running_cli("migrate", **environ) as second:
        await wait_until_migrators_queue(connection, 2)  # now both wait for the same lock
        await connection.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK_KEY)
        assert [await asyncio.to_thread(each.wait, 30) for each in (first, second)] == [0, 0]
    assert await connection.fetchval(SELECT_INDEX_IS_VALID)


async def test_migration_gives_up_behind_a_long_transaction_and_can_be_repeated(
    later_versions: tuple[Path, Path], database_url: str, connection: asyncpg.Connection
) -> None:
    """A migration behind a long transaction gives up and says why, and what it leaves does not prevent another run."""
    environ = {"DATABASE_URL": database_url, **version_environment(later_versions[0])}
    async with long_transaction(database_url):
        stopped = await asyncio.to_thread(lambda: run_cli("migrate", **environ))
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert "Run this command again" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert await connection.fetchval(SELECT_INDEX_IS_VALID) is False
    again = await asyncio.to_thread(lambda: run_cli("migrate", **environ))
    assert again.returncode == 0, again.stderr
    assert await connection.fetchval(SELECT_INDEX_IS_VALID)
