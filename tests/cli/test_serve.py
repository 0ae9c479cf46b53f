"""`patients-api serve` in separate processes: starting, refusing to start, stopping, and being killed."""

import asyncio
import importlib.metadata
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import asyncpg
import httpx
import pytest

from app.connection_errors import describe_database
from tests.processes import (
    RawRequest,
    data_directory,
    descendant_pids,
    free_port,
    is_port_free,
    is_running,
    port_of,
    postgres_pid,
    run_cli,
    running_cli,
    send_concurrently,
    wait_until_blocked,
    wait_until_ready,
    worker_pids,
)
from tests.support import ServiceProcess, eventually

HOSPITALS = "/hospitals/hospitals/"
PATIENTS = "/patients/patients/"
Serve = Callable[..., ServiceProcess]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with data_directory() as path:
        yield path


@pytest.mark.crowd
@pytest.mark.parametrize(
    ("workers", "signals"),
    [("1", (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)), ("2", (signal.SIGKILL, signal.SIGINT, signal.SIGTERM))],
)
def test_stopping_and_starting_again_works_however_it_stopped(
    data_dir: Path, workers: str, signals: tuple[signal.Signals, ...]
) -> None:
    """After Ctrl-C, SIGTERM or kill -9, an immediate restart on the same port and data works and has all data."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    before: set[int] = set()
    for generation, number in enumerate(signals):
        arguments = ("serve", "--port", str(port), "--workers", workers)
        with running_cli(*arguments, PATIENTS_DATA_DIR=str(data_dir)) as process:
            eventually(partial(have_all_ended, before), within_seconds=5)  # and do not respond in its place
            wait_until_ready(process, url)
            names = [hospital["hospital_name"] for hospital in httpx.get(url + HOSPITALS).json()]
            assert names == [f"Hospital {n}" for n in range(generation)]
            hospital = {"unique_id": f"hos{generation}", "hospital_name": f"Hospital {generation}"}
            assert httpx.post(url + HOSPITALS, json=hospital).status_code == 201
            before = descendant_pids(process.pid)
            postgres = postgres_pid(data_dir)
            assert postgres in before
            group = [pid for pid in before if os.getpgid(pid) == os.getpgid(process.pid)]
            for pid in [process.pid, *(group if number == signal.SIGINT else [])]:  # as Ctrl-C in a terminal does
                os.kill(pid, number)
            assert process.wait(20) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
            if number != signal.SIGKILL:
                assert not is_running(postgres), "the service does not wait for its server to stop"
    eventually(partial(have_all_ended, before), within_seconds=5)
    assert is_port_free(port)


@pytest.mark.crowd
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_request_in_flight_is_finished(
    serve: Serve, database_url: str, connection: asyncpg.Connection, workers: str
) -> None:
    """After SIGTERM a request that waits for a lock still gets its response, while new connections are refused."""
    await connection.execute("INSERT INTO patients (unique_id, patient_last_name) VALUES ('pat123', 'Doe')")
    served = serve("--workers", workers, DATABASE_URL=database_url)
    async with httpx.AsyncClient(base_url=served.url, timeout=30) as client:
        async with connection.transaction():
            await connection.execute("SELECT FROM patients FOR UPDATE")
            change = asyncio.ensure_future(client.put(f"{PATIENTS}pat123/", json={"patient_last_name": "Roe"}))
            await wait_until_blocked(connection)
            served.process.terminate()
            eventually(lambda: not accepts_connections(served), within_seconds=5)
            await connection.execute("SELECT pg_sleep(0.5)")  # longer than it takes to drop a request
            assert served.process.poll() is None
            assert not change.done()
        response = await change
    assert response.status_code == 200
    assert response.json()["patient_last_name"] == "Roe"
    assert await connection.fetchval("SELECT patient_last_name FROM patients") == "Roe"
    assert await asyncio.to_thread(served.process.wait, 10) == 0


def have_all_ended(pids: set[int]) -> bool:
    return not any(map(is_running, pids))


def accepts_connections(served: ServiceProcess) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port_of(served.url)), timeout=1):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("schema", ["none", "older"])
async def test_schema_that_lacks_migrations_is_refused(
    database_url: str, connection: asyncpg.Connection, schema: str
) -> None:
    """With DATABASE_URL the service never migrates by itself: it exits with status 1 and names the command to run."""
    await connection.execute("DELETE FROM alembic_version" if schema == "older" else "DROP TABLE alembic_version")
    result = await asyncio.to_thread(run_cli, "serve", "--port", str(free_port()), DATABASE_URL=database_url)
    assert result.returncode == 1
    assert "patients-api migrate" in result.stderr
    assert "Traceback" not in result.stderr


async def test_newer_schema_is_accepted(serve: Serve, database_url: str, connection: asyncpg.Connection) -> None:
    """The service accepts an unknown revision, because it is from a later version that has expanded the schema."""
    await connection.execute("UPDATE alembic_version SET version_num = '29991231_07'")
    (response,) = await send_concurrently(
        serve(DATABASE_URL=database_url).url, [RawRequest("GET", f"{PATIENTS}?limit=1")]
    )
    assert response.json() == []


@pytest.mark.parametrize(
    "environment",
    [
        {"PATIENTS_POOLSIZE": "s3cret", "patients_list_cap_": "s3cret", "PATIENTS_DATABASE_URL": "postgresql://s3cret"},
        {"PATIENTS_POOL_SIZE": "s3cret", "PATIENTS_LIST_CAP": "-77777", "PATIENTS_CORS_ORIGINS": "https://s3cret/path"},
        {"PATIENTS_POOL_SIZE": "77777"},
        {"DATABASE_URL": "mysql://patients:s3cret@db/patients"},
    ],
    ids=["unknown", "invalid", "out-of-range", "database"],
)
def test_unusable_settings_are_named_without_their_values(environment: dict[str, str]) -> None:
    """Unknown or unusable settings are exit status 1, and each is named without its value."""
    result = run_cli("serve", "--port", str(free_port()), **environment)
    assert result.returncode == 1
    assert {line.partition(":")[0] for line in result.stderr.splitlines()} == set(environment)
    for secret in ("s3cret", "77777"):
        assert secret not in result.stderr + result.stdout


def test_database_out_of_reach_is_one_clear_line() -> None:
    """An unreachable database at start is exit status 1 and one sentence within seconds, without the password."""
    began = time.monotonic()
    url = "postgresql://patients:hunter2@127.0.0.1:1/patients"
    result = run_cli("serve", "--port", str(free_port()), DATABASE_URL=url)
    assert time.monotonic() - began < 10
    assert result.returncode == 1
    assert "database cannot be reached" in result.stderr
    for internal in ("hunter2", "Traceback"):
        assert internal not in result.stderr + result.stdout


async def test_start_waits_for_a_busy_database(serve: Serve, database_url: str) -> None:
    """A database that does not respond to the first connection at start, but to the next one, is served."""
    parts = urlsplit(database_url)
    options = dict(parse_qsl(parts.query))
    sessions = 0

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while received := await reader.read(65536):
            writer.write(received)
        writer.close()

    async def begin_session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sessions
        sessions += 1
        if sessions == 1:
            await reader.read()  # until the client gives up
            writer.close()
            return
        postgres = await asyncio.open_unix_connection(f"{options['host']}/.s.PGSQL.{options['port']}")
        await asyncio.gather(forward(reader, postgres[1]), forward(postgres[0], writer))

    async with await asyncio.start_server(begin_session, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        url = urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}", query="sslmode=disable"))
        served = await asyncio.to_thread(serve, DATABASE_URL=url)
        (response,) = await send_concurrently(served.url, [RawRequest("GET", f"{PATIENTS}?limit=1")])
        assert response.json() == []
    eventually(lambda: "the database has not responded in time" in "".join(served.stdout_lines), within_seconds=5)


def test_start_gives_up_on_a_silent_database() -> None:
    """A database that never responds at start is exit status 1 and one sentence, after a log line for each attempt."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://patients:hunter2@127.0.0.1:{silent.getsockname()[1]}/patients?sslmode=disable"
        result = run_cli("serve", "--port", str(free_port()), DATABASE_URL=url)
    assert result.returncode == 1
    (reason,) = result.stderr.splitlines()
    assert "there was no response in time" in reason
    attempts = result.stdout.splitlines()
    assert len(attempts) > 1
    assert all("the database has not responded in time" in line for line in attempts)
    assert "hunter2" not in result.stderr + result.stdout


def test_port_in_use_is_one_clear_line(database_url: str) -> None:
    """A port in use, even with SO_REUSEPORT, is exit status 1 and a message that names the port."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = run_cli("serve", "--port", str(port), "--workers", "2", DATABASE_URL=database_url)
    assert result.returncode == 1
    assert result.stderr.startswith(f"Cannot listen on 127.0.0.1 port {port}: Address already in use")
    assert "Traceback" not in result.stderr


async def test_log_has_a_line_a_request_and_no_patient_data(
    serve: Serve, database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every line is JSON; a request line has id, method, route, status and duration, but nothing from its content."""
    served = serve(DATABASE_URL=database_url)
    requests: list[tuple[str, str, str, int, Any]] = [
        ("GET", f"{PATIENTS}M4rker/", f"{PATIENTS}{{unique_id}}/", 404, None),
        ("HEAD", f"{PATIENTS}M4rker", f"{PATIENTS}{{unique_id}}/", 404, None),
        ("GET", f"{PATIENTS}?M4rker=M4rker", PATIENTS, 422, None),
        ("GET", f"{PATIENTS}?limit=1", PATIENTS, 200, None),
        ("POST", PATIENTS, PATIENTS, 422, {"M4rker": "M4rker", "patient_gender": "M4rker"}),
        ("POST", PATIENTS, PATIENTS, 201, {"unique_id": "M4rker", "patient_last_name": "M4rker"}),
        ("PUT", f"{PATIENTS}M4rker/", f"{PATIENTS}{{unique_id}}/", 200, {"patient_town": "M4rker"}),
        ("DELETE", f"{PATIENTS}M4rker/", f"{PATIENTS}{{unique_id}}/", 204, None),
        ("GET", "/M4rker?M4rker", "(none)", 404, None),
        ("GET", "/docs?M4rker", "/docs", 200, None),
    ]
    async with httpx.AsyncClient(base_url=served.url, headers={"User-Agent": "M4rker"}) as client:
        for number, (method, path, _, status, body) in enumerate(requests):
            headers = {"X-Request-ID": f"request-{number}"}
            response = await client.request(method, path, json=body, headers=headers)
            assert (path, response.status_code) == (path, status)
            assert response.headers["X-Request-ID"] == f"request-{number}"
    websocket = "GET /M4rker HTTP/1.1\r\nHost: M4rker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    for raw in ("M4rker / M4rker\r\n\r\n", "GET /M4rker HTTP/M4rker\r\n\r\n", f"{websocket}\r\n"):
        with socket.create_connection(("127.0.0.1", port_of(served.url))) as plain:
            plain.sendall(raw.encode())
            assert plain.recv(65536).startswith(b"HTTP/1.1 4")
    served.process.terminate()
    await asyncio.to_thread(served.process.wait, 20)
    (start,) = [line for line in served.log_entries() if line["event"] == "service starting"]
    assert start.pop("timestamp")
    assert start == {
        "event": "service starting",
        "level": "info",
        "version": importlib.metadata.version("patients-api"),
        "url": served.url,
        "database": describe_database(database_url),
        "authentication": False,
        "reads_audited": False,
        "demo_data_loaded": False,
    }
    lines = {line["request_id"]: line for line in served.log_entries() if line["event"] == "request"}
    for number, (method, _, route, status, _) in enumerate(requests):
        line = lines[f"request-{number}"]
        keys = {
            "event",
            "level",
            "timestamp",
            "request_id",
            "method",
            "route",
            "status",
            "complete",
            "duration_ms",
            "principal",
        }
        assert set(line) == keys
        assert (line["method"], line["route"], line["status"], line["complete"]) == (method, route, status, True)
        assert 0 <= line["duration_ms"] < 5000
    assert "m4rker" not in ("".join(served.stdout_lines) + capfd.readouterr().err).lower()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_that_end_are_replaced_at_once(serve: Serve, database_url: str, number: signal.Signals) -> None:
    """Workers that end are replaced at once, any number of times, even while they are still starting."""
    served = serve("--workers", "2", DATABASE_URL=database_url)
    for _ in range(5):
        before = worker_pids(served.process.pid)
        os.kill(max(before), number)
        eventually(partial(workers_were_replaced, served, before), within_seconds=5)
    eventually(lambda: httpx.get(f"{served.url}/readyz").status_code == 204)
    for pid in worker_pids(served.process.pid):
        os.kill(pid, number)
    served.process.terminate()
    assert served.process.wait(10) == 0, "the service does not stop while it is replacing workers"


def test_workers_that_find_their_port_taken_end_the_service(serve: Serve, database_url: str) -> None:
    """If another process takes the port while workers are replaced, the service exits instead of retrying forever."""
    served = serve("--workers", "2", DATABASE_URL=database_url)
    port = port_of(served.url)
    served.process.send_signal(signal.SIGSTOP)
    try:
        for pid in worker_pids(served.process.pid):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: is_port_free(port))
        other = socket.create_server(("127.0.0.1", port))
    finally:
        served.process.send_signal(signal.SIGCONT)
    with other:
        assert served.process.wait(10) == 1
    eventually(lambda: any(line["event"] == "the port is taken" for line in served.log_entries()))


def workers_were_replaced(served: ServiceProcess, before: set[int]) -> bool:
    """Return whether there are as many workers as before, but not the same ones."""
    now = worker_pids(served.process.pid)
    return len(now) == len(before) and now != before


async def test_workers_end_with_their_supervisor(serve: Serve, database_url: str) -> None:
    """Workers end by themselves when their supervisor is killed, and none keeps the port."""
    served = serve("--workers", "3", DATABASE_URL=database_url)
    started = worker_pids(served.process.pid)
    assert len(started) == 3
    served.process.kill()
    await asyncio.to_thread(eventually, lambda: not any(map(is_running, started)))
    assert is_port_free(port_of(served.url))
