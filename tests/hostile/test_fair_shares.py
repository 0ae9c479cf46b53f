"""One principal's work, however much, takes no capacity that is reserved for others."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from http.client import HTTPConnection
from typing import NamedTuple

import asyncpg
import httpx
import pytest

from app.api.list_response import MAX_STREAMS_PER_PRINCIPAL
from app.auth.scopes import Scope
from tests.auth.support import HOSPITALS, PATIENTS, client_for, make_key, secured_app
from tests.processes import count_deadlocks, port_of, wait_until_blocked, wait_until_ready, worker_pids
from tests.search.conftest import SEARCH
from tests.support import ServiceProcess

Serve = Callable[..., ServiceProcess]


class GreedyAndHonest(NamedTuple):
    """Clients of one service, each with a key."""

    greedy: httpx.AsyncClient
    honest: httpx.AsyncClient


@pytest.fixture
async def clients(database_url: str) -> AsyncIterator[GreedyAndHonest]:
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(secured_app(database_url, rate_limit="off", pool_size=4))
        keys = [await make_key(database_url, Scope.ADMIN, name=name) for name in GreedyAndHonest._fields]
        yield GreedyAndHonest(*[await stack.enter_async_context(client_for(app, key)) for key in keys])


async def test_searches_of_one_principal_leave_slots_for_others(
    clients: GreedyAndHonest, connection: asyncpg.Connection
) -> None:
    """While all searches of one principal wait in the database, another principal reads, filters and writes at once."""
    assert (
        await clients.honest.post(PATIENTS, json={"unique_id": "one", "patient_last_name": "Nel"})
    ).status_code == 201
    async with connection.transaction():
        await connection.execute("LOCK TABLE name_words IN ACCESS EXCLUSIVE MODE")
        searches = [asyncio.ensure_future(clients.greedy.post(SEARCH, json={"search": "nell"})) for _ in range(16)]
        await wait_until_blocked(connection)
        responses = await asyncio.gather(
            *(clients.honest.get(f"{PATIENTS}one/") for _ in range(8)),
            *(clients.honest.get(PATIENTS, params={"patient_last_name": "nel"}) for _ in range(4)),
            clients.honest.patch(f"{PATIENTS}one/", json={"patient_town": "Soweto"}),
        )
        assert {response.status_code for response in responses} == {200}
        assert not any(search.done() for search in searches), "the searches must have been running all the time"
    statuses = [response.status_code for response in await asyncio.gather(*searches)]
    assert set(statuses) == {200}, "the searches must succeed in the end"


async def test_a_cancelled_search_frees_its_slot(clients: GreedyAndHonest, connection: asyncpg.Connection) -> None:
    """A cancelled search frees its slot, whether it was running or waiting."""
    async with connection.transaction():
        await connection.execute("LOCK TABLE name_words IN ACCESS EXCLUSIVE MODE")
        searches = [asyncio.ensure_future(clients.greedy.post(SEARCH, json={"search": "nell"})) for _ in range(8)]
        await wait_until_blocked(connection)
        for search in searches:
            search.cancel()
        await asyncio.gather(*searches, return_exceptions=True)
    responses = await asyncio.gather(*(clients.greedy.post(SEARCH, json={"search": "nell"}) for _ in range(8)))
    assert {response.status_code for response in responses} == {200}


class SearchingService(NamedTuple):
    """A service with two workers, and two keys. A principal has one slot for searches in each worker."""

    served: ServiceProcess
    greedy: str
    honest: str

    async def search(self, key: str) -> int:
        """Search over a connection of its own, which the system gives to any of the workers, and return the status."""
        async with self.connect(key) as client:
            return (await client.post(SEARCH, json={"search": "nell"})).status_code

    def connect(self, key: str) -> httpx.AsyncClient:
        """Return a client with one of the keys."""
        return httpx.AsyncClient(base_url=self.served.url, timeout=60, headers={"X-API-Key": key})

    def start_searches(self, key: str, count: int) -> list[asyncio.Future[int]]:
        """Send searches that are answered later."""
        return [asyncio.ensure_future(self.search(key)) for _ in range(count)]


@pytest.fixture
async def searching_service(serve: Serve, database_url: str) -> SearchingService:
    keys = [await make_key(database_url, Scope.ADMIN, name=name) for name in GreedyAndHonest._fields]
    variables = {"PATIENTS_AUTH": "required", "PATIENTS_RATE_LIMIT": "off", "PATIENTS_POOL_SIZE": "4"}
    return SearchingService(serve("--workers", "2", DATABASE_URL=database_url, **variables), *keys)


async def test_workers_share_the_slots_of_a_principal(
    searching_service: SearchingService, connection: asyncpg.Connection
) -> None:
    """Beside another principal, one search of a principal runs at a time in all workers together; alone, more do."""
    count_blocked = "SELECT count(*), pg_sleep(0.02) FROM pg_locks WHERE NOT granted"
    async with connection.transaction():
        await connection.execute("LOCK TABLE name_words IN ACCESS EXCLUSIVE MODE")
        alone = searching_service.start_searches(searching_service.greedy, 16)
        await wait_until_blocked(connection, 2)
    assert {*await asyncio.gather(*alone)} <= {200, 503}
    async with connection.transaction(), searching_service.connect(searching_service.honest) as client:
        await connection.execute("LOCK TABLE name_words IN ACCESS EXCLUSIVE MODE")
        assert (await client.get(PATIENTS)).status_code == 200
        greedy = searching_service.start_searches(searching_service.greedy, 16)
        await wait_until_blocked(connection)
        assert max([await connection.fetchval(count_blocked) for _ in range(15)]) == 1
        honest = searching_service.start_searches(searching_service.honest, 1)
        await wait_until_blocked(connection, 2)
    # on a slow machine, the first ones wait for the lock for longer than their statements may take
    assert {*await asyncio.gather(*greedy, *honest)} <= {200, 503}
    again = searching_service.start_searches(searching_service.greedy, 16)
    assert {*await asyncio.gather(*again)} == {200}


async def test_a_killed_worker_frees_the_slots_of_a_principal(
    searching_service: SearchingService, connection: asyncpg.Connection
) -> None:
    """After all workers were killed in the middle of searches, the principal's searches succeed."""
    async with connection.transaction(), searching_service.connect(searching_service.honest) as client:
        await connection.execute("LOCK TABLE name_words IN ACCESS EXCLUSIVE MODE")
        assert (await client.get(PATIENTS)).status_code == 200
        searches = searching_service.start_searches(searching_service.greedy, 8)
        await wait_until_blocked(connection)
        served = searching_service.served
        for pid in worker_pids(served.process.pid):
            os.kill(pid, signal.SIGKILL)
        await asyncio.gather(*searches, return_exceptions=True)
    await asyncio.to_thread(wait_until_ready, served.process, served.url)
    again = searching_service.start_searches(searching_service.greedy, 8)
    assert {*await asyncio.gather(*again)} == {200}


async def test_refused_changes_do_not_roll_back_others(
    clients: GreedyAndHonest, connection: asyncpg.Connection
) -> None:
    """A principal with refused changes shares no more transactions, so others' changes are not rolled back with it."""
    wrong = {"patient_last_name": "Doe", "hospital_ids": ["nowhere"]}
    refused = 0
    for _ in range(12):
        responses = await asyncio.gather(
            *(clients.greedy.post(PATIENTS, json=wrong) for _ in range(2)),
            *(clients.honest.post(PATIENTS, json={"patient_last_name": "Roe"}) for _ in range(6)),
        )
        assert [response.status_code for response in responses] == [422] * 2 + [201] * 6
        refused += 2
    assert await connection.fetchval("SELECT count(*) FROM patients") == 72
    await count_deadlocks(connection)  # makes all sessions report their statistics
    rolled_back = await connection.fetchval(
        "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    )
    assert rolled_back < refused + 6, "refused changes were rolled back together with others"


class UnreadList:
    """A whole list of which the client reads only the head."""

    def __init__(self, url: str, key: str) -> None:
        self._connection = HTTPConnection("127.0.0.1", port_of(url), timeout=30)
        self._connection.sock = socket.socket()
        self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._connection.sock.settimeout(30)
        self._connection.sock.connect(("127.0.0.1", port_of(url)))
        self._connection.request("GET", PATIENTS, headers={"X-API-Key": key})

    def status(self) -> int:
        return self._connection.getresponse().status

    def close(self) -> None:
        self._connection.close()


async def test_unread_lists_leave_slots_for_others(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """A principal's concurrent whole lists are limited: another one waits for one to end, those of others do not."""
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name, patient_physical_address) "
        "SELECT 'p' || n, 'Doe', repeat('x', 500) FROM generate_series(1, 10000) n"
    )
    greedy, honest = [await make_key(database_url, Scope.ADMIN, name=name) for name in GreedyAndHonest._fields]
    served = serve(DATABASE_URL=database_url, PATIENTS_AUTH="required")
    unread = [UnreadList(served.url, greedy) for _ in range(MAX_STREAMS_PER_PRINCIPAL)]
    assert [one.status() for one in unread] == [200] * MAX_STREAMS_PER_PRINCIPAL
    with closing(UnreadList(served.url, greedy)) as one_more:
        waiting = asyncio.ensure_future(asyncio.to_thread(one_more.status))
        async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
            for key in (honest, greedy):  # other requests do not wait for whole lists
                page = await client.get(PATIENTS, params={"limit": 5}, headers={"X-API-Key": key})
                assert page.status_code == 200
                small = await client.get(HOSPITALS, headers={"X-API-Key": key})
                assert small.status_code == 200
            whole = await client.get(PATIENTS, headers={"X-API-Key": honest})
            assert len(whole.json()) == 10_000
        assert not waiting.done()
        for one in unread:
            one.close()
        assert await waiting == 200


async def test_a_list_beyond_the_limit_is_429_after_waiting(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """A whole list beyond the limit is a 429 after some seconds of waiting."""
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name, patient_physical_address) "
        "SELECT 'p' || n, 'Doe', repeat('x', 500) FROM generate_series(1, 10000) n"
    )
    key = await make_key(database_url, Scope.ADMIN)
    served = serve(DATABASE_URL=database_url, PATIENTS_AUTH="required")
    unread = [UnreadList(served.url, key) for _ in range(MAX_STREAMS_PER_PRINCIPAL)]
    assert [one.status() for one in unread] == [200] * MAX_STREAMS_PER_PRINCIPAL
    refused = await asyncio.to_thread(httpx.get, f"{served.url}{PATIENTS}", headers={"X-API-Key": key}, timeout=30)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    for one in unread:
        one.close()
