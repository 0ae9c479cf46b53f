"""Webhooks under kills: every change is delivered, in order. Run by `make chaos`."""

import asyncio
import os
import signal
from itertools import pairwise

import asyncpg
import httpx
import pytest

from tests.chaos.load import PATIENTS
from tests.chaos.test_kills import Service, migrated_postgres
from tests.processes import run_cli, worker_pids
from tests.webhooks.receiver import Receiver, running_receiver

pytestmark = pytest.mark.chaos


async def create_slowly(url: str, is_done: asyncio.Event) -> None:
    """Create and change patients, about 20 times a second, until `is_done` is set."""
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        for number in range(1_000_000):
            if is_done.is_set():
                return
            try:
                await client.post(PATIENTS, json={"unique_id": f"pat{number}", "patient_last_name": "Doe"})
                await client.put(f"{PATIENTS}pat{number // 2}/", json={"patient_last_name": f"Name {number}"})
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


async def test_webhooks_survive_kills() -> None:
    """Every change is delivered in order, and a kill between sending and storing repeats at most one, with its id."""
    with migrated_postgres() as (_, url):
        service, done, kills = Service(url, workers=2), asyncio.Event(), 3
        try:
            await service.await_ready()
            async with running_receiver() as receiver:
                added = run_cli(
                    "webhooks", "add", receiver.url, "--allow-http", "--events", "patient.*", DATABASE_URL=url
                )
                assert added.returncode == 0, added.stderr
                secret = added.stdout.partition("secret: ")[2].strip()
                writing = asyncio.create_task(create_slowly(service.url, done))
                for _ in range(kills):
                    await until_received(receiver, len(receiver.received) + 30)
                    # one of them holds the endpoint, and is between a request and the next
                    for pid in worker_pids(service.process.pid):
                        os.kill(pid, signal.SIGKILL)
                    await service.await_ready()
                await until_received(receiver, len(receiver.received) + 30)
                done.set()
                await writing
                connection = await asyncpg.connect(url)
                feed = await expected_messages(connection, receiver.received[0].content["data"]["position"])
                await connection.close()
                first = dict[str, int]()
                async with asyncio.timeout(120):
                    while len(first) < len(feed):
                        first = {request.id: request.content["data"]["position"] for request in receiver.received}
                        await asyncio.sleep(0.1)
        finally:
            service.stop()
    repeated = sum(a.id == b.id for a, b in pairwise(receiver.received))
    positions = list(first.values())
    print(
        f"\nwebhooks, {kills} kills of all workers: {len(feed)} changes, {len(receiver.received)} requests, "
        f"lost {len(set(feed) - set(positions))}, repeated {repeated}, "
        f"at the same time {sum(request.concurrent > 1 for request in receiver.received)}"
    )
    assert positions == feed, "lost, or out of order"
    assert len(receiver.received) == len(feed) + repeated, "a repeated message follows itself"
    assert repeated <= kills
    assert {request.concurrent for request in receiver.received} == {1}
    assert len(receiver.verify(secret)) == len(receiver.received)


async def until_received(receiver: Receiver, count: int) -> None:
    """Wait until a receiver has got a number of messages; a lease of a killed process has to end first."""
    async with asyncio.timeout(90):
        while len(receiver.received) < count:  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0.01)


async def expected_messages(connection: asyncpg.Connection, first: int) -> list[int]:
    """Wait until all changes are numbered, and return the positions from `first` on that the endpoint gets."""
    async with asyncio.timeout(60):
        while await connection.fetchval("SELECT EXISTS (SELECT FROM changes_pending)"):
            await connection.execute("SELECT pg_sleep(0.1)")
    rows = await connection.fetch(
        "SELECT position FROM changes WHERE resource = 'patients' AND position >= $1 ORDER BY position", first
    )
    return [position for (position,) in rows]
