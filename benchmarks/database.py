"""The database of a run: a copy of a register that is made once and kept."""

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
from app.db.embedded import EmbeddedPostgres
from benchmarks import load

HERE = Path(__file__).parent
DATA = HERE / ".data"
COPY = "benchmark"
PATIENTS_OF = """
    SELECT unique_id FROM patients
    WHERE $1::text[] IS NULL
    OR EXISTS (SELECT FROM patient_hospitals WHERE patient_id = unique_id AND hospital_id = ANY($1))
    ORDER BY unique_id
"""


@dataclass(frozen=True)
class Served:
    """A database, and the process of its server."""

    url: str
    postmaster: int


def register(patients: int) -> Path:
    """The directory of a register, which is made where there is none of this version."""
    parts = [HERE / f"{name}.py" for name in ("folding", "load", "names", "places", "register")]
    parts += sorted(Path(migrations.__file__).parent.glob("versions/*.py"))
    version = hashlib.sha256(b"".join(path.read_bytes() for path in parts)).hexdigest()[:8]
    directory = DATA / f"{patients}-{version}"
    if not directory.exists():
        # elsewhere first: who is interrupted leaves no half register behind
        new = directory.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        load.make(new, patients)
        new.rename(directory)
    return directory


@contextmanager
def served(directory: Path, options: Mapping[str, str]) -> Iterator[Served]:
    """A register itself, on a server with settings of its own, for those who only read."""
    with EmbeddedPostgres(directory, options=options) as server:
        pid = (directory / "postgres" / "postmaster.pid").read_text().split()[0]
        yield Served(server.url, int(pid))


@contextmanager
def copied(directory: Path, options: Mapping[str, str]) -> Iterator[Served]:
    """A copy of a register; dropped at the end, so that each run begins alike."""
    with served(directory, options) as original:
        parts = urlsplit(original.url)
        postgres, copy = (urlunsplit(parts._replace(path=f"/{name}")) for name in ("postgres", COPY))
        drop = f"DROP DATABASE IF EXISTS {COPY} WITH (FORCE)"
        asyncio.run(execute(postgres, drop, f"CREATE DATABASE {COPY} TEMPLATE patients STRATEGY file_copy"))
        yield Served(copy, original.postmaster)
        asyncio.run(execute(postgres, drop))


async def execute(url: str, *statements: str) -> None:
    """Execute statements, each a transaction of its own."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def rows(url: str, statement: str, *parameters: object) -> list[asyncpg.Record]:
    """What a statement finds."""

    async def fetch() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            return list(await connection.fetch(statement, *parameters))
        finally:
            await connection.close()

    return asyncio.run(fetch())


def ids(url: str, statement: str, *parameters: object) -> list[str]:
    """The ids that a statement finds."""
    return [unique_id for (unique_id,) in rows(url, statement, *parameters)]
