"""The embedded PostgreSQL server for laptops and tests. It stops when the process that started it ends.

Two processes manage a server. The *owner* is the process that uses `EmbeddedPostgres`: the service or pytest. The
*watchdog* runs `app/embedded/watchdog.py` as a script in a session of its own. Only the owner holds the write end of
the watchdog's stdin. When the owner closes this end or dies of any cause, `kill -9` included, the watchdog reads
end-of-file and stops the server. If the watchdog itself is killed, the kernel stops the server on Linux; on other
systems, the next watchdog stops it.
"""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Self, cast

from app.embedded import watchdog
from app.embedded.watchdog import EmbeddedPostgresError, server_url, short_socket_dir

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "running_server_url"]


class EmbeddedPostgres:
    """A PostgreSQL server on a data directory. It runs while the context is entered and this process lives.

    Attributes:
        url: The URL of the server, in a form that both asyncpg and libpq accept. It is set on entry.
    """

    url: str

    def __init__(
        self,
        data_dir: Path,
        *,
        options: Mapping[str, str] | None = None,
        work_meanwhile: Callable[[], object] | None = None,
    ) -> None:
        """Configure the server. It is not started until the context is entered.

        Args:
            data_dir: The directory for the cluster, its log and its lock. It is created and made private on entry.
            options: Further server settings, such as `{"fsync": "off"}` for disposable data.
            work_meanwhile: A function that is called on entry, while the server starts.
        """
        self._data_dir = data_dir.resolve()
        self._options = options or {}
        self._work_meanwhile = work_meanwhile

    def __enter__(self) -> Self:
        """Start the server and wait until it accepts connections. If the directory has no cluster, create one first.

        Raises:
            EmbeddedPostgresError: The server cannot run, because the wheel is missing, the directory is in use or
                belongs to another user, or the start failed.
        """
        self._watchdog = subprocess.Popen(  # noqa: S603 - our own interpreter and file
            # The watchdog imports no module of this service, so with its path and -P it starts in any directory.
            [
                sys.executable,
                "-P",
                watchdog.__file__,
                str(self._data_dir),
                *(f"{k}={v}" for k, v in self._options.items()),
            ],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in a terminal or a kill of the process group must reach only the owner
            env={name: value for name, value in os.environ.items() if not name.startswith("PG")},  # such as PGPORT
        )
        with contextlib.ExitStack() as undo:
            undo.callback(self.__exit__)
            # Child processes that call exec do not inherit the pipe. Those that only fork inherit it and must close it,
            # because they would keep the server alive.
            os.register_at_fork(after_in_child=cast("BinaryIO", self._watchdog.stdin).close)
            with cast("BinaryIO", self._watchdog.stdout) as stdout:
                if self._work_meanwhile is not None:
                    self._work_meanwhile()
                report = stdout.read().decode().strip()
            if not report.startswith("postgresql://"):
                raise EmbeddedPostgresError(report or "The embedded PostgreSQL was stopped while it was starting.")
            undo.pop_all()
        self.url = report
        return self

    def wait(self) -> None:
        """Wait until the server has ended, either by itself or because the context was exited."""
        self._watchdog.wait()

    def __exit__(self, *_: object) -> None:
        """Stop the server and wait until it has ended."""
        cast("BinaryIO", self._watchdog.stdin).close()
        self.wait()


def running_server_url(data_dir: Path) -> str | None:
    """Return the URL of the embedded server that is running on a data directory, or None if no server is running."""
    for socket_dir in (data_dir.resolve(), short_socket_dir(data_dir.resolve())):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(socket_dir / ".s.PGSQL.5432"))
            return server_url(socket_dir, "patients")
    return None
