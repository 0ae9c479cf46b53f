"""Kills under write load: acknowledged writes are stored once, with their journal entry. Run by `make chaos`."""

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

from app.embedded.server import EmbeddedPostgres, EmbeddedPostgresError
from tests.chaos.load import HOSPITALS, WriteLog, Writers
from tests.processes import (
    CLI_COMMAND,
    RawRequest,
    data_directory,
    free_port,
    postgres_pid,
    run_cli,
    send_concurrently,
    worker_pids,
)
from tests.support import eventually

pytestmark = pytest.mark.chaos

KILL_COUNT = 5
WRITES_BETWEEN_KILLS = 60
"""Writes that are acknowledged between two kills."""


class Service:
    """A service that can be restarted on the same port."""

    def __init__(self, database_url: str, workers: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = [*CLI_COMMAND, "serve", "--port", str(self.port), "--workers", str(workers)]
        self._environment = {**os.environ, "DATABASE_URL": database_url, "PATIENTS_DRAIN_SECONDS": "0"}
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._arguments, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    async def await_ready(self) -> float:
        """Wait until the service is ready and return the seconds it took."""
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
def migrated_postgres() -> Iterator[tuple[Path, str]]:
    """Run a migrated PostgreSQL that keeps what it acknowledged; yield its data directory and its URL."""
    with data_directory() as directory, EmbeddedPostgres(directory) as server:
        run_cli("migrate", DATABASE_URL=server.url)
        yield directory, server.url


@asynccontextmanager
async def under_load(url: str, workers: int) -> AsyncIterator[tuple[Service, Writers]]:
    service = Service(url, workers)
    try:
        await service.await_ready()
        async with Writers(service.url, clients=8) as writers:
            yield service, writers
    finally:
        service.stop()


async def check_writes(name: str, database_url: str, write_log: WriteLog, recovery_seconds: list[float]) -> None:
    """Compare the acknowledged writes with the database, and print a summary."""
    connection = await asyncpg.connect(database_url)
    patients = {row["unique_id"]: row for row in await connection.fetch("SELECT * FROM patients")}
    links = Counter(row["patient_id"] for row in await connection.fetch("SELECT patient_id FROM patient_hospitals"))
    profiles = {row["unique_id"] for row in await connection.fetch("SELECT unique_id FROM profiles")}
    journal = Counter(
        (row["unique_id"], row["action"])
        for row in await connection.fetch("SELECT unique_id, action FROM journal WHERE resource = 'patients'")
    )
    await connection.close()

    lost = [key for key, made in write_log.created.items() if made not in patients and made not in write_log.deleted]
    lost += [counter for counter, count in write_log.counts.items() if int(patients[counter]["patient_race"]) != count]
    lost += [made for made in write_log.deleted if made in patients or journal[made, "deleted"] != 1]
    names = Counter(row["patient_last_name"] for row in patients.values() if row["unique_id"] not in write_log.counts)
    duplicated = [name for name, count in names.items() if count > 1]
    duplicated += [counter for counter, count in write_log.counts.items() if journal[counter, "updated"] != count]
    incomplete = [
        row["unique_id"]
        for row in patients.values()
        if row["unique_id"] not in write_log.counts
        and (links[row["unique_id"]] != len(HOSPITALS) or row["profile_id"] not in profiles)
    ]
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(write_log.statuses.items()))
    print(
        f"\n{name}: {write_log.acknowledged_count} writes acknowledged, {len(lost)} lost, "
        f"{len(duplicated)} duplicated, {len(incomplete)} incomplete; recovered in {max(recovery_seconds):.1f} s; "
        f"{write_log.broken_connections} connections broken; "
        f"{statuses}"
    )
    assert (lost, duplicated, incomplete) == ([], [], [])
    assert write_log.statuses.keys() <= {200, 201, 204, 404, 412, 503}
    verified = run_cli("journal", "verify", DATABASE_URL=database_url)
    assert verified.returncode == 0, verified.stdout


async def test_writes_survive_killing_the_server() -> None:
    """Acknowledged writes survive a `kill -9` of the only process, which is then restarted."""
    with migrated_postgres() as (_, url):
        recovery_seconds = []
        async with under_load(url, workers=1) as (service, writers):
            for _ in range(KILL_COUNT):
                await writers.await_acknowledged(WRITES_BETWEEN_KILLS)
                service.process.kill()
                service.process.wait()
                service.start()
                recovery_seconds.append(await service.await_ready())
            await writers.await_acknowledged(WRITES_BETWEEN_KILLS)
        await check_writes("kill -9 of the server", url, writers.write_log, recovery_seconds)


async def test_writes_survive_killing_one_of_two_workers() -> None:
    """Acknowledged writes survive a `kill -9` of a worker, which the supervisor replaces."""
    with migrated_postgres() as (_, url):
        recovery_seconds = []
        async with under_load(url, workers=2) as (service, writers):
            for _ in range(KILL_COUNT):
                await writers.await_acknowledged(WRITES_BETWEEN_KILLS)
                os.kill(min(worker_pids(service.process.pid)), signal.SIGKILL)
                recovery_seconds.append(await service.await_ready())
            await writers.await_acknowledged(WRITES_BETWEEN_KILLS)
        await check_writes("kill -9 of a worker", url, writers.write_log, recovery_seconds)


async def test_a_hung_worker_is_replaced_without_losing_writes() -> None:
    """A worker that accepts connections but never responds is replaced after half a minute, and no write is lost."""
    with migrated_postgres() as (_, url):
        recovery_seconds = []
        async with under_load(url, workers=2) as (service, writers):
            await writers.await_acknowledged(WRITES_BETWEEN_KILLS)
            stopped = min(worker_pids(service.process.pid))
            os.kill(stopped, signal.SIGSTOP)
            began = time.monotonic()
            await asyncio.to_thread(
                eventually, lambda: stopped not in worker_pids(service.process.pid), within_seconds=90
            )
            recovery_seconds.append(time.monotonic() - began)
            await writers.await_acknowledged(WRITES_BETWEEN_KILLS)
        await check_writes("SIGSTOP to a worker", url, writers.write_log, recovery_seconds)


class RestartablePostgres:
    """An embedded PostgreSQL that can be killed and restarted on its data, with the same URL."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.start()

    def start(self) -> None:
        """Start the server; processes left behind by a killed one may have to end first."""

        def started() -> bool:
            self._server = EmbeddedPostgres(self.directory)
            try:
                self._server.__enter__()
            except EmbeddedPostgresError:
                return False
            return True

        eventually(started, within_seconds=30)
        self.url = self._server.url

    def kill(self, number: signal.Signals) -> None:
        os.kill(postgres_pid(self.directory), number)
        self._server.wait()
        self.stop()

    def stop(self) -> None:
        self._server.__exit__(None, None, None)


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGKILL], ids=["immediate stop", "kill -9"])
async def test_writes_survive_killing_postgresql(number: signal.Signals) -> None:
    """Acknowledged writes survive an abrupt end of PostgreSQL and its restart on the same data."""
    with data_directory() as directory:
        server = RestartablePostgres(directory)
        try:
            run_cli("migrate", DATABASE_URL=server.url)
            recovery_seconds = []
            async with under_load(server.url, workers=1) as (service, writers):
                for _ in range(KILL_COUNT):
                    await writers.await_acknowledged(WRITES_BETWEEN_KILLS)
                    await asyncio.to_thread(server.kill, number)
                    await asyncio.to_thread(server.start)
                    recovery_seconds.append(await service.await_ready())
                await writers.await_acknowledged(WRITES_BETWEEN_KILLS)
            await check_writes(f"{number.name} to PostgreSQL", server.url, writers.write_log, recovery_seconds)
        finally:
            server.stop()


async def test_a_thousand_concurrent_requests_on_a_small_pool_leak_nothing() -> None:
    """1,000 concurrent requests on a pool of 5 succeed, are refused or get a 503, and no connection leaks."""
    with migrated_postgres() as (_, url), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATIENTS_POOL_SIZE", "5")
        service = Service(url, workers=1)
        try:
            await service.await_ready()
            patient = {"unique_id": "pat0", "patient_last_name": "Doe"}
            await send_concurrently(service.url, [RawRequest("POST", "/patients/patients/", patient)])
            one = "/patients/patients/pat0/"
            kinds = (
                RawRequest("GET", one),
                RawRequest("GET", "/patients/patients/?limit=50"),
                RawRequest("POST", "/patients/patients/", {"patient_last_name": "Doe"}),
                RawRequest("PUT", one, {"patient_race": "1"}),
                RawRequest("DELETE", "/patients/patients/nobody/"),
            )
            began = time.monotonic()
            responses = await send_concurrently(service.url, [kinds[number % len(kinds)] for number in range(1000)])
            statuses = Counter(response.status for response in responses)
            print(f"\n1,000 on a pool of 5: {dict(statuses)} in {time.monotonic() - began:.1f} s")
            assert statuses.keys() <= {200, 201, 304, 404, 409, 412, 503}
            connection = await asyncpg.connect(url)
            sessions = await connection.fetch(
                "SELECT state FROM pg_stat_activity WHERE application_name = 'patients-api' AND state <> 'idle'"
            )
            assert sessions == []
            await connection.close()
            (again,) = await send_concurrently(service.url, [kinds[0]])
            assert again.status == 200
        finally:
            service.stop()
