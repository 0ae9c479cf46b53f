"""Stopping: `/readyz` reports 503 while the service drains, and a second signal ends the drain."""

import asyncio
import signal
import socket
import time
from collections.abc import Callable

import asyncpg
import pytest

from tests.processes import RawRequest, port_of, send_concurrently
from tests.support import ServiceProcess, eventually

PATIENTS = "/patients/patients/"
LONG_DRAIN_SECONDS = "60"
"""A drain that is too long for any test to wait for."""
LAST_CHUNK = b"\r\n0\r\n\r\n"
"""The end of a chunked response."""

Serve = Callable[..., ServiceProcess]
EACH_WORKER_COUNT = pytest.mark.parametrize("workers", ["1", "2"])


async def await_not_ready(served: ServiceProcess) -> None:
    """Wait until all workers report that they are stopping; the kernel spreads the connections over them."""
    async with asyncio.timeout(10):
        while {
            response.status for response in await send_concurrently(served.url, [RawRequest("GET", "/readyz")] * 16)
        } != {503}:
            pass


@EACH_WORKER_COUNT
async def test_drain_fails_readyz_with_503_and_serves_everything_else(
    serve: Serve, database_url: str, workers: str
) -> None:
    """After SIGTERM `/readyz` returns 503 and everything else is served until the drain ends with exit status 0."""
    served = serve("--workers", workers, DATABASE_URL=database_url, PATIENTS_DRAIN_SECONDS="3")
    began = time.monotonic()
    served.process.terminate()
    await await_not_ready(served)
    (ready,) = await send_concurrently(served.url, [RawRequest("GET", "/readyz")])
    assert (ready.status, ready.headers["content-type"]) == (503, "application/problem+json")
    assert int(ready.headers["retry-after"]) >= 1
    live, read, created = await send_concurrently(
        served.url,
        [
            RawRequest("GET", "/livez"),
            RawRequest("GET", PATIENTS),
            RawRequest("POST", PATIENTS, {"patient_last_name": "Doe"}),
        ],
    )
    assert (live.status, read.status, created.status) == (204, 200, 201)
    assert await asyncio.to_thread(served.process.wait, 10) == 0
    assert time.monotonic() - began > 3


@EACH_WORKER_COUNT
async def test_second_signal_ends_the_drain(serve: Serve, database_url: str, workers: str) -> None:
    """A second SIGTERM ends the drain at once."""
    served = serve("--workers", workers, DATABASE_URL=database_url, PATIENTS_DRAIN_SECONDS=LONG_DRAIN_SECONDS)
    served.process.terminate()
    await await_not_ready(served)
    assert served.process.poll() is None
    served.process.terminate()
    assert await asyncio.to_thread(served.process.wait, 8) == 0


def test_interrupt_does_not_drain(serve: Serve, database_url: str) -> None:
    """Ctrl-C stops the service without a drain, because a person is waiting for it."""
    served = serve(DATABASE_URL=database_url, PATIENTS_DRAIN_SECONDS=LONG_DRAIN_SECONDS)
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(8) == 0


@pytest.mark.parametrize("hurried", [False, True], ids=["in-time", "hurried"])
async def test_a_list_in_progress_is_completed_unless_hurried(
    serve: Serve, database_url: str, connection: asyncpg.Connection, *, hurried: bool
) -> None:
    """A list that is being sent when the drain ends is completed, unless further signals cut it off."""
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name)"
        " SELECT 'pat' || n, repeat('x', 100) FROM generate_series(1, 20_000) n"
    )
    served = serve(DATABASE_URL=database_url, PATIENTS_DRAIN_SECONDS="0")
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        reader.settimeout(10)
        reader.connect(("127.0.0.1", port_of(served.url)))
        reader.sendall(RawRequest("GET", PATIENTS).to_bytes())
        received = reader.recv(2000)
        served.process.terminate()
        eventually(lambda: not accepts_connections(served))
        assert served.process.poll() is None, "the service does not wait for the reader"
        if hurried:
            served.process.send_signal(signal.SIGINT)
            served.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(served.process.wait, 8) == 0
        received += read_rest(reader)
    if hurried:
        assert not received.endswith(LAST_CHUNK), "the response must be recognizable as cut off"
    else:
        assert received.endswith(LAST_CHUNK)
        assert received.count(b'"unique_id":"pat') == 20_000
        assert await asyncio.to_thread(served.process.wait, 10) == 0


def accepts_connections(served: ServiceProcess) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port_of(served.url)), timeout=1):
            return True
    except OSError:
        return False


def read_rest(reader: socket.socket) -> bytes:
    """Read everything that is still sent."""
    received = b""
    try:
        while part := reader.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received
