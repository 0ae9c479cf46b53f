"""Load a register into an embedded PostgreSQL: `python -m benchmarks.load --patients 1000000 DIRECTORY`.

The service can then run on it: `PATIENTS_DATA_DIR=DIRECTORY patients-api serve`, or `journal verify`.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import asyncpg
from sqlalchemy import func, insert, literal_column, select, text

from app.cli.journal import JOURNALED_SERVICES
from app.db.connection import Connection
from app.db.database import Database
from app.db.migrate import migrate
from app.embedded.server import EmbeddedPostgres
from app.models import journal
from app.records.repository import Repository
from app.statements.journal_entries import record_snapshot
from benchmarks.register import (
    REGISTER_START,
    Patient,
    Profile,
    RegisteredPatient,
    doctor_names,
    generate_patients,
    hospital_names,
)

LOAD_BATCH_SIZE = 10_000
FAST_LOAD_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "8GB"}
"""Server settings for loading, which need no durability: an interrupted load starts over."""
INSERT_NAME_WORDS = (
    "INSERT INTO name_words (word) SELECT DISTINCT unnest(tsvector_to_array(patient_search)) FROM patients",
    """
    INSERT INTO hospital_words (hospital_id, word)
    SELECT DISTINCT hospital_id, word
    FROM patients JOIN patient_hospitals ON patient_id = unique_id, unnest(tsvector_to_array(patient_search)) AS word
    WHERE char_length(word) > 2
    """,
)

RowValues = Sequence[str | None]


async def _copy_rows(
    connection: asyncpg.Connection, table: str, columns: Sequence[str], rows: Iterable[RowValues]
) -> None:
    """Copy rows in PostgreSQL's text format; no value of a register contains a character that needs escaping."""

    async def lines() -> AsyncIterator[bytes]:
        text = "".join(["\t".join(["\\N" if value is None else value for value in row]) + "\n" for row in rows])
        yield text.encode()

    await connection.copy_to_table(table, source=lines(), columns=columns)


def _batches(count: int, seed: int) -> Iterator[list[RegisteredPatient]]:
    generated = generate_patients(count, seed)
    while batch := list(islice(generated, LOAD_BATCH_SIZE)):
        yield batch


async def _copy_register(connection: asyncpg.Connection, count: int, seed: int) -> None:
    opening_dates = (REGISTER_START.isoformat(),) * 2
    dates = ("date_created", "last_updated")
    hospital_rows = [(unique_id, name, *opening_dates) for unique_id, name in hospital_names().items()]
    await _copy_rows(connection, "hospitals", ("unique_id", "hospital_name", *dates), hospital_rows)
    doctor_rows = [(unique_id, *names, *opening_dates) for unique_id, names in doctor_names().items()]
    await _copy_rows(connection, "doctors", ("unique_id", "doctor_first_name", "doctor_last_name", *dates), doctor_rows)
    for batch in _batches(count, seed):
        profiles = [registered.profile for registered in batch if registered.profile is not None]
        await _copy_rows(connection, "profiles", Profile._fields, profiles)
        await _copy_rows(connection, "patients", Patient._fields, [registered.patient for registered in batch])
        for name in ("hospital", "doctor"):
            links = [
                (registered.patient.unique_id, key)
                for registered in batch
                for key in (registered.hospital_ids if name == "hospital" else registered.doctor_ids)
            ]
            await _copy_rows(connection, f"patient_{name}s", ("patient_id", f"{name}_id"), links)


async def _write_journal(connection: Connection, repository: type[Repository]) -> None:
    """Insert the first entry of each record, as the service does when it creates one."""
    table = repository.table
    row = table.c
    values = {
        "resource": literal_column(f"'{table.name}'"),
        "unique_id": row.unique_id,
        "version": row.version,
        "action": literal_column("'created'"),
        "time": row.last_updated,
        "actor": literal_column("'register'"),
        "record": record_snapshot(table, table, repository.link_relations),
    }
    entries = select(*values.values()).order_by(row.unique_id)
    await connection.execute(insert(journal).from_select(list(values), entries))


async def load_register(url: str, count: int, seed: int = 1) -> None:
    """Fill a migrated, empty database in one transaction; `url` must name a superuser."""

    async def work(connection: Connection) -> None:
        # foreign keys hold by construction, and checking them row by row would double the time
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await _copy_register(connection.driver, count, seed)
        for statement in INSERT_NAME_WORDS:  # in place of the triggers, which are off
            await connection.execute(text(statement))
        await connection.execute(text("SET LOCAL session_replication_role = origin"))  # a trigger chains the journal
        for service in JOURNALED_SERVICES:
            await _write_journal(connection, service.repository_class)

    async with Database(url, pool_size=1, with_timeouts=False) as database:
        await database.transaction(work)
        async with database.read() as connection:
            await connection.execute(text("VACUUM ANALYZE"))


async def count_patients(url: str) -> int:
    """Return the number of patients in a migrated database."""
    async with Database(url, pool_size=1, with_timeouts=False) as database, database.read() as connection:
        return int((await connection.execute(select(func.count()).select_from(text("patients")))).scalar_one())


def make_register(directory: Path, count: int, seed: int = 1) -> None:
    """Create a register of `count` patients in the embedded PostgreSQL of a directory, if it has none yet."""
    directory.mkdir(parents=True, exist_ok=True)
    with EmbeddedPostgres(directory, options=FAST_LOAD_SETTINGS) as server:
        migrate(server.url)
        if asyncio.run(count_patients(server.url)) == 0:
            asyncio.run(load_register(server.url, count, seed))


def main() -> None:
    """Load the register that the command line describes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, help="of the embedded PostgreSQL; created if missing")
    parser.add_argument("--patients", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1, help="each seed gives a different register")
    arguments = parser.parse_args()
    started = time.monotonic()
    make_register(arguments.directory, arguments.patients, arguments.seed)
    print(f"{arguments.patients:,} patients in {arguments.directory}after {time.monotonic() - started:.0f} seconds")


if __name__ == "__main__":
    main()
