"""What a client can do to others by its connections alone: keep them, fill them, drop them, open all there can be."""

import asyncio
import resource
import socket
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import httpx

from app.http.protocol import MAX_HEAD_SIZE_BYTES, RESERVED_DESCRIPTORS
from tests.hostile.support import connected, everything, send, statuses
from tests.http.test_hangups import await_nobody_blocked, insert_patients, locked, put
from tests.processes import await_blocked
from tests.support import Served, eventually

Serve = Callable[..., Served]

PATIENTS = "/patients/patients/"
LIST = b"GET /patients/patients/ HTTP/1.1\r\nHost: patients.test\r\n\r\n"
HEAD = b"POST /patients/patients/ HTTP/1.1\r\nHost: patients.test\r\nContent-Type: application/json\r\n"
MEGABYTE = 1024 * 1024
TIMEOUT = 0.5
IN_TIME = 2 * TIMEOUT + 4
"""Seconds; the last ones are a busy machine's."""

BEGINNINGS = {
    "nothing": (b"", b""),
    "blank lines": (b"", b"\r\n"),
    "half a head": (b"GET /livez HTTP/1.1\r\nHost: pat", b""),
    "head by the byte": (b"GET /livez HTTP/1.1\r\nHost: patients.test\r\nX-A: ", b"a"),
    "half a body": (HEAD + b"Content-Length: 1000\r\n\r\n{", b""),
    "body by the byte": (HEAD + b"Content-Length: 1000000\r\n\r\n{", b" "),
    "chunk extension by the byte": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a"),
    "trailer by the byte": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX-A: ", b"a"),
    "body after an upgrade": (HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1000000\r\n\r\n{", b" "),
}
"""What is sent first, and what is sent again and again."""


async def test_a_client_that_sends_no_request_is_not_waited_for(serve: Serve, database_url: str) -> None:
    """Whatever part of a request it sends, and however steadily, its connection ends; the log has no error."""
    served = serve(DATABASE_URL=database_url, PATIENTS_CLIENT_TIMEOUT_SECONDS=str(TIMEOUT))

    async def ended(first: bytes, again: bytes) -> None:
        async with connected(served.url) as plain, asyncio.timeout(IN_TIME):
            await send(plain, first)
            waiting = asyncio.ensure_future(everything(plain))
            while not (await asyncio.wait([waiting], timeout=0.05))[0]:
                await send(plain, again)
            assert statuses(await waiting) == []

    async with asyncio.TaskGroup() as group:
        for first, again in BEGINNINGS.values():
            group.create_task(ended(first, again))
    assert [line for line in served.log() if line["level"] == "error"] == []


async def test_what_is_no_body_has_a_size(serve: Serve, database_url: str) -> None:
    """A path, a header, a chunk's extension or a trailer without an end is refused after some reads."""
    served = serve(DATABASE_URL=database_url)
    unending = [BEGINNINGS[f"{name} by the byte"][0] for name in ("head", "chunk extension", "trailer")]
    for begun in (b"GET /", *unending):
        async with connected(served.url) as plain:
            await send(plain, begun, *[b"a" * 1024] * (MAX_HEAD_SIZE_BYTES // 1024 + 1))
            assert statuses(await everything(plain)) == [431], begun


async def test_a_client_that_reads_nothing_is_not_waited_for(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """Its list ends, and what was held for it is free; one that reads slowly gets all of it."""
    await insert_patients(connection, 12_000)
    served = serve(DATABASE_URL=database_url, PATIENTS_CLIENT_TIMEOUT_SECONDS="1")
    async with AsyncExitStack() as stack:
        for _ in range(10):
            reader = await stack.enter_async_context(connected(served.url, receive_buffer=4096))
            await send(reader, LIST)
        slow = await stack.enter_async_context(connected(served.url, receive_buffer=65_536))
        await send(slow, LIST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        received = b""
        while len(received) < 2.5 * MEGABYTE:  # for more than two looks at it
            received += await asyncio.get_running_loop().sock_recv(slow, 65_536)
            await connection.execute("SELECT pg_sleep(0.1)")
        eventually(lambda: len([line for line in served.log() if line.get("route") == PATIENTS]) == 10)
        lines = [line for line in served.log() if line.get("route") == PATIENTS]
        assert {line["complete"] for line in lines} == {False}
        received += await everything(slow)
    assert received.endswith(b"\r\n0\r\n\r\n")
    assert received.count(b'"unique_id":"pat') == 12_000
    assert [line for line in served.log() if line["level"] == "error"] == []


async def test_a_client_that_hangs_up_is_no_error(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """One that has sent several requests at once, too: the work for it stops, and its lines say `complete: false`."""
    await insert_patients(connection, 2)
    served = serve(DATABASE_URL=database_url)
    async with locked(connection):
        async with connected(served.url) as plain:
            await send(plain, put(0).replace(b"Connection: close\r\n", b"") + put(1))
            await await_blocked(connection)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # as a reset
        await await_nobody_blocked(connection, within=1.0)
    for number in range(20):
        async with connected(served.url) as plain:
            once = put(0).replace(b"put-0", b"half-%d" % number).replace(b"Connection: close\r\n", b"")
            await asyncio.get_running_loop().sock_sendall(plain, once)
            plain.shutdown(socket.SHUT_WR)
            assert await everything(plain) == b""
    eventually(lambda: sum(str(line.get("request_id")).startswith("half-") for line in served.log()) == 20)
    lines = [line for line in served.log() if line.get("request_id", "req").startswith(("put-", "half-"))]
    assert [(line["event"], line["complete"]) for line in lines] == [("request", False)] * 21
    assert [line for line in served.log() if line["level"] == "error"] == []


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def test_connections_leave_descriptors_to_the_rest(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """A process at its limit says so once, serves those that are connected, database and all, and recovers."""
    await insert_patients(connection, 1)
    served = serve(DATABASE_URL=database_url)
    pid = served.process.pid
    limit = descriptors(pid) + RESERVED_DESCRIPTORS + 10
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))

    def refusals() -> list[str]:
        return [line["event"] for line in served.log() if "descriptors" in line["event"]]

    async with httpx.AsyncClient(base_url=served.url) as early:
        assert (await early.get(f"{PATIENTS}pat0/")).status_code == 200
        async with AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(connected(served.url)) for _ in range(100)]
            eventually(lambda: len(refusals()) == 1)
            assert await everything(crowd[-1]) == b""
            assert (await early.get(f"{PATIENTS}pat0/")).status_code == 200
            assert descriptors(pid) < limit - RESERVED_DESCRIPTORS + 10
        assert len(refusals()) == 1

        def served_again() -> bool:
            try:
                return httpx.get(f"{served.url}{PATIENTS}pat0/").status_code == 200
            except httpx.TransportError:
                return False

        eventually(served_again)
