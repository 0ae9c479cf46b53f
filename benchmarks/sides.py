"""The sides of a comparison: a *side* is a server with its settings.

Another one is a few lines in `SIDES`; the service with other settings is `service_side(name, VARIABLE="value")`.
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

WORKER_COUNT = 2
START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 30
PYTHON_EXECUTABLE = sys.executable

HeadersFactory = Callable[[str], Mapping[str, str]]
"""Returns the headers that every request carries, given the URL of the database."""


class SideError(Exception):
    """A side does not start or does not respond as expected; the message explains the problem to the user."""


@dataclass(frozen=True)
class Side:
    """A server to measure."""

    name: str
    command: Sequence[str]
    """The command, in which `{port}` stands for the port to listen on."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Additional variables besides DATABASE_URL."""
    make_headers: HeadersFactory = lambda _: {}
    hospitals: Sequence[str] | None = None
    """If set, the side shows only patients of these hospitals, and only they are requested, so its lists differ."""
    has_pages_by_id: bool = False
    """Whether a page is requested by the id after which it begins, instead of a cursor."""


@dataclass(frozen=True)
class SideServer:
    """A running side."""

    side: Side
    port: int
    process: subprocess.Popen[bytes]
    headers: Mapping[str, str]

    @property
    def pid(self) -> int:
        """The root of the side's process tree."""
        return self.process.pid


def service_side(
    name: str,
    *,
    make_headers: HeadersFactory = lambda _: {},
    hospitals: Sequence[str] | None = None,
    workers: int = WORKER_COUNT,
    **environment: str,
) -> Side:
    """Return a side for the service with these settings; authentication is off unless they turn it on."""
    command = (PYTHON_EXECUTABLE, "-m", "app.cli", "serve", "--port", "{port}", "--workers", str(workers))
    return Side(name, command, {"PATIENTS_AUTH": "off", **environment}, make_headers, hospitals)


def other_version_side(directory: Path) -> Side:
    """Return a side for the service of another clone, in this environment."""
    this_version = service_side("against")
    return Side(this_version.name, ("env", "--chdir", str(directory), *this_version.command), this_version.environment)


def api_key_headers(*options: str) -> HeadersFactory:
    """Return a function that creates a key with these options of `patients-api keys create` and returns its header."""

    def make(database_url: str) -> Mapping[str, str]:
        name = f"benchmark-{time.monotonic_ns()}"
        command = (PYTHON_EXECUTABLE, "-m", "app.cli", "keys", "create", "--name", name, *options)
        result = subprocess.run(
            command, env=_clean_environment(database_url), check=False, capture_output=True, text=True
        )
        if result.returncode != 0:
            raise SideError(result.stderr)
        return {"X-API-Key": result.stdout.strip()}

    return make


def _authenticated_side(name: str, hospitals: Sequence[str] | None, *, audit_reads: str) -> Side:
    """Return a side for the service with authentication by a key, optionally restricted or with read auditing."""
    hospital_options = [f"--hospital={hospital}" for hospital in hospitals or ()]
    return service_side(
        name,
        make_headers=api_key_headers("--scope", "admin", *hospital_options),
        hospitals=hospitals,
        PATIENTS_AUTH="required",
        PATIENTS_RATE_LIMIT="off",
        PATIENTS_AUDIT_READS=audit_reads,
    )


_DJANGO_COMMAND = (
    *(PYTHON_EXECUTABLE, "-m", "gunicorn", "benchmarks.peers.drf.wsgi", "--bind", "127.0.0.1:{port}"),
    # threads, because the default worker closes the connection after every response
    *("--workers", str(WORKER_COUNT), "--threads", "4"),
)
_PGBOUNCER_COMMAND = (
    PYTHON_EXECUTABLE,
    "-m",
    "benchmarks.pgbouncer",
    "--port",
    "{port}",
    "--workers",
    str(WORKER_COUNT),
)
_LIMIT_COMMAND = (PYTHON_EXECUTABLE, "-m", "benchmarks.peers.limit", "--port", "{port}", "--workers", str(WORKER_COUNT))

SIDES = {
    side.name: side
    for side in (
        service_side("service"),
        _authenticated_side("key", None, audit_reads="false"),
        _authenticated_side("audited", None, audit_reads="true"),
        _authenticated_side("limited", ["hos001"], audit_reads="false"),
        _authenticated_side("limited to ten", [f"hos{n:03}" for n in range(1, 11)], audit_reads="false"),
        _authenticated_side("limited, audited", ["hos001"], audit_reads="true"),
        Side("pgbouncer", _PGBOUNCER_COMMAND, {"PATIENTS_AUTH": "off"}),
        Side("django", _DJANGO_COMMAND, has_pages_by_id=True),
        Side("limit", _LIMIT_COMMAND, has_pages_by_id=True),
    )
}


def _clean_environment(database_url: str) -> dict[str, str]:
    """Return this process's environment without settings of the service."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.upper().startswith(("PATIENTS_", "DATABASE_URL"))
    }
    return {**inherited, "DATABASE_URL": database_url}


@contextmanager
def running_sides(sides: Sequence[Side], database_url: str, logs: Path) -> Iterator[list[SideServer]]:
    """Start all sides at once, and stop them at the end.

    Raises:
        SideError: a side does not start to serve.
    """
    with ExitStack() as stack:
        started = []
        for number, side in enumerate(sides):
            log_path = logs / f"{number}.log"
            started.append((stack.enter_context(_running_side(side, database_url, log_path)), log_path))
        for server, log_path in started:
            _wait_until_serving(server, log_path)
        yield [run for run, _ in started]


@contextmanager
def _running_side(side: Side, database_url: str, log_path: Path) -> Iterator[SideServer]:
    port = _free_port()
    headers = side.make_headers(database_url)
    with log_path.open("wb") as output:
        process = subprocess.Popen(
            [word.format(port=port) for word in side.command],
            env={**_clean_environment(database_url), **side.environment},
            stdout=output,  # logged to a file, as operators do
            stderr=subprocess.STDOUT,
        )
    try:
        yield SideServer(side, port, process, headers)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_serving(server: SideServer, log_path: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=START_TIMEOUT_SECONDS)
        with closing(connection), suppress(OSError):
            connection.request("GET", "/patients/patients/?limit=1", headers=dict(server.headers))
            if connection.getresponse().status == http.client.OK:
                return
        time.sleep(0.1)
    tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-10:])
    raise SideError(f"{server.side.name} does not start to serve. The end of its log:\n{tail}")
