"""Deploying a later version while the one before serves: nobody waits, nothing fails, nothing is lost."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from app.db.migrate import ADVISORY_LOCK
from tests.chaos.load import PATIENTS, Writers
from tests.db.versions import environment, with_column, with_field
from tests.processes import await_migrators, command_running, run_command
from tests.support import Served

Serve = Callable[..., Served]
CLIENTS = 4
MORE = 40
"""Writes that are acknowledged while a step is under way."""
INDEX = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_patients_patient_nickname')"
BUILDING = "SELECT phase FROM pg_stat_progress_create_index"


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The version after this one, which brings a column, and the one after that, where clients use it."""
    later = with_column(tmp_path_factory.mktemp("versions"))
    return later, with_field(later)


@asynccontextmanager
async def long_transaction(database_url: str) -> AsyncIterator[None]:
    """A transaction that has seen the database and goes on, as a dump does: an index is not finished before it ends."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetch("SELECT FROM hospitals")
            yield
    finally:
        await connection.close()


async def until_building(connection: asyncpg.Connection) -> None:
    """Wait until an index is being built, and waits for transactions that are older."""
    async with asyncio.timeout(30):
        while await connection.fetchval(BUILDING) != "waiting for old snapshots":
            await connection.execute("SELECT pg_sleep(0.02)")


@pytest.mark.alone
async def test_nothing_fails_while_versions_change(
    serve: Serve, versions: tuple[Path, Path], database_url: str, connection: asyncpg.Connection
) -> None:
    """Under write load: the migrations of the next version, it beside the old one, and then the version after it.

    Every request is answered as it is without a deployment, and the journal agrees with what both have written.
    """
    next_version, last_version = versions
    settings = {"DATABASE_URL": database_url, "PATIENTS_DRAIN_SECONDS": "2"}
    now = serve(**settings)
    async with Writers(now.url, CLIENTS) as writers:
        await writers.until(MORE)
        with command_running("migrate", DATABASE_URL=database_url, **environment(next_version)) as migrator:
            async with long_transaction(database_url):
                await until_building(connection)
                await writers.until(MORE)
                assert migrator.poll() is None
            assert await asyncio.to_thread(migrator.wait, 30) == 0
        assert await connection.fetchval(INDEX)
        await writers.until(MORE)
        later = await asyncio.to_thread(serve, **settings, **environment(next_version))  # the writers go on
        await moved(writers, now, later)
        assert writers.promises.statuses.keys() == {200, 201, 204}
        last = await asyncio.to_thread(serve, **settings, **environment(last_version))
        await side_by_side(later.url, last.url)
        await moved(writers, later, last)
    promises = writers.promises
    # an ETag stands for the whole answer: one of the version without the field does not match, and is asked for anew
    assert promises.statuses[412] <= CLIENTS
    assert promises.statuses.keys() - {412} == {200, 201, 204}
    assert promises.broken == 0
    stored = dict(await connection.fetch("SELECT patient_last_name, unique_id FROM patients"))
    for key, made in promises.created.items():
        assert (stored.get(key) == made) != (made in promises.deleted)
    verified = run_command("journal", "verify", DATABASE_URL=database_url, **environment(last_version))
    assert verified.returncode == 0, verified.stdout


async def moved(writers: Writers, old: Served, new: Served) -> None:
    """Have the writers go from a version to the next, as a proxy does, and stop the one that they have left.

    It drains, so that what was sent to it just before is still answered.
    """
    writers.move(new.url)
    old.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(old.process.wait, 30) == 0
    await writers.until(MORE)


async def side_by_side(earlier: str, later: str) -> None:
    """What the later version wrote into the new field outlives changes by the earlier, which does not show it."""
    async with httpx.AsyncClient() as client:
        body = {"unique_id": "nick", "patient_last_name": "Doe", "patient_nickname": "Nick"}
        assert (await client.post(f"{later}{PATIENTS}", json=body)).status_code == 201
        changed = await client.put(f"{earlier}{PATIENTS}nick/", json={"patient_race": "1"})
        assert (changed.status_code, "patient_nickname" in changed.json()) == (200, False)
        read = (await client.get(f"{later}{PATIENTS}nick/")).json()
        assert (read["patient_nickname"], read["patient_race"]) == ("Nick", "1")


async def test_two_migrate_at_once_while_an_index_is_built(
    versions: tuple[Path, Path], database_url: str, connection: asyncpg.Connection
) -> None:
    """Who waits for its turn to migrate is nothing that the index of the other waits for."""
    environ = {"DATABASE_URL": database_url, **environment(versions[0])}
    await connection.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
    with command_running("migrate", **environ) as first, command_running("migrate", **environ) as second:
        await await_migrators(connection, 2)  # now both are at the same point
        await connection.execute("SELECT pg_advisory_unlock($1)", ADVISORY_LOCK)
        assert [await asyncio.to_thread(each.wait, 30) for each in (first, second)] == [0, 0]
    assert await connection.fetchval(INDEX)


async def test_a_long_transaction_stops_a_migration_which_is_then_taken_up_again(
    versions: tuple[Path, Path], database_url: str, connection: asyncpg.Connection
) -> None:
    """The migration gives up and says why; what it leaves is no obstacle when it is run again."""
    environ = {"DATABASE_URL": database_url, **environment(versions[0])}
    async with long_transaction(database_url):
        stopped = await asyncio.to_thread(lambda: run_command("migrate", **environ))
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert "Run this again" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert await connection.fetchval(INDEX) is False
    again = await asyncio.to_thread(lambda: run_command("migrate", **environ))
    assert again.returncode == 0, again.stderr
    assert await connection.fetchval(INDEX)
