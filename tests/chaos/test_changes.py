"""The change feed under load and kills: nothing is lost, doubled or out of order. Run by `make chaos`."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import pytest

from app.embedded.server import EmbeddedPostgres
from benchmarks.database import execute
from benchmarks.pgbouncer import find_pgbouncer
from docs.samples.mirror import Mirror
from tests.chaos.follower import read_pages
from tests.chaos.load import HOSPITALS, PATIENTS, Writers
from tests.chaos.test_kills import RestartablePostgres, Service, migrated_postgres, under_load
from tests.processes import data_directory, is_running, postgres_pid, run_cli, worker_pids
from tests.scaling.conftest import PooledDatabase
from tests.servers import create_standby, postgres_program
from tests.support import eventually

pytestmark = pytest.mark.chaos

WRITER_COUNT = 16
IMPORTED_PATIENTS = 100_000
Key = tuple[str, str]


class Follower:
    """A process that follows the feed, and that can be killed and started again."""

    def __init__(self, url: str, file: Path) -> None:
        self.url = url
        self.file = file
        self.start()

    def start(self) -> None:
        """Start the process, which continues after what it has stored."""
        command = [sys.executable, "-m", "tests.chaos.follower", self.url, str(self.file)]
        self.process = subprocess.Popen(command, cwd=Path(__file__).parents[2])

    def kill(self) -> None:
        """Kill the process with `kill -9`."""
        self.process.kill()
        self.process.wait()

    def changes(self) -> list[dict[str, Any]]:
        """Return the changes that it has stored."""
        return [change for page in read_pages(self.file) for change in page["changes"]]


async def check_feed(name: str, database_url: str, follower: Follower) -> None:
    """Wait until a follower has everything, compare it with the journal, and print the figures."""
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT resource, unique_id, version, action FROM journal")
    journal = Counter(tuple(row) for row in rows)
    await connection.close()

    def entries() -> list[tuple[Any, ...]]:
        names = ("resource", "unique_id", "version", "action")
        return [
            tuple(change[name] for name in names) for change in follower.changes() if change["action"] != "affected"
        ]

    async with asyncio.timeout(120):
        while len(entries()) < len(journal):  # noqa: ASYNC110  # another process writes them
            await asyncio.sleep(0.5)
    await asyncio.sleep(1)  # if anything is listed twice, it comes now
    found = entries()
    follower.kill()
    followed = Counter(found)
    versions: dict[Key, list[int]] = {}
    for resource, unique_id, version, _ in found:
        versions.setdefault((resource, unique_id), []).append(version)
    out_of_order = sum(a >= b for listed in versions.values() for a, b in pairwise(listed))
    positions = [change["position"] for change in follower.changes()]
    out_of_order += sum(a >= b for a, b in pairwise(positions))
    lost, doubled = journal - followed, followed - journal
    print(
        f"\n{name}: {len(journal):,} changes, lost {lost.total()}, doubled {doubled.total()}, "
        f"out of order {out_of_order}"
    )
    assert (lost.total(), doubled.total(), out_of_order) == (0, 0, 0)


async def follow_until(mirror: Mirror, is_done: asyncio.Event) -> None:
    """Follow the feed until `is_done` is set and nothing is left, whatever happens to the service."""
    while True:
        was_done = is_done.is_set()
        try:
            if not await mirror.follow(wait=1) and was_done:
                return
        except (httpx.TransportError, httpx.HTTPStatusError):
            await asyncio.sleep(0.05)


async def disturb(url: str, is_done: asyncio.Event) -> None:
    """Rename hospitals, and restore what others have deleted, until `is_done` is set."""
    choose = random.Random(1)  # noqa: S311  # not a secret
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        for number in range(1_000_000):
            if is_done.is_set():
                return
            try:
                path = f"/hospitals/hospitals/{choose.choice(HOSPITALS)}/"
                await client.put(path, json={"hospital_name": f"Name {number}"})
                deleted = (await client.get(PATIENTS, params={"deleted": "true", "limit": 3})).json()
                for patient in deleted if isinstance(deleted, list) else []:
                    restore = f"{PATIENTS}{patient['unique_id']}/restore/"
                    await client.post(restore, json={"version": patient["version"] - 1})
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.3)


async def check_mirror(name: str, mirror: Mirror) -> None:
    """Compare a mirror with the register, and print the figures."""
    current, _ = await mirror.read({})
    different = {key for key in current.keys() | mirror.patients.keys() if current.get(key) != mirror.patients.get(key)}
    print(f"\n{name}: mirror of {len(current):,} patients, different {len(different)}")
    assert different == set()


def write_patients(file: Path, count: int) -> None:
    with file.open("w") as output:
        for number in range(count):
            patient = {
                "unique_id": f"imported-{number}",
                "patient_last_name": f"Name {number}",
                "hospital_ids": ["hos0"],
            }
            output.write(f"{json.dumps(patient)}\n")


@asynccontextmanager
async def busy_service(url: str, workers: int, clients: int = WRITER_COUNT) -> AsyncIterator[tuple[Service, Writers]]:
    service = Service(url, workers)
    try:
        await service.await_ready()
        async with Writers(service.url, clients=clients) as writers:
            yield service, writers
    finally:
        service.stop()


async def test_nothing_is_lost_under_load_imports_and_kills(tmp_path: Path) -> None:
    """16 writers, an import of 100,000, restores and renames, while workers, readers and PostgreSQL are killed."""
    with data_directory() as directory:
        server = RestartablePostgres(directory)
        file, done = tmp_path / "patients.ndjson", asyncio.Event()
        write_patients(file, IMPORTED_PATIENTS)
        try:
            run_cli("migrate", DATABASE_URL=server.url)
            async with busy_service(server.url, workers=4) as (service, writers):
                follower = Follower(service.url, tmp_path / "pages")
                async with httpx.AsyncClient(base_url=service.url, timeout=120) as client:
                    mirror = Mirror(client)
                    await mirror.copy()
                    mirroring = asyncio.create_task(follow_until(mirror, done))
                    disturbing = asyncio.create_task(disturb(service.url, done))
                    await writers.await_acknowledged(100)
                    importing = subprocess.Popen(  # noqa: ASYNC220  # it only starts it
                        [sys.executable, "-m", "app.cli", "import", str(file)],
                        env={**os.environ, "DATABASE_URL": server.url},
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                    while importing.poll() is None:
                        await writers.await_acknowledged(50)
                        os.kill(min(worker_pids(service.process.pid)), signal.SIGKILL)
                        follower.kill()
                        follower.start()
                        await service.await_ready()
                    assert importing.returncode == 0
                    for _ in range(2):
                        await writers.await_acknowledged(50)
                        await asyncio.to_thread(server.kill, signal.SIGKILL)
                        await asyncio.to_thread(server.start)
                        await service.await_ready()
                    await writers.await_acknowledged(100)
                    done.set()
                    await disturbing
                    await writers.__aexit__()  # nobody writes any more
                    await mirroring
                    await check_mirror("load, import and kills", mirror)
                await check_feed("load, import and kills", server.url, follower)
        finally:
            server.stop()


async def test_nothing_is_lost_through_pgbouncer(tmp_path: Path) -> None:
    """The feed works through PgBouncer in transaction mode, with two sessions for all workers."""
    if find_pgbouncer() is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    with migrated_postgres() as (_, url):
        await execute(url, "CREATE ROLE serving LOGIN")
        assert run_cli("migrate", "--serving-role", "serving", DATABASE_URL=url).returncode == 0
        with PooledDatabase(url, "serving").pooler() as pooled_url, pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATIENTS_POOL_SIZE", "5")
            async with busy_service(pooled_url, workers=2, clients=8) as (service, writers):
                follower = Follower(service.url, tmp_path / "pages")
                await writers.await_acknowledged(500)
                await writers.__aexit__()
                await check_feed("PgBouncer", url, follower)


async def test_nothing_is_lost_in_a_failover(tmp_path: Path) -> None:
    """When a synchronous standby takes over, followers go on. The standby lists what its primary has numbered."""
    with ExitStack() as stack:
        here, there = (stack.enter_context(data_directory()) for _ in range(2))
        primary = stack.enter_context(EmbeddedPostgres(here))
        assert run_cli("migrate", DATABASE_URL=primary.url).returncode == 0
        create_standby(primary.url, there)
        standby = stack.enter_context(EmbeddedPostgres(there))
        await execute(primary.url, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        hosts = ",".join(quote(str(directory)) for directory in (here, there))
        url = f"postgresql://patients@/patients?host={hosts}&port=5432,5432&target_session_attrs=read-write"
        reading = Service(standby.url, workers=1)
        stack.callback(reading.stop)
        await reading.await_ready()
        async with busy_service(url, workers=4) as (service, writers):
            follower = Follower(service.url, tmp_path / "pages")
            standby_follower = Follower(reading.url, tmp_path / "standby-pages")
            await writers.await_acknowledged(200)
            eventually(lambda: len(standby_follower.changes()) > 100, within_seconds=30)
            postgres = postgres_pid(here)
            os.kill(postgres, signal.SIGKILL)
            eventually(lambda: not is_running(postgres))
            await execute(standby.url, "SELECT pg_promote()")
            await service.await_ready()
            await writers.await_acknowledged(200)
            await writers.__aexit__()
            await check_feed("failover", standby.url, follower)
            await check_feed("failover, followed on the standby", standby.url, standby_follower)


async def test_a_restored_dump_ends_the_feed_of_its_future(tmp_path: Path) -> None:
    """After a dump is restored, cursors of before are a 410, and a mirror then equals the register again."""
    with migrated_postgres() as (_, url):
        dump, restored = tmp_path / "dump", url.replace("/patients?", "/restored?")
        async with under_load(url, workers=2) as (service, writers), httpx.AsyncClient(timeout=60) as client:
            await writers.await_acknowledged(100)
            mirror = Mirror(client)
            client.base_url = httpx.URL(service.url)
            await mirror.copy()
            early_cursor = mirror.cursor
            await writers.await_acknowledged(100)
            create = [postgres_program("pg_dump"), "--format=custom", f"--file={dump}", url]
            await asyncio.to_thread(subprocess.run, create, check=True)
            await writers.await_acknowledged(100)
            await writers.__aexit__()
            while await mirror.follow(wait=0):
                pass
            await execute(url, "CREATE DATABASE restored")
            restore = [postgres_program("pg_restore"), f"--dbname={restored}", str(dump)]
            await asyncio.to_thread(subprocess.run, restore, check=True)
            other = Service(restored, workers=2)
            try:
                await other.await_ready()
                client.base_url = httpx.URL(other.url)
                for _ in range(300):  # until the positions have caught up
                    assert (await client.post(PATIENTS, json={"patient_last_name": "New"})).status_code == 201
                statuses = [
                    (await client.get("/changes/", params={"after": cursor})).status_code
                    for cursor in (early_cursor, mirror.cursor)
                ]
                print(f"\nrestored dump: cursor from before it {statuses[0]}, from after it {statuses[1]}")
                assert statuses == [410, 410]
                while await mirror.follow(wait=0):
                    pass
                await check_mirror("restored dump", mirror)
            finally:
                other.stop()
