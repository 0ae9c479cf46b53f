"""Client disconnects: the work for the client stops, wherever it was, and leaves nothing behind."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from app.api.list_response import MAX_STREAMS_PER_PRINCIPAL
from tests.processes import RawRequest, port_of, send_concurrently, wait_until_blocked
from tests.support import ServiceProcess, dump_tables, eventually

pytestmark = pytest.mark.alone

PATIENTS = "/patients/patients/"
UPDATE_BODY = {"patient_last_name": "Roe"}
POOL_SIZE = 4
MAX_BLOCKED_TRANSACTIONS = 3
"""Transactions that one principal may run at once on that many connections."""
FROM_SERVICE_SESSIONS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'patients-api'"

Serve = Callable[..., ServiceProcess]
Writer = asyncio.StreamWriter


async def insert_patients(connection: asyncpg.Connection, count: int) -> None:
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name, patient_town)"
        " SELECT 'pat' || n, 'Doe', repeat('x', 100) FROM generate_series(0, $1 - 1) n",
        count,
    )


async def wait_until_nothing_blocked(connection: asyncpg.Connection, within_seconds: float) -> None:
    """Wait until no session waits for a lock, and fail if one still does after `within_seconds`."""
    async with asyncio.timeout(within_seconds):
        while await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await connection.execute("SELECT pg_sleep(0.02)")


@asynccontextmanager
async def all_patients_locked(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Hold the locks of all patients."""
    async with connection.transaction():
        await connection.execute("SELECT FROM patients FOR UPDATE")
        yield


async def send_request(served: ServiceProcess, request: bytes, *, read_bytes: int = 0) -> Writer:
    """Send a request, read only `read_bytes` of the response, and return the writer of the open connection."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port_of(served.url)))
    reader, writer = await asyncio.open_connection(sock=plain, limit=1024)
    writer.write(request)
    await reader.readexactly(read_bytes)
    return writer


async def disconnect(writers: list[Writer]) -> None:
    """Close the connections, every other one with a reset."""
    for number, writer in enumerate(writers):
        if number % 2:
            writer.transport.abort()
        else:
            writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


def put_request(number: int) -> bytes:
    return RawRequest("PUT", f"{PATIENTS}pat{number}/", UPDATE_BODY, {"X-Request-ID": f"put-{number}"}).to_bytes()


async def test_lock_wait_is_cancelled_on_disconnect(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """A change that waits for a lock is cancelled when its client disconnects, long before the wait would end."""
    await insert_patients(connection, 1)
    before = await dump_tables(connection)
    served = serve(DATABASE_URL=database_url)
    async with all_patients_locked(connection):
        writer = await send_request(served, put_request(0))
        await wait_until_blocked(connection)
        await disconnect([writer])
        await wait_until_nothing_blocked(connection, within_seconds=1.0)
    eventually(lambda: any(line.get("request_id") == "put-0" for line in served.log_entries()))
    (line,) = [line for line in served.log_entries() if line.get("request_id") == "put-0"]
    assert line["event"] == "request"
    assert line["status"] is None
    assert line["complete"] is False
    assert line["duration_ms"] < 1400, "the wait ended by its own timeout"
    assert await dump_tables(connection) == before


async def test_hundred_disconnects_leave_the_pool_whole_and_idle(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """Disconnects during the body, in the queue, at a lock and within a list leave the pool whole and idle."""
    await insert_patients(connection, 10_000)
    before = await dump_tables(connection)
    served = serve(DATABASE_URL=database_url, PATIENTS_POOL_SIZE=str(POOL_SIZE))
    async with all_patients_locked(connection):
        lists = [
            await send_request(served, RawRequest("GET", PATIENTS).to_bytes(), read_bytes=2000)
            for _ in range(MAX_STREAMS_PER_PRINCIPAL)
        ]
        lists += [
            await send_request(served, RawRequest("GET", PATIENTS).to_bytes()) for _ in range(30 - len(lists))
        ]  # these wait to be admitted
        incomplete = [await send_request(served, put_request(number)[:-5]) for number in range(30)]
        waiting = [await send_request(served, put_request(number)) for number in range(100, 140)]
        await wait_until_blocked(connection, MAX_BLOCKED_TRANSACTIONS)
        await disconnect([*lists, *incomplete, *waiting])
        await wait_until_nothing_blocked(connection, within_seconds=1.3)
    eventually(lambda: sum(line.get("route", "/readyz") != "/readyz" for line in served.log_entries()) == 100)
    lines = [line for line in served.log_entries() if line.get("route", "/readyz") != "/readyz"]
    assert [line for line in lines if line["method"] == "PUT" and line["status"] is not None] == []
    assert not any(line["complete"] for line in lines)
    assert [line for line in served.log_entries() if line["level"] == "error"] == []
    assert await dump_tables(connection) == before
    assert await connection.fetchval(f"SELECT count(*) {FROM_SERVICE_SESSIONS}") <= POOL_SIZE
    assert await connection.fetchval(f"SELECT count(*) {FROM_SERVICE_SESSIONS} AND state <> 'idle'") == 0
    async with all_patients_locked(connection):
        calls = [RawRequest("PUT", f"{PATIENTS}pat{number}/", UPDATE_BODY) for number in range(POOL_SIZE)]
        slow = asyncio.ensure_future(send_concurrently(served.url, calls))
        await wait_until_blocked(connection, MAX_BLOCKED_TRANSACTIONS)
    assert [response.status for response in await slow] == [200] * POOL_SIZE
