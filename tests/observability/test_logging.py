"""Log lines on a terminal."""

import os
import pty
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import asyncpg
import httpx
import pytest

from tests.conftest import free_port
from tests.fork_server import start_command
from tests.processes import wait_until_ready

ANSI_COLOR_PATTERN = re.compile(r"\x1b\[[0-9;]*m")


@contextmanager
def serve_on_a_terminal(database_url: str, **environment: str) -> Iterator[tuple[str, list[bytes]]]:
    """Run a service with a terminal as its stdout, and yield its URL and its output."""
    port = free_port()
    ours, its = pty.openpty()
    written: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # the other end is closed
            while data := os.read(ours, 65536):
                written.append(data)

    with start_command(
        "serve",
        "--port",
        str(port),
        env={"DATABASE_URL": database_url, "PATIENTS_DRAIN_SECONDS": "0", **environment},
        stdout=its,
    ) as process:
        os.close(its)
        reader = threading.Thread(target=read)
        reader.start()
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}", written
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            reader.join(10)
            os.close(ours)


@pytest.mark.parametrize("no_color", ["", "1"])
def test_terminal_lines_are_readable_and_colored(database_url: str, no_color: str) -> None:
    """Terminal lines are readable, one per request, colored unless NO_COLOR is set, and without tracebacks."""
    with serve_on_a_terminal(database_url, NO_COLOR=no_color) as (url, written):
        httpx.get(f"{url}/patients/patients/M4rker/", headers={"X-Request-ID": "seen"})
        httpx.get(f"{url}/patients/patients/", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    text = b"".join(written).decode()
    assert bool(ANSI_COLOR_PATTERN.search(text)) == (not no_color)
    lines = [line for line in ANSI_COLOR_PATTERN.sub("", text).splitlines() if "request_id=seen" in line]
    assert len(lines) == 1
    assert re.match(r"\S+Z \[info +\] request ", lines[0])
    for pair in ("method=GET", "route=/patients/patients/{unique_id}/", "status=404", "complete=True", "duration_ms="):
        assert pair in lines[0]
    assert "M4rker" not in text
    assert "Traceback" not in text


async def test_an_error_on_a_terminal_has_no_traceback(database_url: str, connection: asyncpg.Connection) -> None:
    """An unexpected error has no traceback on a terminal either, because its text may contain a patient's data."""
    with serve_on_a_terminal(database_url, NO_COLOR="1") as (url, written):
        await connection.execute("DROP TABLE doctors CASCADE")
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/doctors/doctors/M4rker/")).status_code == 500
    text = b"".join(written).decode()
    assert re.search(r"\[error +\] unexpected error", text)
    assert "UndefinedTableError" in text
    for internal in ("Traceback", "M4rker", 'File "'):
        assert internal not in text
