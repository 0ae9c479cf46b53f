"""A fork server for the command `patients-api`: a process that has imported modules and forks for each command.

A third of the suite's time would go into importing SQLAlchemy, FastAPI and Pydantic anew in each process. This is the
pattern of `multiprocessing`'s forkserver, which cannot be used itself, because its processes are no children of
pytest and have neither pipes nor an exit status of their own.

A command that is started here differs from `python -m app.cli` only in the modules that are imported already and, at
its end, not deleted.
Services of several workers have a server of their own, because prometheus_client decides during its import whether
processes share their metrics. When the command starts fast enough (half a second of CPU time is spent on imports
today), this module can go.
"""

import atexit
import ctypes
import functools
import gc
import importlib
import inspect
import itertools
import json
import os
import runpy
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from app.observability.multiprocess import MULTIPROCESS_DIRECTORY_ENV

PRELOADED_MODULES = (
    "alembic.command",
    "cryptography.fernet",
    "httpx",
    "jwt",
    "phonenumbers",
    "rich.traceback",
    "uvloop",
    "app.cli.export",
    "app.cli.import_",
    "app.cli.journal",
    "app.cli.keys",
    "app.cli.migrate",
    "app.cli.serve",
    "app.server.protocol",
    "app.server.worker",
)
"""The modules of commands, and libraries that they import only when they need them."""

IMPORT_VARIABLE_PREFIXES = ("LANG", "LC_", "OTEL_PROPAGATORS", "OTEL_PYTHON_", "PROMETHEUS_", "PYTHON")
"""Names of variables that the interpreter or libraries read when they start. A command that sets one is not forked.

The other variables of OpenTelemetry are read by its SDK, which a service imports only after the fork."""

MAX_REQUEST_BYTES = 1 << 20
PR_SET_CHILD_SUBREAPER = 36


_START_LOCK = threading.Lock()


class ForkedCommand(subprocess.Popen[Any]):
    """A `subprocess.Popen` for arguments of `patients-api`, whose process is forked from the fork server."""

    def __init__(self, arguments: list[str], **options: Any) -> None:
        """Start the command; `options` are those of Popen for standard streams, text, directory and environment."""
        super().__init__(arguments, **options)

    def _execute_child(self, *arguments: Any) -> None:  # differs from version to version
        given = inspect.signature(super()._execute_child).bind(*arguments).arguments  # type: ignore[misc]
        streams = [
            number if given[name] == -1 else given[name]
            for number, name in enumerate(("p2cread", "c2pwrite", "errwrite"))
        ]
        request = {
            "arguments": given["args"],
            "environment": dict(given["env"] or os.environ),
            "cwd": str(given["cwd"] or Path.cwd()),
        }
        with _START_LOCK:  # `cache` would let two threads start a server each
            server = _fork_server(shares_metrics=_has_several_workers(given["args"]))
        self.pid = server.fork(request, streams)
        self._child_created = True
        pipe_ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in pipe_ends))  # type: ignore[attr-defined]


def start_command(*arguments: str, env: Mapping[str, str], **options: Any) -> "subprocess.Popen[Any]":
    """Start `patients-api` with the variables `env` besides ours; `options` are those of `subprocess.Popen`."""
    environment = {**os.environ, **env}
    if sys.platform == "linux" and not any(name.startswith(IMPORT_VARIABLE_PREFIXES) for name in env):
        return ForkedCommand(list(arguments), env=environment, **options)
    return subprocess.Popen([sys.executable, "-m", "app.cli", *arguments], env=environment, **options)


_SCRIPT = """#!{interpreter} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
    connection.connect({address!r})
    request = {{"arguments": sys.argv[1:], "environment": dict(os.environ), "cwd": os.getcwd()}}
    socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
    sys.exit(int(connection.recv(100)))
"""


class _ScriptHandler(socketserver.BaseRequestHandler):
    """Runs the command that a script has sent with its standard streams, and sends its exit status."""

    def handle(self) -> None:
        message, streams, _, _ = socket.recv_fds(self.request, MAX_REQUEST_BYTES, 3)
        request = json.loads(message)
        stdin, stdout, stderr = streams
        process = ForkedCommand(
            request["arguments"],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=request["cwd"],
            env=request["environment"],
        )
        for descriptor in streams:
            os.close(descriptor)
        status = process.wait()
        self.request.send(str(status if status >= 0 else 128 - status).encode())  # as a shell shows a signal


class _ScriptServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    socket_type = socket.SOCK_SEQPACKET


@contextmanager
def script_directory() -> Iterator[Path]:
    """Yield a directory with a script `patients-api`, whose commands are forked. Signals to it end only the script."""
    if sys.platform != "linux":
        yield Path(sys.executable).parent
        return
    with TemporaryDirectory() as name:
        address = f"{name}/socket"
        script = Path(name, "patients-api")
        script.write_text(_SCRIPT.format(interpreter=sys.executable, address=address))
        script.chmod(0o755)
        with _ScriptServer(address, _ScriptHandler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield Path(name)
            finally:
                server.shutdown()
                thread.join()


class _ForkServer:
    """The server's process, and our end of its socket."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        # a process whose parent has ended becomes a child of the nearest subreaper instead of init's
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._socket, its_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its_socket:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(its_socket.fileno())],
                env={**os.environ, **environment},
                pass_fds=[its_socket.fileno()],
                stdin=subprocess.DEVNULL,
            )
            self._socket.recv(100)  # the modules are imported
        self._lock = threading.Lock()

    def fork(self, request: dict[str, Any], streams: list[int]) -> int:
        """Return the id of a new child process with these three standard streams."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], streams)
            return int(self._socket.recv(100))


def _has_several_workers(arguments: list[str]) -> bool:
    return any(
        name == "--workers" and count.isdecimal() and int(count) > 1 for name, count in itertools.pairwise(arguments)
    )


@functools.cache
def _fork_server(*, shares_metrics: bool) -> _ForkServer:
    if not shares_metrics:
        return _ForkServer({})
    # metrics have files in this directory only until they are used in another process, whose variable names another one
    with TemporaryDirectory() as directory:
        return _ForkServer({MULTIPROCESS_DIRECTORY_ENV: directory})


def _wait_for_request(connection: socket.socket) -> dict[str, Any]:
    """Fork for each request that arrives, and return the request in the new process."""
    while True:
        message, streams, _, _ = socket.recv_fds(connection, MAX_REQUEST_BYTES, 3)
        if not message:
            sys.exit()
        read_end, write_end = os.pipe()
        if (parent_pid := os.fork()) == 0:
            if (pid := os.fork()) != 0:
                os.write(write_end, str(pid).encode())
                os._exit(0)
            for descriptor in (read_end, write_end):
                os.close(descriptor)
            for number, descriptor in enumerate(streams):
                os.dup2(descriptor, number)
                os.close(descriptor)
            connection.close()
            return dict(json.loads(message))
        os.close(write_end)
        pid_text = os.read(read_end, 100)
        os.waitpid(parent_pid, 0)  # pytest has inherited the command's process before it learns its id
        connection.send(pid_text)
        for descriptor in (read_end, *streams):
            os.close(descriptor)


def _main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    for name in PRELOADED_MODULES:
        importlib.import_module(name)
    # otherwise the garbage collection at the exit of each command would copy all pages with imported objects
    gc.freeze()
    connection.send(b"ready")
    request = _wait_for_request(connection)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.argv = ["patients-api", *request["arguments"]]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    try:
        runpy.run_module("app.cli", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        _exit_without_teardown(ended)


def _exit_without_teardown(ended: SystemExit) -> None:
    """Do all that the interpreter does at its exit, except for deleting the modules.

    Deleting them copies most pages that the process shares with the fork server: 0.17 seconds of CPU time instead of
    0.01. The interpreter itself treats what is rare: a status that is a message, and streams that cannot be written.
    """
    if not isinstance(ended.code, int | None):
        raise ended
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        raise ended from None
    os._exit(ended.code or 0)


if __name__ == "__main__":
    _main()
