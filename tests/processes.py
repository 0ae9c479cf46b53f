"""Real processes and real connections: running commands, reading their state from the system, concurrent requests."""

import asyncio
import itertools
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg
import httpx

from tests.fork_server import start_command
from tests.support import eventually

CLI_COMMAND = (sys.executable, "-m", "app.cli")

RAM_DISK_PATH = Path("/dev/shm")  # noqa: S108  # Linux mounts a file system in memory there
MIN_RAM_DISK_BYTES = 4 << 30
"""Free space that a directory in memory must have: the data and WAL of some servers at once."""


def run_cli(*arguments: str, stdin_text: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `patients-api` until it exits, with `stdin_text` as its standard input."""
    stdin = None if stdin_text is None else subprocess.PIPE
    pipe = subprocess.PIPE
    with start_command(*arguments, env=environment, stdin=stdin, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            out, err = process.communicate(stdin_text, timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@contextmanager
def running_cli(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `patients-api` in the background without its output, and kill it at the end if it is still running."""
    devnull = subprocess.DEVNULL
    with start_command(*arguments, env=environment, stdout=devnull, stderr=devnull) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    """Wait until a started service responds that it is ready."""

    def is_ready() -> bool:
        assert process.poll() is None, f"the service exited with {process.returncode}"
        try:
            return httpx.get(f"{url}/readyz").status_code == 204
        except httpx.TransportError:
            return False

    eventually(is_ready, within_seconds=90)  # starting processes takes long on a busy machine


def _ram_disk() -> Path | None:
    """Return a directory in memory with enough space for the databases of all workers, or None if there is none."""
    with suppress(OSError):
        if shutil.disk_usage(RAM_DISK_PATH).free >= MIN_RAM_DISK_BYTES:
            return RAM_DISK_PATH
    return None


@contextmanager
def data_directory() -> Iterator[Path]:
    """Yield a directory for an embedded server, in memory if possible.

    On a disk, creating and dropping a database for each test takes half of the suite's time. It is not pytest's own
    directory, which only its owner may enter: for root, the server runs as another user.
    """
    with tempfile.TemporaryDirectory(dir=_ram_disk()) as name:
        path = Path(name).resolve()
        path.chmod(0o755)
        yield path


def postgres_pid(data_dir: Path) -> int:
    """Return the process id of the embedded server on a data directory."""
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


class _ProcessStat(NamedTuple):
    state: str
    parent_pid: int


def _process_stat(pid: int) -> _ProcessStat | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return _ProcessStat(fields[0], int(fields[1]))


def is_running(pid: int) -> bool:
    """Return whether the process runs; a process that has ended but was not waited for does not."""
    stat = _process_stat(pid)
    return stat is not None and stat.state not in {"Z", "X"}


def descendant_pids(pid: int) -> set[int]:
    """Return the ids of the processes that a process started, directly or indirectly."""
    parents = {
        int(path.name): _process_stat(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdecimal()
    }
    pids: set[int] = set()
    generation = {pid}
    while generation:
        generation = {child for child, stat in parents.items() if stat is not None and stat.parent_pid in generation}
        pids |= generation
    return pids


def worker_pids(supervisor_pid: int) -> set[int]:
    """Return the ids of the worker processes that were forked from a supervisor."""
    return {
        pid
        for pid in descendant_pids(supervisor_pid)
        if is_running(pid) and _command_line(pid) == _command_line(supervisor_pid)
    }


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def resident_bytes(pid: int, *, peak: bool = False) -> int:
    """Return the resident memory of a process, or its peak since `reset_peak_memory`."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def reset_peak_memory(pid: int) -> None:
    """Start measuring the peak memory of a process anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def is_port_free(port: int) -> bool:
    """Return whether a server could listen on the port."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


XDIST_WORKER_INDEX = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
XDIST_WORKER_COUNT = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
PORT_CANDIDATES = iter(
    secrets.SystemRandom().sample(range(10_000 + XDIST_WORKER_INDEX, 32_000, XDIST_WORKER_COUNT), 500)
)
"""Random ports below the range that the system gives to clients; no other worker has the same ones."""


def free_port() -> int:
    """Return a port that nobody listens on and that nothing else takes before the test does."""
    return next(filter(is_port_free, PORT_CANDIDATES))


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


@dataclass(frozen=True)
class RawRequest:
    """A request that has not been sent yet."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    """The raw body, which is sent if `body` is None."""

    def to_bytes(self, *, keep_alive: bool = False) -> bytes:
        """Return the bytes to send; without `keep_alive`, they ask the server to close the connection."""
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: patients.test\r\n"
        head += "" if keep_alive else "Connection: close\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        content = self.content if self.body is None else json.dumps(self.body).encode()
        if content:
            head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        return head.encode() + b"\r\n" + content


@dataclass(frozen=True)
class TimedResponse:
    """A response, and the seconds it took."""

    status: int
    content: bytes
    seconds: float
    headers: Mapping[str, str]
    """Header values by lowercase name."""

    def json(self) -> Any:
        return json.loads(self.content)


async def _send(url: str, request: RawRequest, all_connected: asyncio.Barrier) -> TimedResponse:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
    try:
        await all_connected.wait()
        began = time.perf_counter()
        writer.write(request.to_bytes())
        raw = await reader.read()
        seconds = time.perf_counter() - began
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, content = raw.partition(b"\r\n\r\n")
    status, headers = parse_response_head(head)
    return TimedResponse(status, content, seconds, headers)


def parse_response_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return the status of a response, and its headers by lowercase name."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split(maxsplit=2)[1]), headers


async def send_concurrently(url: str | Sequence[str], requests: Iterable[RawRequest]) -> list[TimedResponse]:
    """Send all requests at once, each on its own open connection, and return the responses in order.

    Several services receive the requests in turn.
    """
    requests = list(requests)
    barrier = asyncio.Barrier(len(requests))
    urls = itertools.cycle([url] if isinstance(url, str) else url)
    return await asyncio.gather(*(_send(next(urls), call, barrier) for call in requests))


async def wait_until_blocked(connection: asyncpg.Connection, session_count: int = 1) -> None:
    """Wait until `session_count` sessions of the server wait for a lock, also inside a transaction."""
    async with asyncio.timeout(30):
        while await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < session_count:
            await connection.execute("SELECT pg_sleep(0.02)")


async def wait_until_blocked_in_transaction(connection: asyncpg.Connection) -> None:
    """Wait until the transaction of a change waits for a lock, after its single statement has failed to get it."""
    # the single statement has so many input columns that its beginning names only these
    is_waiting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND left(query, 300) LIKE '%json_to_recordset%'"
    )
    async with asyncio.timeout(30):
        while not await connection.fetchval(is_waiting):
            await connection.execute("SELECT pg_sleep(0.02), pg_stat_clear_snapshot()")


async def wait_until_migrators_queue(connection: asyncpg.Connection, session_count: int) -> None:
    """Wait until `session_count` sessions of the database have tried in vain to take the lock for migrating."""
    count_statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE $1"
    async with asyncio.timeout(30):
        while await connection.fetchval(count_statement, "SELECT pg_try_advisory_lock%") < session_count:
            await connection.execute("SELECT pg_sleep(0.02)")


async def count_deadlocks(connection: asyncpg.Connection) -> object:
    """Return the number of deadlocks in the database, after ending its other sessions: they report only then."""
    await connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return await connection.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
