"""`patients-api restore-check`: restore a dump into a temporary embedded PostgreSQL, and verify it there."""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import func, literal, select, union_all

from app.checks import missing_tables
from app.cli import journal
from app.cli.database import DATABASE_ERRORS
from app.counts import counted
from app.db.base import Base
from app.db.database import Database
from app.db.migrate import migrate
from app.db.schema_version import REVISIONS, LockTimeoutError, MigrationFailedError, is_newer, read_revisions
from app.embedded.server import EmbeddedPostgres
from app.embedded.watchdog import find_binaries_dir
from app.models import journal as journal_table
from app.terminal.signals import exit_on_sigterm

NON_DURABLE_SERVER_OPTIONS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""PostgreSQL settings that make a restore faster. The temporary database is removed, so it need not be durable."""


class RestoreFailedError(Exception):
    """The dump cannot be restored, or is not of this service. The message says what is wrong."""


USER_ERRORS = (*DATABASE_ERRORS, LockTimeoutError, MigrationFailedError, RestoreFailedError)


def run(arguments: argparse.Namespace) -> int:
    """Restore and verify the dump, and print the result. Return 0, or 1 if the journal does not match the records.

    Raises:
        EmbeddedPostgresError: the temporary server cannot run.
        MigrationFailedError: the schema of the dump is older, and cannot be upgraded.
        RestoreFailedError: the dump cannot be restored, or contains no database of this service.
    """
    exit_on_sigterm()
    started_at = time.monotonic()
    # PostgreSQL's temporary server gets a directory of its own in TMPDIR
    with (
        tempfile.TemporaryDirectory(prefix="patients-restore-") as directory,
        EmbeddedPostgres(Path(directory), options=NON_DURABLE_SERVER_OPTIONS) as server,
    ):
        _restore(arguments.dump, server.url)
        print(f"Restored in {time.monotonic() - started_at:.0f} s.")
        _upgrade(server.url)
        is_valid = asyncio.run(_verify(server.url))
    print(f"The check took {time.monotonic() - started_at:.0f} s.")
    return 0 if is_valid else 1


def _restore(dump: str, url: str) -> None:
    """Run pg_restore.

    Raises:
        RestoreFailedError: pg_restore fails, for example because the dump is not complete.
    """
    program = str(find_binaries_dir() / "pg_restore")
    command = [program, "--exit-on-error", "--no-owner", "--no-privileges", "--dbname", url]
    completed = subprocess.run(  # noqa: S603  # PostgreSQL's own program, and a file that the operator names
        [*command, *([] if dump == "-" else ["--", dump])],
        check=False,
        stdin=sys.stdin if dump == "-" else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("PG")},  # such as PGOPTIONS
    )
    if completed.returncode == 0:
        return
    lines = [line for line in completed.stderr.splitlines() if line.startswith("pg_restore: error: ")]
    # an error message of PostgreSQL may quote data of the dump
    reason = lines[0].removeprefix("pg_restore: error: ").partition("ERROR:")[0].strip(" :") if lines else "no reason"
    raise RestoreFailedError(
        f"The dump cannot be restored ({reason}). Name a complete file of `pg_dump --format custom`, and keep older "
        "dumps until one passes."
    )


def _upgrade(url: str) -> None:
    """Upgrade the schema of the restored database to this version, and print its revision.

    Raises:
        RestoreFailedError: the database is not one of this service.
    """
    revisions = asyncio.run(_read_revisions(url))
    if not revisions:
        raise RestoreFailedError("The dump is not of this service: it has no table alembic_version.")
    if is_newer(revisions[0]):
        print(f"Schema: revision {revisions[0]}, of a newer version than this one.")
    elif revisions[0] not in REVISIONS:
        raise RestoreFailedError(f"The dump is not of this service: its table alembic_version has {revisions[0]}.")
    elif applied := migrate(url):
        print(f"Schema: revision {revisions[0]}; {counted(len(applied), 'newer revision')} applied.")
    else:
        print(f"Schema: revision {revisions[0]}, the newest of this version.")


async def _read_revisions(url: str) -> list[str]:
    async with Database(url, pool_size=1, with_timeouts=False) as database, database.read() as connection:
        return await read_revisions(connection)


_COUNT_ROWS = union_all(
    *(select(literal(table.name), func.count()).select_from(table) for table in Base.metadata.sorted_tables)
)
_SELECT_NEWEST_TIME = select(func.max(journal_table.c.time))


async def _verify(url: str) -> bool:
    """Print what the restored database contains, and return whether its journal is valid.

    Raises:
        RestoreFailedError: a table is missing.
    """
    async with Database(url, pool_size=1, with_timeouts=False) as database:
        async with database.read() as connection:
            if missing := await missing_tables(connection):
                raise RestoreFailedError(
                    f"The dump is not of a whole database: it lacks the tables {', '.join(missing)}. Leave out options "
                    "of pg_dump such as --table and --exclude-table."
                )
            counts = (await connection.execute(_COUNT_ROWS)).tuples().all()
            newest_time = (await connection.execute(_SELECT_NEWEST_TIME)).scalar_one()
        print(f"Rows: {', '.join(f'{name} {count:,}' for name, count in sorted(counts))}.")
        print(f"Newest journal entry: {newest_time.isoformat() if newest_time else 'none'}.")
        return journal.print_report(await journal.verify(database))
