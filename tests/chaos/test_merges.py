"""Merges and their undoing: many random runs against a plain model, and kills under load. Run by `make chaos`."""

import asyncio
import os
import random
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from app.embedded.server import EmbeddedPostgres
from tests.chaos.test_kills import RestartablePostgres, Service
from tests.merging.support import PATIENTS
from tests.merging.test_property import check_random_merges
from tests.processes import data_directory, run_cli, worker_pids
from tests.support import eventually

pytestmark = pytest.mark.chaos

RUN_COUNT = 8
CLIENT_COUNT = 8
PATIENT_COUNT = 12
KILL_COUNT = 5
WRITES_BETWEEN_KILLS = 80
_HALF_MERGES = """
SELECT unique_id, version, merge::text FROM journal step
WHERE merge IS NOT NULL AND NOT EXISTS (
    SELECT FROM journal other WHERE other.request_id = step.request_id AND other.unique_id = (
        SELECT value FROM json_each_text(step.merge)
    ) AND (SELECT value FROM json_each_text(other.merge)) = step.unique_id
)
"""
"""Steps of merges without the entry of the other record in the same request."""
_SELECT_STATES = """
SELECT DISTINCT ON (unique_id) unique_id, action, unique_id IN (SELECT unique_id FROM patients) AS exists
FROM journal WHERE resource = 'patients' ORDER BY unique_id, version DESC
"""


@pytest.mark.parametrize("number", range(RUN_COUNT))
async def test_random_merges_agree_with_a_plain_model(database_url: str, number: int) -> None:
    """Random steps with another seed each time agree with the model; a failure names the seed."""
    seed = int(os.environ.get("MERGE_SEED") or secrets.randbits(32))
    print(f"\nrandom merges {number + 1} of {RUN_COUNT}, MERGE_SEED={seed}")
    await check_random_merges(database_url, seed, rounds=4)


class Mergers:
    """Clients that merge, separate and edit random patients until they are stopped, whatever the responses are."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=10)
        self._is_stopping = False
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.broken_connections = 0

    async def prepare(self) -> None:
        for number in range(3):
            hospital = {"unique_id": f"hos{number}", "hospital_name": f"Hospital {number}"}
            await self._client.post("/hospitals/hospitals/", json=hospital)
        for number in range(PATIENT_COUNT):
            names = {"patient_last_name": "Doe", "patient_title": f"T{number}"}
            patient = {"unique_id": f"p{number}", **names, "hospital_ids": [f"hos{number % 3}"]}
            assert (await self._client.post(PATIENTS, json=patient)).status_code == 201

    async def run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENT_COUNT):
                clients.create_task(self._write(random.Random(number)))  # noqa: S311  # need not be secret

    async def _write(self, choices: random.Random) -> None:
        while not self._is_stopping:
            one, other = (f"p{number}" for number in choices.sample(range(PATIENT_COUNT), 2))
            kind, method, path, body = choices.choice(
                (
                    ("merge", "POST", f"{one}/merge/", {"from": other, "choose": {"patient_title": "loser"}}),
                    ("unmerge", "POST", f"{one}/unmerge/", {}),
                    ("edit", "PATCH", f"{one}/", {"patient_race": str(choices.random())}),
                )
            )
            try:
                response = await self._client.request(method, f"{PATIENTS}{path}", json=body)
            except httpx.TransportError:
                self.broken_connections += 1
                await asyncio.sleep(0.05)
                continue
            self.statuses[kind, response.status_code] += 1

    @property
    def successes(self) -> int:
        """The number of successful merges and separations."""
        return self.statuses["merge", 200] + self.statuses["unmerge", 200]

    async def await_successes(self, additional: int) -> None:
        """Wait until so many more merges and separations have succeeded."""
        goal = self.successes + additional
        await asyncio.to_thread(eventually, lambda: self.successes >= goal, within_seconds=120)

    def stop(self) -> None:
        self._is_stopping = True

    async def close(self) -> None:
        await self._client.aclose()


@asynccontextmanager
async def merging_load(service: Service) -> AsyncIterator[Mergers]:
    """Run the clients for a while."""
    mergers = Mergers(service.url)
    await mergers.prepare()
    running = asyncio.create_task(mergers.run())
    try:
        yield mergers
    finally:
        mergers.stop()
        await running
        await mergers.close()


async def check_merges(name: str, database_url: str, mergers: Mergers) -> None:
    """Check that no merge is half done, and print a summary."""
    connection = await asyncpg.connect(database_url)
    half = await connection.fetch(_HALF_MERGES)
    states = await connection.fetch(_SELECT_STATES)
    steps = await connection.fetchval("SELECT count(*) FROM journal WHERE action IN ('merged', 'unmerged')")
    await connection.close()
    wrong = [row["unique_id"] for row in states if row["exists"] == (row["action"] == "merged")]
    merged = sum(row["action"] == "merged" for row in states)
    statuses = ", ".join(f"{count} x {kind} {status}" for (kind, status), count in sorted(mergers.statuses.items()))
    print(
        f"\n{name}: {mergers.successes} steps acknowledged (repeats, too), {steps} stored, "
        f"{merged} of {len(states)} patients merged at the end, {len(half)} half, {len(wrong)} wrong; "
        f"{mergers.broken_connections} broken connections; {statuses}"
    )
    assert (half, wrong) == ([], [])
    assert {status for _, status in mergers.statuses} <= {200, 404, 409, 410, 422, 503}
    assert len(states) == PATIENT_COUNT
    verified = run_cli("journal", "verify", DATABASE_URL=database_url)
    assert verified.returncode == 0, verified.stdout


@contextmanager
def migrated_postgres() -> Iterator[str]:
    """Run a migrated PostgreSQL that keeps what it acknowledged, and yield its URL."""
    with data_directory() as directory, EmbeddedPostgres(directory) as server:
        run_cli("migrate", DATABASE_URL=server.url)
        yield server.url


def kill_server(service: Service) -> None:
    service.process.kill()
    service.process.wait()
    service.start()


def kill_worker(service: Service) -> None:
    os.kill(min(worker_pids(service.process.pid)), signal.SIGKILL)


@pytest.mark.parametrize(("kill", "workers"), [(kill_server, 1), (kill_worker, 2)], ids=["server", "worker"])
async def test_no_merge_is_half_done_after_kills_of_the_service(kill: Callable[[Service], None], workers: int) -> None:
    """A `kill -9` of the server, or of a worker, leaves each merge done or not done."""
    with migrated_postgres() as url:
        service = Service(url, workers)
        try:
            await service.await_ready()
            async with merging_load(service) as mergers:
                for _ in range(KILL_COUNT):
                    await mergers.await_successes(WRITES_BETWEEN_KILLS)
                    kill(service)
                    await service.await_ready()
                await mergers.await_successes(WRITES_BETWEEN_KILLS)
            await check_merges(f"kill -9 of a {'worker' if workers > 1 else 'server'}", url, mergers)
        finally:
            service.stop()


async def test_no_merge_is_half_done_after_kills_of_postgresql() -> None:
    """A `kill -9` of PostgreSQL leaves each merge done or not done."""
    with data_directory() as directory:
        server = RestartablePostgres(Path(directory))
        try:
            run_cli("migrate", DATABASE_URL=server.url)
            service = Service(server.url, 1)
            try:
                await service.await_ready()
                async with merging_load(service) as mergers:
                    for _ in range(KILL_COUNT):
                        await mergers.await_successes(WRITES_BETWEEN_KILLS)
                        await asyncio.to_thread(server.kill, signal.SIGKILL)
                        await asyncio.to_thread(server.start)
                        await service.await_ready()
                    await mergers.await_successes(WRITES_BETWEEN_KILLS)
                await check_merges("kill -9 of PostgreSQL", server.url, mergers)
            finally:
                service.stop()
        finally:
            server.stop()
