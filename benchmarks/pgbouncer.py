"""PgBouncer in transaction mode in front of the embedded server and, run by itself, a side with the service behind it.

`PGBOUNCER=/path/to/another python -m benchmarks.pgbouncer --port 8001 --workers 2`, on the database of DATABASE_URL.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from socket import create_connection, socket
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from benchmarks.command import exit_on_sigterm

PGBOUNCER_PROGRAM = os.environ.get("PGBOUNCER", "pgbouncer")
SERVING_ROLE = "patients_api"
NOBODY_UID = 65534
START_TIMEOUT_SECONDS = 10
CLI_COMMAND = (sys.executable, "-m", "app.cli")


def find_pgbouncer() -> str | None:
    """Return the path of PgBouncer, if it is installed; Debian installs it where only root's PATH leads."""
    return shutil.which(PGBOUNCER_PROGRAM, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


@contextmanager
def running_pgbouncer(
    server_url: str, port: int, roles: Sequence[str], pool_size: int, **settings: str
) -> Iterator[str]:
    """Run PgBouncer in front of an embedded server, with `pool_size` sessions for each role and database.

    Yields `127.0.0.1:port`, where each of the `roles` may connect without a password and may also use the console.
    """
    path = find_pgbouncer()
    assert path is not None, "PgBouncer is not installed"  # noqa: S101
    query = parse_qs(urlsplit(server_url).query)
    configuration = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "pool_mode": "transaction",
        "default_pool_size": str(pool_size),
        "max_client_conn": "500",
        "auth_type": "trust",
        "admin_users": ", ".join(roles),
        **settings,
    }
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        configuration["auth_file"] = str(directory / "users")
        (directory / "users").write_text("".join(f'"{role}" ""\n' for role in roles))
        (directory / "ini").write_text(
            f"[databases]\n* = host={query['host'][0]} port={query['port'][0]}\n[pgbouncer]\n"
            + "".join(f"{key} = {value}\n" for key, value in configuration.items())
        )
        prefix, popen_options = _unprivileged_command(Path(query["host"][0]))
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen([*prefix, path, str(directory / "ini")], stdout=log, stderr=log, **popen_options)
        try:
            _wait_until_listening(process, port, directory / "log")
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()  # the meaning of SIGTERM differs between versions
            process.wait()


def _unprivileged_command(socket_dir: Path) -> tuple[list[str], dict[str, Any]]:
    """Return how to start PgBouncer, which refuses to run as root, for a socket that only its owner can use."""
    if os.geteuid() != 0:
        return [], {}
    owner = socket_dir.stat().st_uid
    if owner == 0:  # the embedded server runs in such a namespace too
        return ["unshare", "--user", f"--map-user={NOBODY_UID}", f"--map-group={NOBODY_UID}"], {}
    return [], {"user": owner}


def _wait_until_listening(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PgBouncer does not start: {log.read_text()}") from None
            time.sleep(0.02)
        else:
            return


async def _create_role(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", SERVING_ROLE):
            await connection.execute(f"CREATE ROLE {SERVING_ROLE} LOGIN")
    finally:
        await connection.close()


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pgbouncer", description=__doc__)
    parser.add_argument("--port", required=True)
    parser.add_argument("--workers", required=True)
    parser.add_argument("--pool-size", type=int, default=8, help="PgBouncer's sessions (%(default)s)")
    arguments = parser.parse_args()
    exit_on_sigterm()
    database_url = os.environ["DATABASE_URL"]
    asyncio.run(_create_role(database_url))
    subprocess.run([*CLI_COMMAND, "migrate", "--serving-role", SERVING_ROLE], check=True)
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with running_pgbouncer(database_url, port, [SERVING_ROLE], arguments.pool_size) as address:
        url = f"postgresql://{SERVING_ROLE}@{address}{urlsplit(database_url).path}"
        serve = [*CLI_COMMAND, "serve", "--port", arguments.port, "--workers", arguments.workers]
        with subprocess.Popen(serve, env={**os.environ, "DATABASE_URL": url}) as process:
            try:
                return process.wait()
            finally:
                process.terminate()


if __name__ == "__main__":
    sys.exit(main())
