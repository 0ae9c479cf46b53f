"""The supervisor of the embedded PostgreSQL, tested with real servers, signals and kills."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from app.embedded.server import EmbeddedPostgres, EmbeddedPostgresError
from tests.processes import data_directory

FAST_OPTIONS = {"fsync": "off"}
DEADLINE_SECONDS = 20.0
OWNER_SCRIPT = """
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)  # as at a terminal
import sys, threading
from pathlib import Path
from app.embedded.server import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1]), options={"fsync": "off"}) as server:
    print(server.url, flush=True)
    threading.Event().wait()
"""


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Replace pytest's `tmp_path`, which only its owner may enter: under root the server runs as another account."""
    with data_directory() as path:
        yield path


def wait_until(condition: Callable[[], bool], description: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"still waiting until {description}"
        time.sleep(0.01)


def watchdog_pid(data_dir: Path) -> int:
    return int((data_dir / "lock").read_text().split()[0])


def server_pid(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


def is_running(pid: int) -> bool:
    """Return whether the process runs; a zombie does not."""
    ps = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], check=False, capture_output=True, text=True)
    return ps.stdout.strip()[:1] not in {"", "Z"}


@contextlib.contextmanager
def owner_process(data_dir: Path, *, await_ready: bool = True) -> Iterator[subprocess.Popen[str]]:
    """Start another process that owns a server, by default one that is running."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER_SCRIPT, str(data_dir)], stdout=subprocess.PIPE, text=True
    ) as owner:
        try:
            assert owner.stdout is not None
            assert not await_ready or owner.stdout.readline().startswith("postgresql://")
            yield owner
        finally:
            owner.kill()


@contextlib.contextmanager
def unrelated_process() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that has nothing to do with any server."""
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            yield process
        finally:
            process.kill()


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def fetch_value(server: EmbeddedPostgres, sql: str) -> object:
    connection = await asyncpg.connect(server.url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_first_start_creates_a_private_utf8_cluster_in_utc(tmp_path: Path) -> None:
    """The first start creates a private UTF-8 cluster with the built-in C.UTF-8 locale, in UTC and without TCP."""
    with EmbeddedPostgres(tmp_path / "data", options={**FAST_OPTIONS, "work_mem": "7MB"}) as server:
        assert await fetch_value(server, "SELECT current_database() || ' ' || current_user") == "patients patients"
        locale = await fetch_value(
            server,
            "SELECT concat_ws(' ', pg_encoding_to_char(encoding), datlocprovider, datlocale, datcollate, datctype)"
            " FROM pg_database WHERE datname = current_database()",
        )
        assert locale == "UTF8 b C.UTF-8 C C"
        expected = {
            "TimeZone": "UTC",
            "fsync": "off",
            "listen_addresses": "",
            "log_statement": "none",
            "max_connections": "200",
            "work_mem": "7MB",
        }
        assert {name: await fetch_value(server, f"SHOW {name}") for name in expected} == expected
        assert permissions(tmp_path / "data") == 0o700


async def test_data_survive_a_stop_and_a_start(tmp_path: Path) -> None:
    """Committed data are there after a stop and the next start, and a stop leaves no process.

    The next start calls a function, which here waits for the server, while the server starts.
    """
    with EmbeddedPostgres(tmp_path, options=FAST_OPTIONS) as server:
        await fetch_value(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        pids = [watchdog_pid(tmp_path), server_pid(tmp_path)]
    assert not any(map(is_running, pids))

    def wait_for_start() -> None:
        wait_until((tmp_path / ".s.PGSQL.5432").exists, "the server has a socket")

    with EmbeddedPostgres(tmp_path, options=FAST_OPTIONS, work_meanwhile=wait_for_start) as server:
        assert await fetch_value(server, "SELECT answer FROM kept") == 42


async def test_missing_database_is_made_again(tmp_path: Path) -> None:
    """A database that was dropped by hand is created again, empty, by the next start."""
    with EmbeddedPostgres(tmp_path, options=FAST_OPTIONS) as server:
        connection = await asyncpg.connect(server.url, database="postgres")
        await connection.execute("DROP DATABASE patients")
        await connection.close()
    with EmbeddedPostgres(tmp_path, options=FAST_OPTIONS) as server:
        assert await fetch_value(server, "SELECT 1") == 1


def test_directory_in_use_is_refused_and_its_user_named(tmp_path: Path) -> None:
    """A second start on a directory in use fails soon, names the process that uses it, and does not disturb it."""
    with owner_process(tmp_path) as owner:
        began = time.monotonic()
        with pytest.raises(EmbeddedPostgresError, match=rf"in use by process {owner.pid}\b"):
            EmbeddedPostgres(tmp_path, options=FAST_OPTIONS).__enter__()
        assert time.monotonic() - began < 5
        assert is_running(server_pid(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
async def test_end_of_the_owner_stops_the_server(tmp_path: Path, number: signal.Signals) -> None:
    """Whatever signal ends the owner, the server stops cleanly and can be started again at once."""
    with owner_process(tmp_path) as owner:
        pids = [watchdog_pid(tmp_path), server_pid(tmp_path)]
        owner.send_signal(number)
        owner.wait(DEADLINE_SECONDS)
    with EmbeddedPostgres(tmp_path, options=FAST_OPTIONS) as server:
        assert not any(map(is_running, pids))
        assert await fetch_value(server, "SELECT 1") == 1
    assert "not properly shut down" not in (tmp_path / "postgres.log").read_text()


def test_signals_to_the_group_of_the_owner_spare_the_watchdog(tmp_path: Path) -> None:
    """The watchdog has its own session and ignores SIGINT and SIGHUP, so it always gets to stop its server."""
    with owner_process(tmp_path) as owner:
        watchdog, postgres = watchdog_pid(tmp_path), server_pid(tmp_path)
        assert os.getsid(watchdog) == watchdog != os.getsid(owner.pid)
        for number in (signal.SIGINT, signal.SIGHUP):
            os.kill(watchdog, number)
        assert is_running(watchdog)
        assert is_running(postgres)
        os.kill(watchdog, signal.SIGTERM)
        wait_until(lambda: not is_running(watchdog) and not is_running(postgres), "SIGTERM has stopped both")


async def test_killing_the_watchdog_stops_the_server(tmp_path: Path) -> None:
    """A `kill -9` of the watchdog leaves nothing that prevents the next start and, on Linux, no server."""
    with EmbeddedPostgres(tmp_path, options=FAST_OPTIONS):
        watchdog, postgres = watchdog_pid(tmp_path), server_pid(tmp_path)
        os.kill(watchdog, signal.SIGKILL)
        if sys.platform == "linux":
            wait_until(lambda: not is_running(postgres), "the kernel has stopped the server")
    with EmbeddedPostgres(tmp_path, options=FAST_OPTIONS) as server:
        assert not is_running(postgres)
        assert await fetch_value(server, "SELECT 1") == 1


async def test_killing_the_server_ends_the_watchdog(tmp_path: Path) -> None:
    """If the server dies by itself, the watchdog ends too, and the next start recovers."""
    with EmbeddedPostgres(tmp_path, options=FAST_OPTIONS):
        watchdog = watchdog_pid(tmp_path)
        os.kill(server_pid(tmp_path), signal.SIGKILL)
        wait_until(lambda: not is_running(watchdog), "the watchdog has ended")
    with EmbeddedPostgres(tmp_path, options=FAST_OPTIONS) as server:
        assert await fetch_value(server, "SELECT 1") == 1


async def test_everything_killed_at_once_does_not_prevent_a_start(tmp_path: Path) -> None:
    """After owner, watchdog and server were all killed at once, the next start works."""
    with owner_process(tmp_path) as owner:
        for pid in (server_pid(tmp_path), watchdog_pid(tmp_path), owner.pid):
            os.kill(pid, signal.SIGKILL)
    with EmbeddedPostgres(tmp_path, options=FAST_OPTIONS) as server:
        assert await fetch_value(server, "SELECT 1") == 1


def test_forked_child_does_not_keep_the_server_alive(tmp_path: Path) -> None:
    """A child that was forked without exec and outlives the owner does not hold the watchdog's pipe open."""
    script = OWNER_SCRIPT.replace(
        "threading.Event", "import os; os.fork() or print(os.getpid(), flush=True); threading.Event"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        child = int(owner.stdout.readline())
        try:
            postgres = server_pid(tmp_path)
            owner.kill()
            owner.wait(DEADLINE_SECONDS)
            wait_until(lambda: not is_running(postgres), "the server has stopped")
            assert is_running(child)
        finally:
            os.kill(child, signal.SIGKILL)


async def test_stale_pid_files_with_a_recycled_pid_do_not_prevent_a_start(tmp_path: Path) -> None:
    """Stale pid files that name a running, unrelated process neither prevent a start nor harm that process."""
    pid_files = [tmp_path / "postgres" / "postmaster.pid", tmp_path / ".s.PGSQL.5432.lock"]
    with EmbeddedPostgres(tmp_path, options=FAST_OPTIONS):
        left_over = [file.read_text().partition("\n")[2] for file in pid_files]
    with unrelated_process() as process:
        for file, rest in zip(pid_files, left_over, strict=True):
            file.write_text(f"{process.pid}\n{rest}")
        with EmbeddedPostgres(tmp_path, options=FAST_OPTIONS) as server:
            assert await fetch_value(server, "SELECT 1") == 1
        assert process.poll() is None


async def test_kill_during_initdb_does_not_prevent_a_start(tmp_path: Path) -> None:
    """An owner killed during initdb leaves nothing that prevents a start."""
    with owner_process(tmp_path, await_ready=False) as owner:
        wait_until((tmp_path / "postgres.new" / "PG_VERSION").exists, "initdb is running")
        owner.kill()
    (tmp_path / "postgres.new").mkdir(exist_ok=True)
    (tmp_path / "postgres.new" / "left-over").touch()
    with EmbeddedPostgres(tmp_path, options=FAST_OPTIONS) as server:
        assert await fetch_value(server, "SELECT 1") == 1
    assert not (tmp_path / "postgres.new").exists()


@pytest.mark.parametrize(
    ("name", "fits"), [("long-" * 25, False), ("comma, that is", False), ("ünïcode & 100% +?", True)]
)
async def test_long_or_special_paths_work_and_stay_private(tmp_path: Path, name: str, *, fits: bool) -> None:
    """A path that is too long for a socket or has characters special in URLs works, and stays private."""
    with EmbeddedPostgres(tmp_path / name, options=FAST_OPTIONS) as server:
        assert await fetch_value(server, "SELECT 1") == 1
        socket_dir = Path(str(await fetch_value(server, "SHOW unix_socket_directories")))
        assert permissions(socket_dir) == 0o700
    assert (socket_dir == tmp_path / name) is fits
    assert os.access(socket_dir, os.F_OK) is fits, "a directory created for the socket must be removed with it"


async def test_row_values_stay_out_of_the_log(tmp_path: Path) -> None:
    """Neither constraint violations nor malformed values nor interrupted statements put row values into the log."""
    with EmbeddedPostgres(tmp_path, options=FAST_OPTIONS) as server:
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE TABLE patient (name text UNIQUE, born date CHECK (born > '1900-01-01'))")
        await connection.execute("INSERT INTO patient VALUES ('Secret Name', '1980-01-01')")
        with pytest.raises(asyncpg.UniqueViolationError, match="duplicate key"):
            await connection.execute("INSERT INTO patient VALUES ($1)", "Secret Name")
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("INSERT INTO patient VALUES ('Secret Name 2', '1888-08-08')")
        with pytest.raises(asyncpg.InvalidDatetimeFormatError, match="Secret Name"):
            await connection.execute("SELECT 'Secret Name'::date")
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await connection.execute("SELECT 'Secret Name', pg_terminate_backend(pg_backend_pid()), pg_sleep(60)")
        await connection.close()
    log = (tmp_path / "postgres.log").read_text()
    assert "database system is shut down" in log
    assert "Secret" not in log
    assert "1888" not in log


def test_failed_start_shows_the_end_of_the_log(tmp_path: Path) -> None:
    """A server that does not start raises an error that says why and where the log is."""
    with pytest.raises(EmbeddedPostgresError, match=r'(?s)postgres\.log.*FATAL: .*"fsync" requires a Boolean'):
        EmbeddedPostgres(tmp_path, options={"fsync": "perhaps"}).__enter__()


def test_cluster_of_another_major_version_is_refused(tmp_path: Path) -> None:
    """A cluster of another major version is left alone, and the error names both versions."""
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedPostgresError, match=r"PostgreSQL 17, but the installed binaries are of version 18"):
        EmbeddedPostgres(tmp_path, options=FAST_OPTIONS).__enter__()


def test_unusable_directory_is_refused(tmp_path: Path) -> None:
    """A path that cannot be a directory raises an error that names it and suggests an alternative."""
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedPostgresError, match=r"cannot use .*/file/data: Not a directory\. .* DATABASE_URL"):
        EmbeddedPostgres(tmp_path / "file" / "data").__enter__()


def test_missing_wheel_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel, the error says what to install."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')  # sees no installed package
    bare.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(EmbeddedPostgresError, match=r"set DATABASE_URL, or install requirements-embedded.lock"):
        EmbeddedPostgres(tmp_path).__enter__()


def test_directory_of_other_files_is_left_alone(tmp_path: Path) -> None:
    """A directory with other files is refused, nothing is written to it, and its permissions stay the same."""
    (tmp_path / "letter.txt").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(EmbeddedPostgresError, match="choose another data directory"), EmbeddedPostgres(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    assert tmp_path.stat().st_mode & 0o777 == 0o755
