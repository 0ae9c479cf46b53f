"""Log lines on a terminal."""

import importlib.metadata
import os
import pty
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from fastapi.routing import iter_route_contexts

from app.identifiers import new_identifier
from app.main import create_app
from app.observability.logging import TerminalRenderer
from app.settings import Settings
from tests.fork_server import start_command
from tests.processes import free_port, wait_until_ready

TERMINAL_WIDTH = 80
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


@pytest.mark.parametrize(("no_color", "term"), [("", "xterm"), ("1", "xterm"), ("", "dumb")])
def test_terminal_lines_are_readable_and_colored(
    database_url: str, no_color: str, term: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The start is a few short lines; a request is one, in the color of its status if the terminal has colors."""
    with serve_on_a_terminal(database_url, NO_COLOR=no_color, TERM=term) as (url, written):
        httpx.get(f"{url}/patients/patients/M4rker/", headers={"X-Request-ID": "seen"})
        httpx.get(f"{url}/patients/patients/?limit=1", headers={"X-Request-ID": "seen-too"})
        httpx.get(f"{url}/patients/patients/", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    text = b"".join(written).decode()
    assert bool(ANSI_COLOR_PATTERN.search(text)) == (term != "dumb" and not no_color)
    if ANSI_COLOR_PATTERN.search(text):
        assert "\x1b[33mGET /patients/patients/*/ 404 " in text
        assert "\x1b[32mGET /patients/patients/ 200 " in text
    lines = ANSI_COLOR_PATTERN.sub("", text).splitlines()
    assert len([line for line in lines if re.fullmatch(r"GET /patients/patients/\*/ 404 \d+ ms seen", line)]) == 1
    assert len([line for line in lines if re.fullmatch(r"GET /patients/patients/ 200 \d+ ms seen-too", line)]) == 1
    assert "M4rker" not in text
    assert "Traceback" not in text
    start, *details = capfd.readouterr().err.splitlines()[:5]
    assert start == f"Patients API {importlib.metadata.version('patients-api')}: {url}/docs (press Ctrl-C to stop)"
    assert [line[:18].strip() for line in details] == ["database", "authentication", "reads", "demo data"]
    assert urlsplit(database_url).path[1:] in details[0]
    assert details[1][18:] == "off (PATIENTS_AUTH=required turns it on)"
    assert max(map(len, details[1:])) <= TERMINAL_WIDTH


def test_each_request_fits_on_a_line_of_the_terminal() -> None:
    """A request for any route that takes less than ten seconds fits 80 columns, with an id that the service chose."""
    render = TerminalRenderer(has_colors=False)
    event = {"event": "request", "complete": True, "status": 200, "duration_ms": 9999.0}
    app = create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"}))
    lines = [
        render(None, "info", event | {"method": method, "route": str(route.path), "request_id": new_identifier("req")})
        for route in iter_route_contexts(app.routes)
        for method in route.methods or ()
    ]
    assert len(lines) > 30
    assert [line for line in lines if len(line) > TERMINAL_WIDTH] == []


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
