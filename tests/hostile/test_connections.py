"""What a client can do to others with connections alone: hold, fill, drop, or exhaust them."""

import asyncio
import resource
import socket
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import httpx

from app.server.protocol import MAX_HEAD_SIZE_BYTES, RESERVED_FILE_DESCRIPTORS
from tests.hostile.support import connected, read_to_end, send, statuses
from tests.http.test_disconnects import all_patients_locked, insert_patients, put_request, wait_until_nothing_blocked
from tests.processes import wait_until_blocked
from tests.support import ServiceProcess, eventually

Serve = Callable[..., ServiceProcess]

PATIENTS = "/patients/patients/"
LIST_REQUEST = b"GET /patients/patients/ HTTP/1.1\r\nHost: patients.test\r\n\r\n"
POST_HEAD = b"POST /patients/patients/ HTTP/1.1\r\nHost: patients.test\r\nContent-Type: application/json\r\n"
MEGABYTE = 1024 * 1024
CLIENT_TIMEOUT_SECONDS = 0.5
MAX_WAIT_SECONDS = 2 * CLIENT_TIMEOUT_SECONDS + 4
"""Seconds, including some for a busy machine."""

UNFINISHED_REQUESTS = {
    "nothing": (b"", b""),
    "blank lines": (b"", b"\r\n"),
    "half a head": (b"GET /livez HTTP/1.1\r\nHost: pat", b""),
    "head by the byte": (b"GET /livez HTTP/1.1\r\nHost: patients.test\r\nX-A: ", b"a"),
    "half a body": (POST_HEAD + b"Content-Length: 1000\r\n\r\n{", b""),
    "body by the byte": (POST_HEAD + b"Content-Length: 1000000\r\n\r\n{", b" "),
    "chunk extension by the byte": (POST_HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a"),
    "trailer by the byte": (POST_HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX-A: ", b"a"),
    "body after an upgrade": (
        POST_HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1000000\r\n\r\n{",
        b" ",
    ),
}
"""The bytes that are sent first, and those that are sent repeatedly."""


async def test_clients_that_send_no_complete_request_are_disconnected(serve: Serve, database_url: str) -> None:
    """A client that sends only part of a request, however steadily, is disconnected without an error in the log."""
    served = serve(DATABASE_URL=database_url, PATIENTS_CLIENT_TIMEOUT_SECONDS=str(CLIENT_TIMEOUT_SECONDS))

    async def ended(first: bytes, again: bytes) -> None:
        async with connected(served.url) as plain, asyncio.timeout(MAX_WAIT_SECONDS):
            await send(plain, first)
            waiting = asyncio.ensure_future(read_to_end(plain))
            while not (await asyncio.wait([waiting], timeout=0.05))[0]:
                await send(plain, again)
            assert statuses(await waiting) == []

    async with asyncio.TaskGroup() as group:
        for first, again in UNFINISHED_REQUESTS.values():
            group.create_task(ended(first, again))
    assert [line for line in served.log_entries() if line["level"] == "error"] == []


async def test_a_large_body_may_take_longer_than_the_client_timeout(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """The body of an import may arrive for as long as each client timeout brings another part of it."""
    served = serve(DATABASE_URL=database_url, PATIENTS_CLIENT_TIMEOUT_SECONDS=str(CLIENT_TIMEOUT_SECONDS))
    part = (b'{"patient_last_name": "Doe"}' + b" " * 16_000 + b"\n") * 65
    part_count = 14
    head = POST_HEAD.replace(b"/ HTTP", b"/import/?dry_run=true HTTP").replace(b"json", b"x-ndjson")
    async with connected(served.url) as plain:
        await send(plain, head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (part_count * len(part)))
        for _ in range(part_count):  # for more than four client timeouts
            await send(plain, part)
            await connection.execute("SELECT pg_sleep(0.15)")
        response = await read_to_end(plain)
    assert statuses(response) == [200]
    assert response.count(b'"created"') == 65 * part_count


async def test_heads_and_trailers_have_a_size_limit(serve: Serve, database_url: str) -> None:
    """An endless path, header, chunk extension or trailer is refused once it exceeds the limit."""
    served = serve(DATABASE_URL=database_url)
    unending = [UNFINISHED_REQUESTS[f"{name} by the byte"][0] for name in ("head", "chunk extension", "trailer")]
    for begun in (b"GET /", *unending):
        async with connected(served.url) as plain:
            await send(plain, begun, *[b"a" * 1024] * (MAX_HEAD_SIZE_BYTES // 1024 + 1))
            assert statuses(await read_to_end(plain)) == [431], begun


async def test_clients_that_read_nothing_are_disconnected(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """The list of a client that reads nothing ends and frees its resources, and a slow reader gets the whole list."""
    await insert_patients(connection, 12_000)
    served = serve(DATABASE_URL=database_url, PATIENTS_CLIENT_TIMEOUT_SECONDS="1")
    async with AsyncExitStack() as stack:
        for _ in range(10):
            reader = await stack.enter_async_context(connected(served.url, receive_buffer=4096))
            await send(reader, LIST_REQUEST)
        slow = await stack.enter_async_context(connected(served.url, receive_buffer=65_536))
        await send(slow, LIST_REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        received = b""
        while len(received) < 2.5 * MEGABYTE:  # for more than two progress checks
            received += await asyncio.get_running_loop().sock_recv(slow, 65_536)
            await connection.execute("SELECT pg_sleep(0.1)")
        eventually(lambda: len([line for line in served.log_entries() if line.get("route") == PATIENTS]) == 10)
        lines = [line for line in served.log_entries() if line.get("route") == PATIENTS]
        assert {line["complete"] for line in lines} == {False}
        received += await read_to_end(slow)
    assert received.endswith(b"\r\n0\r\n\r\n")
    assert received.count(b'"unique_id":"pat') == 12_000
    assert [line for line in served.log_entries() if line["level"] == "error"] == []


async def test_a_client_disconnect_is_no_error(serve: Serve, database_url: str, connection: asyncpg.Connection) -> None:
    """A disconnect stops the work for all pipelined requests, which are logged with `complete: false` and no error."""
    await insert_patients(connection, 2)
    served = serve(DATABASE_URL=database_url)
    async with all_patients_locked(connection):
        async with connected(served.url) as plain:
            await send(plain, put_request(0).replace(b"Connection: close\r\n", b"") + put_request(1))
            await wait_until_blocked(connection)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # makes the close a reset
        await wait_until_nothing_blocked(connection, within_seconds=1.0)
    for number in range(20):
        async with connected(served.url) as plain:
            once = put_request(0).replace(b"put-0", b"half-%d" % number).replace(b"Connection: close\r\n", b"")
            await asyncio.get_running_loop().sock_sendall(plain, once)
            plain.shutdown(socket.SHUT_WR)
            assert await read_to_end(plain) == b""
    eventually(lambda: sum(str(line.get("request_id")).startswith("half-") for line in served.log_entries()) == 20)
    lines = [line for line in served.log_entries() if line.get("request_id", "req").startswith(("put-", "half-"))]
    assert [(line["event"], line["complete"]) for line in lines] == [("request", False)] * 21
    assert [line for line in served.log_entries() if line["level"] == "error"] == []


def open_descriptor_count(pid: int) -> int:
    """Return the number of open file descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def test_descriptors_are_reserved_when_connections_reach_the_limit(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """A process at its descriptor limit logs this once, keeps serving connected clients, and recovers."""
    await insert_patients(connection, 1)
    served = serve(DATABASE_URL=database_url)
    pid = served.process.pid
    limit = open_descriptor_count(pid) + RESERVED_FILE_DESCRIPTORS + 10
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))

    def refusals() -> list[str]:
        return [line["event"] for line in served.log_entries() if "descriptors" in line["event"]]

    async with httpx.AsyncClient(base_url=served.url) as early:
        assert (await early.get(f"{PATIENTS}pat0/")).status_code == 200
        async with AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(connected(served.url)) for _ in range(100)]
            eventually(lambda: len(refusals()) == 1)
            assert await read_to_end(crowd[-1]) == b""
            assert (await early.get(f"{PATIENTS}pat0/")).status_code == 200
            assert open_descriptor_count(pid) < limit - RESERVED_FILE_DESCRIPTORS + 10
        assert len(refusals()) == 1

        def served_again() -> bool:
            try:
                return httpx.get(f"{served.url}{PATIENTS}pat0/").status_code == 200
            except httpx.TransportError:
                return False

        eventually(served_again)
