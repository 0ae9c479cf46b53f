"""Clients that wait for changes: how soon they get them, and what waiting costs. Run by `make chaos`."""

import asyncio
import os
import random
import time
from pathlib import Path
from statistics import quantiles

import asyncpg
import httpx
import pytest

from tests.chaos.load import PATIENTS
from tests.chaos.test_kills import Service, migrated_postgres
from tests.processes import descendant_pids, postgres_pid

pytestmark = pytest.mark.chaos

WAITING_CLIENTS = 1000
OBSERVED_SECONDS = 30


async def wait_for_patient(client: httpx.AsyncClient, seen: dict[str, float], ready: asyncio.Event) -> None:
    """Follow the feed by long polls, and store when each patient arrived."""
    cursor = (await client.get("/changes/", params={"after": "now"})).headers["Next-Cursor"]
    ready.set()
    while True:
        response = await client.get("/changes/", params={"after": cursor, "wait": 25})
        for change in response.raise_for_status().json():
            seen[change["unique_id"]] = time.monotonic()
        cursor = response.headers["Next-Cursor"]


async def test_changes_arrive_while_a_transaction_is_open() -> None:
    """For a minute in which another transaction that changes records stays open, clients get changes at once."""
    with migrated_postgres() as (_, url):
        service = Service(url, workers=4)
        try:
            await service.await_ready()
            blocker = await asyncpg.connect(url)
            transaction = blocker.transaction()
            await transaction.start()
            await blocker.execute(
                "INSERT INTO journal (resource, unique_id, version, action, actor, record)"
                " VALUES ('doctors', 'slow', 1, 'created', 'local', '{}')"
            )
            began, seen, delays = time.monotonic(), dict[str, float](), []
            async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
                ready = [asyncio.Event() for _ in range(8)]
                waiting = [asyncio.create_task(wait_for_patient(client, seen, event)) for event in ready]
                await asyncio.gather(*(event.wait() for event in ready))
                while time.monotonic() < began + 60:
                    created = await client.post(PATIENTS, json={"patient_last_name": "Doe"})
                    unique_id, committed_at = created.json()["unique_id"], time.monotonic()
                    while unique_id not in seen:  # noqa: ASYNC110  # as precise as needed
                        await asyncio.sleep(0.001)
                    delays.append(max(0, seen[unique_id] - committed_at))
                    await asyncio.sleep(0.1)
                await transaction.commit()
                async with asyncio.timeout(5):
                    while "slow" not in seen:  # noqa: ASYNC110  # as above
                        await asyncio.sleep(0.01)
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
            await blocker.close()
            percentiles = quantiles(delays, n=100)
            print(
                f"\n{len(delays)} changes beside a transaction of a minute: commit to waiting client "
                f"p50 {percentiles[49] * 1000:.0f} ms, p99 {percentiles[98] * 1000:.0f} ms"
            )
            assert percentiles[98] <= 0.5
        finally:
            service.stop()


def cpu_seconds(pids: set[int]) -> float:
    """Return the CPU time of processes."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def poll_again_and_again(port: int, cursor: str) -> None:
    """Send long polls on one connection, each when the one before has ended."""
    await asyncio.sleep(random.uniform(0, 10))  # noqa: S311  # not a secret
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            writer.write(f"GET /changes/?after={cursor}&wait=25 HTTP/1.1\r\nHost: patients.test\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            assert await reader.readexactly(2) == b"[]"
    finally:
        writer.close()


async def test_a_thousand_waiting_clients_cost_little() -> None:
    """1,000 clients that wait again and again take less than 5 % of a core and no database connection each."""
    with migrated_postgres() as (directory, url):
        service = Service(url, workers=1)
        try:
            await service.await_ready()
            async with httpx.AsyncClient(base_url=service.url) as client:
                cursor = (await client.get("/changes/", params={"after": "now"})).headers["Next-Cursor"]
            tasks = [asyncio.create_task(poll_again_and_again(service.port, cursor)) for _ in range(WAITING_CLIENTS)]
            await asyncio.sleep(12)
            own, postgres = {service.process.pid}, {postgres_pid(directory)} | descendant_pids(postgres_pid(directory))
            before, postgres_before = cpu_seconds(own), cpu_seconds(postgres)
            await asyncio.sleep(OBSERVED_SECONDS)
            spent = (cpu_seconds(own) - before) / OBSERVED_SECONDS
            postgres_spent = (cpu_seconds(postgres) - postgres_before) / OBSERVED_SECONDS
            connection = await asyncpg.connect(url)
            sessions = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'patients-api'"
            )
            await connection.close()
            assert not any(task.done() for task in tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            print(
                f"\n{WAITING_CLIENTS} waiting clients: {spent:.1%} of a core, PostgreSQL {postgres_spent:.1%}, "
                f"{sessions} database connections"
            )
            assert spent + postgres_spent < 0.05
            assert sessions <= 4
        finally:
            service.stop()
