"""Clients that hang up: the work for them stops, wherever it was, and nothing of them is left behind."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from app.resource.pages import MOST_STREAMS_OF_ONE
from tests.processes import Call, at_once, await_blocked, port_of
from tests.support import Served, dump, eventually

pytestmark = pytest.mark.alone

PATIENTS = "/patients/patients/"
CHANGE = {"patient_last_name": "Roe"}
POOL_SIZE = 4
MOST_BLOCKED = 3
"""Transactions that one principal has at once, of that many connections."""
OURS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'patients-api'"

Serve = Callable[..., Served]
Writer = asyncio.StreamWriter


async def insert_patients(connection: asyncpg.Connection, number: int) -> None:
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name, patient_town)"
        " SELECT 'pat' || n, 'Doe', repeat('x', 100) FROM generate_series(0, $1 - 1) n",
        number,
    )


async def await_nobody_blocked(connection: asyncpg.Connection, within: float) -> None:
    """Wait until no session waits for a lock; fail where one still does after so many seconds."""
    async with asyncio.timeout(within):
        while await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await connection.execute("SELECT pg_sleep(0.02)")


@asynccontextmanager
async def locked(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """All patients are locked."""
    async with connection.transaction():
        await connection.execute("SELECT FROM patients FOR UPDATE")
        yield


async def begin(served: Served, request: bytes, *, read: int = 0) -> Writer:
    """Send a request, and read only so many bytes of the answer."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port_of(served.url)))
    reader, writer = await asyncio.open_connection(sock=plain, limit=1024)
    writer.write(request)
    await reader.readexactly(read)
    return writer


async def hang_up(writers: list[Writer]) -> None:
    """Close the connections, every other with a reset."""
    for number, writer in enumerate(writers):
        if number % 2:
            writer.transport.abort()
        else:
            writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


def put(number: int) -> bytes:
    return Call("PUT", f"{PATIENTS}pat{number}/", CHANGE, {"X-Request-ID": f"put-{number}"}).encoded()


async def test_waiting_for_a_lock_ends_with_the_client(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """A change that waits for a lock is given up when its client hangs up, long before the wait would have ended."""
    await insert_patients(connection, 1)
    before = await dump(connection)
    served = serve(DATABASE_URL=database_url)
    async with locked(connection):
        writer = await begin(served, put(0))
        await await_blocked(connection)
        await hang_up([writer])
        await await_nobody_blocked(connection, within=1.0)
    eventually(lambda: any(line.get("request_id") == "put-0" for line in served.log()))
    (line,) = [line for line in served.log() if line.get("request_id") == "put-0"]
    assert line["event"] == "request"
    assert line["status"] is None
    assert line["complete"] is False
    assert line["duration_ms"] < 1400, "not the wait's own end"
    assert await dump(connection) == before


async def test_hundred_clients_that_hang_up(serve: Serve, database_url: str, connection: asyncpg.Connection) -> None:
    """Before the body is complete, in the line, at a lock or within a list: afterwards the pool is whole and idle."""
    await insert_patients(connection, 10_000)
    before = await dump(connection)
    served = serve(DATABASE_URL=database_url, PATIENTS_POOL_SIZE=str(POOL_SIZE))
    async with locked(connection):
        lists = [await begin(served, Call("GET", PATIENTS).encoded(), read=2000) for _ in range(MOST_STREAMS_OF_ONE)]
        lists += [await begin(served, Call("GET", PATIENTS).encoded()) for _ in range(30 - len(lists))]  # they wait
        incomplete = [await begin(served, put(number)[:-5]) for number in range(30)]
        waiting = [await begin(served, put(number)) for number in range(100, 140)]
        await await_blocked(connection, MOST_BLOCKED)
        await hang_up([*lists, *incomplete, *waiting])
        await await_nobody_blocked(connection, within=1.3)
    eventually(lambda: sum(line.get("route", "/readyz") != "/readyz" for line in served.log()) == 100)
    lines = [line for line in served.log() if line.get("route", "/readyz") != "/readyz"]
    assert [line for line in lines if line["method"] == "PUT" and line["status"] is not None] == []
    assert not any(line["complete"] for line in lines)
    assert [line for line in served.log() if line["level"] == "error"] == []
    assert await dump(connection) == before
    assert await connection.fetchval(f"SELECT count(*) {OURS}") <= POOL_SIZE
    assert await connection.fetchval(f"SELECT count(*) {OURS} AND state <> 'idle'") == 0
    async with locked(connection):
        calls = [Call("PUT", f"{PATIENTS}pat{number}/", CHANGE) for number in range(POOL_SIZE)]
        slow = asyncio.ensure_future(at_once(served.url, calls))
        await await_blocked(connection, MOST_BLOCKED)
    assert [answer.status for answer in await slow] == [200] * POOL_SIZE
