"""What is measured beside each other: a *side* is a server with its settings.

Another one is a few lines in `SIDES`; the service itself under other settings is `service(name, VARIABLE="value")`.
"""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket

WORKERS = 2
START_SECONDS = 60
STOP_SECONDS = 30
PYTHON = sys.executable

Headers = Callable[[str], Mapping[str, str]]
"""Makes the headers that every request carries, in the database of a URL."""


class SideError(Exception):
    """A side does not start, or does not answer as it should; the message tells a person what is wrong."""


@dataclass(frozen=True)
class Side:
    """A server to measure."""

    name: str
    command: Sequence[str]
    """`{port}` stands for the port on which it is to listen."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside DATABASE_URL."""
    headers: Headers = lambda _: {}
    hospitals: Sequence[str] | None = None
    """Only patients of these are asked for, where it shows no others; its lists then differ from the other sides'."""


@dataclass(frozen=True)
class Running:
    """A side that serves."""

    side: Side
    port: int
    process: subprocess.Popen[bytes]
    headers: Mapping[str, str]

    @property
    def pid(self) -> int:
        """The process from which all others of the side descend."""
        return self.process.pid


def service(
    name: str,
    *,
    headers: Headers = lambda _: {},
    hospitals: Sequence[str] | None = None,
    workers: int = WORKERS,
    **environment: str,
) -> Side:
    """The service under settings of its own; with authentication only where they say so."""
    command = (PYTHON, "-m", "app.cli", "serve", "--port", "{port}", "--workers", str(workers))
    return Side(name, command, {"PATIENTS_AUTH": "off", **environment}, headers, hospitals)


def other_version(directory: Path) -> Side:
    """The service as another clone of it has it, in this environment."""
    here = service("against")
    return Side(here.name, ("env", "--chdir", str(directory), *here.command), here.environment)


def api_key(*options: str) -> Headers:
    """The header of a key that `patients-api keys create` makes with these options."""

    def make(database_url: str) -> Mapping[str, str]:
        name = f"benchmark-{time.monotonic_ns()}"
        command = (PYTHON, "-m", "app.cli", "keys", "create", "--name", name, *options)
        made = subprocess.run(command, env=_environment(database_url), check=False, capture_output=True, text=True)
        if made.returncode != 0:
            raise SideError(made.stderr)
        return {"X-API-Key": made.stdout.strip()}

    return make


def _asked(name: str, hospitals: Sequence[str] | None, *, audited: str) -> Side:
    """The service where it is known who asks, by a key that may be limited to hospitals, and looks may be on record."""
    limits = [f"--hospital={hospital}" for hospital in hospitals or ()]
    return service(
        name,
        headers=api_key("--scope", "admin", *limits),
        hospitals=hospitals,
        PATIENTS_AUTH="required",
        PATIENTS_RATE_LIMIT="off",
        PATIENTS_AUDIT_READS=audited,
    )


_DJANGO = (
    *(PYTHON, "-m", "gunicorn", "benchmarks.peers.drf.wsgi", "--bind", "127.0.0.1:{port}"),
    # threads, not the default worker: that one closes the connection after every answer
    *("--workers", str(WORKERS), "--threads", "4"),
)
_POOLED = (PYTHON, "-m", "benchmarks.pgbouncer", "--port", "{port}", "--workers", str(WORKERS))
_LIMIT = (PYTHON, "-m", "benchmarks.peers.limit", "--port", "{port}", "--workers", str(WORKERS))

SIDES = {
    side.name: side
    for side in (
        service("service"),
        _asked("key", None, audited="false"),
        _asked("audited", None, audited="true"),
        _asked("limited", ["hos001"], audited="false"),
        _asked("limited to ten", [f"hos{n:03}" for n in range(1, 11)], audited="false"),
        _asked("limited, audited", ["hos001"], audited="true"),
        Side("pgbouncer", _POOLED, {"PATIENTS_AUTH": "off"}),
        Side("django", _DJANGO),
        Side("limit", _LIMIT),
    )
}


def _environment(database_url: str) -> dict[str, str]:
    """This process's own, without what would set the service otherwise."""
    kept = {
        name: value for name, value in os.environ.items() if not name.upper().startswith(("PATIENTS_", "DATABASE_URL"))
    }
    return {**kept, "DATABASE_URL": database_url}


@contextmanager
def running(sides: Sequence[Side], database_url: str, logs: Path) -> Iterator[list[Running]]:
    """Start all sides at once, and stop them at the end.

    Raises:
        SideError: one does not come to serving.
    """
    with ExitStack() as stack:
        started = []
        for number, side in enumerate(sides):
            log = logs / f"{number}.log"
            started.append((stack.enter_context(_started(side, database_url, log)), log))
        for run, log in started:
            _await(run, log)
        yield [run for run, _ in started]


@contextmanager
def _started(side: Side, database_url: str, log: Path) -> Iterator[Running]:
    port = _free_port()
    headers = side.headers(database_url)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [word.format(port=port) for word in side.command],
            env={**_environment(database_url), **side.environment},
            stdout=output,  # written down, as operators do
            stderr=subprocess.STDOUT,
        )
    try:
        yield Running(side, port, process, headers)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(run: Running, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and run.process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", run.port, timeout=START_SECONDS)
        with closing(connection), suppress(OSError):
            connection.request("GET", "/patients/patients/?limit=1", headers=dict(run.headers))
            if connection.getresponse().status == http.client.OK:
                return
        time.sleep(0.1)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
    raise SideError(f"{run.side.name} does not serve. Its last lines:\n{tail}")
