"""Kills under write load: what was acknowledged is there, once, with its journal entry. `make chaos` runs them."""

import asyncio
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from app.db.embedded import EmbeddedPostgres, EmbeddedPostgresError
from tests.chaos.load import HOSPITALS, Promises, Writers
from tests.conftest import free_port
from tests.processes import COMMAND, Call, at_once, data_directory, postgres_pid, run_command, workers
from tests.support import eventually

pytestmark = pytest.mark.chaos

KILLS = 5
BETWEEN = 60
"""Writes that are acknowledged between two kills."""


class Service:
    """A service that is started anew whenever it has ended."""

    def __init__(self, database_url: str, workers: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = [*COMMAND, "serve", "--port", str(self.port), "--workers", str(workers)]
        self._environment = {**os.environ, "DATABASE_URL": database_url, "PATIENTS_DRAIN_SECONDS": "0"}
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._arguments, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    async def ready(self) -> float:
        """Wait until it is ready; the seconds that it took."""
        began = time.monotonic()
        async with asyncio.timeout(30), httpx.AsyncClient() as client:
            while True:
                try:
                    if (await client.get(f"{self.url}/readyz")).status_code == 204:
                        return time.monotonic() - began
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.02)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@contextmanager
def postgres() -> Iterator[tuple[Path, str]]:
    """A PostgreSQL that keeps what it has acknowledged, and its data directory."""
    with data_directory() as directory, EmbeddedPostgres(directory) as server:
        run_command("migrate", DATABASE_URL=server.url)
        yield directory, server.url


@asynccontextmanager
async def under_load(url: str, workers: int) -> AsyncIterator[tuple[Service, Writers]]:
    service = Service(url, workers)
    try:
        await service.ready()
        async with Writers(service.url, clients=8) as writers:
            yield service, writers
    finally:
        service.stop()


async def audit(name: str, database_url: str, promises: Promises, back: list[float]) -> None:
    """Compare what was promised with what is stored, and print a line about it."""
    connection = await asyncpg.connect(database_url)
    patients = {row["unique_id"]: row for row in await connection.fetch("SELECT * FROM patients")}
    links = Counter(row["patient_id"] for row in await connection.fetch("SELECT patient_id FROM patient_hospitals"))
    profiles = {row["unique_id"] for row in await connection.fetch("SELECT unique_id FROM profiles")}
    journal = Counter(
        (row["unique_id"], row["action"])
        for row in await connection.fetch("SELECT unique_id, action FROM journal WHERE resource = 'patients'")
    )
    await connection.close()

    lost = [key for key, made in promises.created.items() if made not in patients and made not in promises.deleted]
    lost += [counter for counter, count in promises.counts.items() if int(patients[counter]["patient_race"]) != count]
    lost += [made for made in promises.deleted if made in patients or journal[made, "deleted"] != 1]
    names = Counter(row["patient_last_name"] for row in patients.values() if row["unique_id"] not in promises.counts)
    doubled = [name for name, count in names.items() if count > 1]
    doubled += [counter for counter, count in promises.counts.items() if journal[counter, "updated"] != count]
    halves = [
        row["unique_id"]
        for row in patients.values()
        if row["unique_id"] not in promises.counts
        and (links[row["unique_id"]] != len(HOSPITALS) or row["profile_id"] not in profiles)
    ]
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(promises.statuses.items()))
    print(
        f"\n{name}: {promises.acknowledged} writes acknowledged, {len(lost)} lost, {len(doubled)} doubled, "
        f"{len(halves)} half done; back after {max(back):.1f} s at most; {promises.broken} connections broken; "
        f"{statuses}"
    )
    assert (lost, doubled, halves) == ([], [], [])
    assert promises.statuses.keys() <= {200, 201, 204, 404, 412, 503}
    verified = run_command("journal", "verify", DATABASE_URL=database_url)
    assert verified.returncode == 0, verified.stdout


async def test_server_is_killed() -> None:
    """`kill -9` of the only process, which is then started anew."""
    with postgres() as (_, url):
        back = []
        async with under_load(url, workers=1) as (service, writers):
            for _ in range(KILLS):
                await writers.until(BETWEEN)
                service.process.kill()
                service.process.wait()
                service.start()
                back.append(await service.ready())
            await writers.until(BETWEEN)
        await audit("kill -9 of the server", url, writers.promises, back)


async def test_one_of_two_workers_is_killed() -> None:
    """`kill -9` of a worker, whom the supervisor replaces."""
    with postgres() as (_, url):
        back = []
        async with under_load(url, workers=2) as (service, writers):
            for _ in range(KILLS):
                await writers.until(BETWEEN)
                os.kill(min(workers(service.process.pid)), signal.SIGKILL)
                back.append(await service.ready())
            await writers.until(BETWEEN)
        await audit("kill -9 of a worker", url, writers.promises, back)


async def test_a_worker_that_has_stopped_is_replaced() -> None:
    """It takes its share of the connections and answers none: after half a minute it is ended."""
    with postgres() as (_, url):
        back = []
        async with under_load(url, workers=2) as (service, writers):
            await writers.until(BETWEEN)
            stopped = min(workers(service.process.pid))
            os.kill(stopped, signal.SIGSTOP)
            began = time.monotonic()
            await asyncio.to_thread(eventually, lambda: stopped not in workers(service.process.pid), within=90)
            back.append(time.monotonic() - began)
            await writers.until(BETWEEN)
        await audit("SIGSTOP to a worker", url, writers.promises, back)


class Server:
    """An embedded PostgreSQL that can be killed and started anew on its data, under the same URL."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.start()

    def start(self) -> None:
        """Start it; what a killed one has left behind may have to end first."""

        def started() -> bool:
            self._server = EmbeddedPostgres(self.directory)
            try:
                self._server.__enter__()
            except EmbeddedPostgresError:
                return False
            return True

        eventually(started, within=30)
        self.url = self._server.url

    def kill(self, number: signal.Signals) -> None:
        os.kill(postgres_pid(self.directory), number)
        self._server.wait()
        self.stop()

    def stop(self) -> None:
        self._server.__exit__(None, None, None)


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGKILL], ids=["immediate stop", "kill -9"])
async def test_postgresql_is_killed(number: signal.Signals) -> None:
    """PostgreSQL ends at once, and is started anew on the same data."""
    with data_directory() as directory:
        server = Server(directory)
        try:
            run_command("migrate", DATABASE_URL=server.url)
            back = []
            async with under_load(server.url, workers=1) as (service, writers):
                for _ in range(KILLS):
                    await writers.until(BETWEEN)
                    await asyncio.to_thread(server.kill, number)
                    await asyncio.to_thread(server.start)
                    back.append(await service.ready())
                await writers.until(BETWEEN)
            await audit(f"{number.name} to PostgreSQL", server.url, writers.promises, back)
        finally:
            server.stop()


async def test_a_crowd_before_a_small_pool() -> None:
    """1,000 requests at once on a pool of 5: done, refused or told to come back; nothing leaks."""
    with postgres() as (_, url), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATIENTS_POOL_SIZE", "5")
        service = Service(url, workers=1)
        try:
            await service.ready()
            patient = {"unique_id": "pat0", "patient_last_name": "Doe"}
            await at_once(service.url, [Call("POST", "/patients/patients/", patient)])
            one = "/patients/patients/pat0/"
            kinds = (
                Call("GET", one),
                Call("GET", "/patients/patients/?limit=50"),
                Call("POST", "/patients/patients/", {"patient_last_name": "Doe"}),
                Call("PUT", one, {"patient_race": "1"}),
                Call("DELETE", "/patients/patients/nobody/"),
            )
            began = time.monotonic()
            answers = await at_once(service.url, [kinds[number % len(kinds)] for number in range(1000)])
            statuses = Counter(answer.status for answer in answers)
            print(f"\n1,000 on a pool of 5: {dict(statuses)} in {time.monotonic() - began:.1f} s")
            assert statuses.keys() <= {200, 201, 304, 404, 409, 412, 503}
            connection = await asyncpg.connect(url)
            sessions = await connection.fetch(
                "SELECT state FROM pg_stat_activity WHERE application_name = 'patients-api' AND state <> 'idle'"
            )
            assert sessions == []
            await connection.close()
            (again,) = await at_once(service.url, [kinds[0]])
            assert again.status == 200
        finally:
            service.stop()
