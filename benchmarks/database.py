"""The database of a run: a copy of a register that is created once and kept."""

import asyncio
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

import migrations
from app.embedded.server import EmbeddedPostgres
from benchmarks import load

BENCHMARKS_DIRECTORY = Path(__file__).parent
DATA_DIRECTORY = BENCHMARKS_DIRECTORY / ".data"
COPY_DATABASE_NAME = "benchmark"
SELECT_PATIENT_IDS = """
    SELECT unique_id FROM patients
    WHERE $1::text[] IS NULL
    OR EXISTS (SELECT FROM patient_hospitals WHERE patient_id = unique_id AND hospital_id = ANY($1))
    ORDER BY unique_id
"""


@dataclass(frozen=True)
class DatabaseServer:
    """A database, and the process of its server."""

    url: str
    postmaster_pid: int


def ensure_register(patient_count: int) -> Path:
    """Return the directory of a register, after creating it if there is none of this version."""
    source_files = [BENCHMARKS_DIRECTORY / f"{name}.py" for name in ("folding", "load", "names", "towns", "register")]
    source_files += sorted(Path(migrations.__file__).parent.glob("versions/*.py"))
    version = hashlib.sha256(b"".join(path.read_bytes() for path in source_files)).hexdigest()[:8]
    directory = DATA_DIRECTORY / f"{patient_count}-{version}"
    if not directory.exists():
        # in another directory first, so that an interruption leaves no partial register behind
        temporary = directory.with_suffix(".new")
        shutil.rmtree(temporary, ignore_errors=True)
        load.make_register(temporary, patient_count)
        temporary.rename(directory)
    return directory


@contextmanager
def register_server(directory: Path, options: Mapping[str, str]) -> Iterator[DatabaseServer]:
    """Run a server with the given settings on a register itself, for benchmarks that only read."""
    with EmbeddedPostgres(directory, options=options) as server:
        pid = (directory / "postgres" / "postmaster.pid").read_text().split()[0]
        yield DatabaseServer(server.url, int(pid))


@contextmanager
def register_copy_server(directory: Path, options: Mapping[str, str]) -> Iterator[DatabaseServer]:
    """Run a server on a copy of a register that is dropped at the end, so that each run starts alike."""
    with register_server(directory, options) as original:
        parts = urlsplit(original.url)
        postgres_url, copy_url = (
            urlunsplit(parts._replace(path=f"/{name}")) for name in ("postgres", COPY_DATABASE_NAME)
        )
        drop_statement = f"DROP DATABASE IF EXISTS {COPY_DATABASE_NAME} WITH (FORCE)"
        asyncio.run(
            execute(
                postgres_url,
                drop_statement,
                f"CREATE DATABASE {COPY_DATABASE_NAME} TEMPLATE patients STRATEGY file_copy",
            )
        )
        yield DatabaseServer(copy_url, original.postmaster_pid)
        asyncio.run(execute(postgres_url, drop_statement))


async def execute(url: str, *statements: str) -> None:
    """Execute statements, each in its own transaction."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def fetch_rows(url: str, statement: str, *parameters: object) -> list[asyncpg.Record]:
    """Return the rows of a statement."""

    async def fetch() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            return list(await connection.fetch(statement, *parameters))
        finally:
            await connection.close()

    return asyncio.run(fetch())


def fetch_ids(url: str, statement: str, *parameters: object) -> list[str]:
    """Return the ids that a statement selects."""
    return [unique_id for (unique_id,) in fetch_rows(url, statement, *parameters)]
