"""The embedded PostgreSQL server for laptops and tests, which ends with the process that started it.

Two processes manage a server. The *owner* is ours (the service, or pytest) and uses `EmbeddedPostgres`; the
*watchdog* is `app/db/embedded_watchdog.py`, run as a script in a session of its own. The owner holds the only write
end of the watchdog's stdin: the watchdog reads end-of-file when the owner closes it or dies of any cause, `kill -9`
included, and stops the server. If the watchdog itself is killed, the kernel stops the server (Linux), or else the next
watchdog does.
"""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Self, cast

from app.db import embedded_watchdog
from app.db.embedded_watchdog import EmbeddedPostgresError, server_url, short_socket_dir

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "running_server_url"]


class EmbeddedPostgres:
    """A PostgreSQL server on a data directory, which runs while the context is entered and this process lives.

    Attributes:
        url: The URL of the server, for both asyncpg and libpq; set on entry.
    """

    url: str

    def __init__(self, data_dir: Path, *, options: Mapping[str, str] | None = None) -> None:
        """Describe the server; nothing runs until the context is entered.

        Args:
            data_dir: The directory of the cluster, its log and its lock; created and made private on entry.
            options: Further server settings, such as `{"fsync": "off"}` for disposable data.
        """
        self._data_dir = data_dir.resolve()
        self._options = options or {}

    def __enter__(self) -> Self:
        """Start the server, on a new cluster if the directory has none, and wait until it accepts connections.

        Raises:
            EmbeddedPostgresError: The server cannot run: the wheel is missing, the directory is in use or belongs to
                another user, or the start failed.
        """
        self._watchdog = subprocess.Popen(  # noqa: S603 - our own interpreter and file
            # By path and with -P: the watchdog imports nothing of ours, so it works from any working directory.
            [
                sys.executable,
                "-P",
                embedded_watchdog.__file__,
                str(self._data_dir),
                *(f"{k}={v}" for k, v in self._options.items()),
            ],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C or a kill of the process group must reach only the owner
            env={name: value for name, value in os.environ.items() if not name.startswith("PG")},  # PGPORT, PGOPTIONS
        )
        with contextlib.ExitStack() as undo:
            undo.callback(self.__exit__)
            # A child that execs never inherits the pipe; one that is only forked must not keep the server alive either.
            os.register_at_fork(after_in_child=cast("BinaryIO", self._watchdog.stdin).close)
            with cast("BinaryIO", self._watchdog.stdout) as stdout:
                report = stdout.read().decode().strip()
            if not report.startswith("postgresql://"):
                raise EmbeddedPostgresError(report or "The embedded PostgreSQL was stopped while it was starting.")
            undo.pop_all()
        self.url = report
        return self

    def wait(self) -> None:
        """Wait until the server has ended, by itself or through the context's exit."""
        self._watchdog.wait()

    def __exit__(self, *_: object) -> None:
        """Stop the server and wait until it is gone."""
        cast("BinaryIO", self._watchdog.stdin).close()
        self.wait()


def running_server_url(data_dir: Path) -> str | None:
    """Return the URL of the embedded server that runs on a data directory, or None if none does."""
    for socket_dir in (data_dir.resolve(), short_socket_dir(data_dir.resolve())):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(socket_dir / ".s.PGSQL.5432"))
            return server_url(socket_dir, "patients")
    return None
