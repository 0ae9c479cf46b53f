"""`patients-api import`: bring records in from files."""

import argparse
import csv
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Self, TextIO

from rich.progress import Progress
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.database import DATABASE_ERRORS, run_on_database
from app.cli.files import no_symlink_opener
from app.cli.progress import progress_bar
from app.cli.signals import exit_on_sigterm
from app.cli.text import pluralize
from app.db.database import Database
from app.errors import ConflictError
from app.models import journal
from app.transfer.exporting import FORMATS
from app.transfer.importing import ImportSummary, import_file
from app.transfer.layout import Layout
from app.transfer.reading import RecordFile, UnreadableFileError
from app.transfer.resources import RESOURCES
from app.transfer.staging import RowError, RowStatus

USER_ERRORS = (*DATABASE_ERRORS, ConflictError, UnreadableFileError)
MAX_SHOWN_ERRORS = 20
"""Errors on the terminal; `--errors` writes all."""
STANDARD_INPUT = "-"


class _RollbackError(Exception):
    """The transaction is to be undone; all that is to be said of it is known."""


class _StoredState(StrEnum):
    """What there is of an import that was interrupted."""

    NOTHING = "nothing was stored."
    UNKNOWN = "it was just being stored. Look whether it is there: all of it is, or nothing."
    EVERYTHING = "all that is right was stored before."


class _InterruptionNotice:
    """Says what is left where an import is interrupted."""

    stored_state = _StoredState.NOTHING

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            print(f"Interrupted: {self.stored_state}", file=sys.stderr)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="CSV or NDJSON, plain or gzip; - for standard input; or a directory that `export --directory` has made",
    )
    parser.add_argument(
        "--resource", choices=RESOURCES, help="what it holds (by the file's name, as doctors.csv; else patients)"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, store nothing")
    parser.add_argument("--errors", type=Path, metavar="CSV", help="write all errors into this file")
    parser.add_argument(
        "--on-error",
        choices=["stop", "skip"],
        default="stop",
        help="where lines are wrong, store nothing, or the others (%(default)s)",
    )
    parser.add_argument(
        "--update", action="store_true", help="change records that are there already; a blank cell clears its field"
    )


def run(arguments: argparse.Namespace) -> int:
    """Import all files in one transaction; 0, or 1 where lines are wrong."""
    exit_on_sigterm()
    files = list(_input_files(arguments.file, arguments.resource))
    with ExitStack() as stack:
        notice = stack.enter_context(_InterruptionNotice())
        error_report = _ErrorReport(
            _open_errors_file(arguments.errors, [path for _, path in files]) if arguments.errors else None
        )
        stack.callback(error_report.print_first)
        import_run = _ImportRun(error_report, stack.enter_context(progress_bar()))

        async def store(connection: AsyncConnection) -> None:
            for resource, path in files:
                await import_run.import_file(connection, resource, path, overwrite=arguments.update)
            error_report.close()  # before anything is stored: where it cannot be written nothing is
            if arguments.dry_run or (import_run.rejected and arguments.on_error == "stop"):
                raise _RollbackError
            notice.stored_state = _StoredState.UNKNOWN

        async def work(database: Database) -> None:
            # once: what was read from a pipe cannot be read again
            await database.transaction(store, max_attempts=1)
            notice.stored_state = _StoredState.EVERYTHING
            # what others have planned was for tables without these records; PostgreSQL ignores it of who may not
            await database.write(text(f"ANALYZE {', '.join(_written_tables(files))}"), {})

        try:
            run_on_database(work)
            stored = True
        except _RollbackError:
            stored = False
    import_run.print_summary(stored=stored)
    return 1 if import_run.rejected else 0


def _written_tables(files: Iterable[tuple[str, str]]) -> set[str]:
    """The tables that are written."""
    repositories = [RESOURCES[resource].service_class.repository_class for resource, _ in files]
    links = {relation.link_table.name for repository in repositories for relation in repository.link_relations.values()}
    return {repository.table.name for repository in repositories} | links | {journal.name}


class _ImportRun:
    """An import, as a person sees it."""

    def __init__(self, error_report: "_ErrorReport", progress_display: Progress) -> None:
        self._error_report = error_report
        self._progress_display = progress_display
        self._summaries: dict[str, ImportSummary] = {}

    @property
    def rejected(self) -> int:
        """How many lines are wrong."""
        return sum(tally.rejected for tally in self._summaries.values())

    async def import_file(self, connection: AsyncConnection, resource: str, path: str, *, overwrite: bool) -> None:
        """Import one file."""
        layout = Layout(RESOURCES[resource].service_class.repository_class)
        with _open_input(path) as (file, size):
            task = self._progress_display.add_task(resource, total=size, records=0)

            def report_progress(summary: ImportSummary, errors: Sequence[RowError], bytes_read: int) -> None:
                self._progress_display.update(task, completed=bytes_read, records=summary.lines)
                self._error_report.add(path, errors)

            try:
                self._summaries[path] = await import_file(
                    connection, resource, RecordFile(file, layout), report_progress, overwrite=overwrite
                )
            except UnreadableFileError as error:
                raise UnreadableFileError(f"{path}: {error} Nothing was stored.") from None

    def print_summary(self, *, stored: bool) -> None:
        """Say what has become of it."""
        for path, summary in self._summaries.items():
            status_counts = ", ".join(
                f"{summary.by_status[fate]:,} {'' if stored else 'to be '}{fate}" for fate in RowStatus
            )
            print(
                f"{path}: {summary.lines:,} {pluralize(summary.lines, 'record')}: {status_counts}, "
                f"{summary.rejected:,} wrong"
            )
        if stored:
            print("Stored, but for what is wrong." if self.rejected else "Stored.")
        else:
            print(
                "Nothing was stored." + (" Mend what is wrong, or skip it by --on-error skip." if self.rejected else "")
            )


def _input_files(path: str, resource: str | None) -> Iterator[tuple[str, str]]:
    """The files to import, each with what it holds, in the order in which they refer to each other."""
    directory = Path(path)
    if path != STANDARD_INPUT and not directory.exists():
        raise UnreadableFileError(f"{path} cannot be read: there is no such file.")
    if path == STANDARD_INPUT or not directory.is_dir():
        name = directory.name.partition(".")[0]
        yield resource or (name if name in RESOURCES else "patients"), path
        return
    # nothing else that may lie about: what a killed export has left, or an editor
    names = {name: [f"{name}.{form}{packed}" for form in FORMATS for packed in ("", ".gz")] for name in RESOURCES}
    existing_files = [
        (name, str(directory / file)) for name in names for file in names[name] if (directory / file).is_file()
    ]
    if not existing_files:
        raise UnreadableFileError(f"{path} has none of: {', '.join(f'{name}.csv' for name in RESOURCES)} (or .ndjson).")
    if len(existing_files) > len(dict(existing_files)):
        raise UnreadableFileError(f"{path} has several files of one resource: import them one by one.")
    yield from existing_files


@contextmanager
def _open_input(path: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """A file, and how many bytes it has, if that is known."""
    if path == STANDARD_INPUT:
        yield FileIO(0, closefd=False), None
        return
    try:
        file = Path(path).open("rb", buffering=0)  # noqa: SIM115  # closed below, where errors are not of opening it
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be read: {error.strerror}.") from None
    with file:
        yield file, os.fstat(file.fileno()).st_size


def _open_errors_file(path: Path, input_paths: Sequence[str]) -> TextIO:
    """The file for errors; none of those that are imported."""
    if path.exists() and any(path.samefile(file) for file in input_paths if file != STANDARD_INPUT):
        raise UnreadableFileError(f"{path} is to be imported: write the errors into another file.")
    try:
        return open(path, "w", newline="", encoding="utf-8", opener=no_symlink_opener)  # Path's has no opener
    except OSError as error:
        raise _unwritable_error(str(path), error) from None


def _unwritable_error(name: str, error: OSError) -> UnreadableFileError:
    return UnreadableFileError(f"{name} cannot be written: {error.strerror}. Nothing was stored.")


class _ErrorReport:
    """Keeps the first errors for the terminal, and writes all of them where that is wanted."""

    def __init__(self, file: TextIO | None) -> None:
        self._count = 0
        self._first_messages: list[str] = []
        self._file = file
        self._write_rows([["file", "line", "field", "message", "type"]])

    def add(self, path: str, errors: Sequence[RowError]) -> None:
        """Take the errors of a file."""
        rows: list[list[object]] = [
            [path, line, ".".join(map(str, loc)), message, kind] for line, (loc, message, kind) in errors
        ]
        for _, line, field, message, _ in rows[: MAX_SHOWN_ERRORS - len(self._first_messages)]:
            self._first_messages.append(f"{path}: line {line}: {f'{field}: ' if field else ''}{message}")
        self._write_rows(rows)
        self._count += len(errors)

    def close(self) -> None:
        """Write what is not written yet."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                raise _unwritable_error(self._file.name, error) from None

    def print_first(self) -> None:
        """Show the first ones, when no progress is shown any more."""
        for line in self._first_messages:
            print(line, file=sys.stderr)
        if self._count > len(self._first_messages):
            hint = "" if self._file is not None else "; --errors FILE lists them all"
            more = self._count - len(self._first_messages)
            print(f"… and {more:,} more {pluralize(more, 'error')}{hint}.", file=sys.stderr)

    def _write_rows(self, rows: list[list[object]]) -> None:
        if self._file is not None:
            try:
                csv.writer(self._file).writerows(rows)
            except OSError as error:
                raise _unwritable_error(self._file.name, error) from None
