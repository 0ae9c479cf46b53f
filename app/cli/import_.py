"""`patients-api import`: import records from files."""

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

from sqlalchemy import text

from app.cli.database import DATABASE_ERRORS, run_on_database
from app.db.connection import Connection
from app.db.database import Database
from app.errors import ConflictError
from app.models import journal
from app.terminal.files import no_symlink_opener
from app.terminal.progress import ProgressDisplay, progress_bar
from app.terminal.signals import exit_on_sigterm
from app.terminal.text import pluralize
from app.transfer.exporting import FORMATS
from app.transfer.importing import ImportSummary, import_file
from app.transfer.layout import Layout
from app.transfer.reading import RecordFile, UnreadableFileError
from app.transfer.resources import RESOURCES
from app.transfer.staging import RowError, RowStatus

USER_ERRORS = (*DATABASE_ERRORS, ConflictError, UnreadableFileError)
MAX_SHOWN_ERRORS = 20
"""Maximum number of errors that are printed. With `--errors`, all errors are also written to a file."""
STANDARD_INPUT = "-"
_KEPT_INDEXES_REASON = (
    "That requires that this role owns the tables and may create schemas, and that no view, publication or setting of "
    "your own belongs to the tables."
)


class _RollbackError(Exception):
    """Raised to roll back the transaction of an import. It has no message, because the summary is printed instead."""


class _StoredState(StrEnum):
    """How much an interrupted import has stored. The value of each member is the text that the user sees."""

    NOTHING = "nothing was stored."
    UNKNOWN = "the import was just being committed. Check whether its records are there: either all are, or none."
    EVERYTHING = "all valid lines had already been stored."


class _InterruptionNotice:
    """A context manager that prints how much was stored if Ctrl-C or SIGTERM interrupts the import."""

    stored_state = _StoredState.NOTHING

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            print(f"Interrupted: {self.stored_state}", file=sys.stderr)


def run(arguments: argparse.Namespace) -> int:
    """Import all files in one transaction. Return 0, or 1 if any line was rejected."""
    exit_on_sigterm()
    files = list(_input_files(arguments.file, arguments.resource))
    with ExitStack() as stack:
        notice = stack.enter_context(_InterruptionNotice())
        error_report = _ErrorReport(
            _open_errors_file(arguments.errors, [path for _, path in files]) if arguments.errors else None
        )
        stack.callback(error_report.print_first)
        import_run = _ImportRun(error_report, stack.enter_context(progress_bar()))

        async def store(connection: Connection) -> None:
            for resource, path in files:
                await import_run.import_file(connection, resource, path, overwrite=arguments.update)
            error_report.close()  # before the commit, so that nothing is stored if the errors cannot be written
            if arguments.dry_run or (import_run.rejected and arguments.on_error == "stop"):
                raise _RollbackError
            notice.stored_state = _StoredState.UNKNOWN

        async def work(database: Database) -> None:
            # no retries, because data that was read from a pipe cannot be read again
            await database.transaction(store, max_attempts=1)
            notice.stored_state = _StoredState.EVERYTHING
            # ANALYZE invalidates the plans that other connections cached before the tables had these records;
            # PostgreSQL skips tables that the role may not analyze
            await database.write(text(f"ANALYZE {', '.join(_written_tables(files))}"), {})

        try:
            run_on_database(work)
            stored = True
        except _RollbackError:
            stored = False
    import_run.print_summary(stored=stored)
    return 1 if import_run.rejected else 0


def _written_tables(files: Iterable[tuple[str, str]]) -> set[str]:
    """Return the names of the tables that contain the imported records, their links and their journal entries."""
    repositories = [RESOURCES[resource].service_class.repository_class for resource, _ in files]
    links = {relation.link_table.name for repository in repositories for relation in repository.link_relations.values()}
    return {repository.table.name for repository in repositories} | links | {journal.name}


class _ImportRun:
    """An import of one or more files, with its progress display, error report and summary."""

    def __init__(self, error_report: "_ErrorReport", progress_display: ProgressDisplay) -> None:
        self._error_report = error_report
        self._progress_display = progress_display
        self._summaries: dict[str, ImportSummary] = {}

    @property
    def rejected(self) -> int:
        """Number of rejected lines in all files that have been imported."""
        return sum(summary.rejected for summary in self._summaries.values())

    async def import_file(self, connection: Connection, resource: str, path: str, *, overwrite: bool) -> None:
        """Import one file in the transaction of `connection`, and report the progress and the rejected lines."""
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
        """Print the number of lines per status for each file. `stored` says whether the transaction was committed."""
        for path, summary in self._summaries.items():
            status_counts = ", ".join(
                f"{summary.by_status[status]:,} {'' if stored else 'would be '}{status}" for status in RowStatus
            )
            print(
                f"{path}: {summary.lines:,} {pluralize(summary.lines, 'record')}: {status_counts}, "
                f"{summary.rejected:,} rejected"
            )
            if summary.kept_indexes:
                print(f"{path}: the indexes could not be built after the rows, which is slower. {_KEPT_INDEXES_REASON}")
        if stored:
            print("Stored, except for the rejected lines." if self.rejected else "Stored.")
        else:
            print(
                "Nothing was stored."
                + (" Correct the rejected lines, or skip them with --on-error skip." if self.rejected else "")
            )


def _input_files(path: str, resource: str | None) -> Iterator[tuple[str, str]]:
    """Yield the resource and the path of each file to import. `path` is a file, a directory or `-`.

    Files from a directory are ordered so that records are imported after the records that they refer to.
    """
    directory = Path(path)
    if path != STANDARD_INPUT and not directory.exists():
        raise UnreadableFileError(f"{path} cannot be read: there is no such file.")
    if path == STANDARD_INPUT or not directory.is_dir():
        name = directory.name.partition(".")[0]
        yield resource or (name if name in RESOURCES else "patients"), path
        return
    # files with other names are ignored, because a killed export or an editor may have left them
    names = {
        name: [f"{name}.{format_name}{suffix}" for format_name in FORMATS for suffix in ("", ".gz")]
        for name in RESOURCES
    }
    existing_files = [
        (name, str(directory / file)) for name in names for file in names[name] if (directory / file).is_file()
    ]
    if not existing_files:
        raise UnreadableFileError(
            f"{path} contains none of: {', '.join(f'{name}.csv' for name in RESOURCES)} (or .ndjson)."
        )
    if len(existing_files) > len(dict(existing_files)):
        raise UnreadableFileError(f"{path} has several files of one resource: import them one at a time.")
    yield from existing_files


@contextmanager
def _open_input(path: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open an input file, and yield it with its size in bytes. The size of standard input is None."""
    if path == STANDARD_INPUT:
        yield FileIO(0, closefd=False), None
        return
    try:
        file = Path(path).open("rb", buffering=0)  # noqa: SIM115  # closed below, outside of the handler for errors in opening it
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be read: {error.strerror}.") from None
    with file:
        yield file, os.fstat(file.fileno()).st_size


def _open_errors_file(path: Path, input_paths: Sequence[str]) -> TextIO:
    """Open the file to which all errors are written. The file must not be one of the input files."""
    if path.exists() and any(path.samefile(file) for file in input_paths if file != STANDARD_INPUT):
        raise UnreadableFileError(f"{path} is a file to be imported: write the errors to another file.")
    try:
        return open(path, "w", newline="", encoding="utf-8", opener=no_symlink_opener)  # Path.open has no opener
    except OSError as error:
        raise _unwritable_error(str(path), error) from None


def _unwritable_error(name: str, error: OSError) -> UnreadableFileError:
    return UnreadableFileError(f"{name} cannot be written: {error.strerror}. Nothing was stored.")


class _ErrorReport:
    """Keeps the first errors of an import for the terminal. Writes all errors to a CSV file if there is one."""

    def __init__(self, file: TextIO | None) -> None:
        self._count = 0
        self._first_messages: list[str] = []
        self._file = file
        self._write_rows([["file", "line", "field", "message", "type"]])

    def add(self, path: str, errors: Sequence[RowError]) -> None:
        """Add errors in the lines of the input file at `path`."""
        rows: list[list[object]] = [
            [path, line, ".".join(map(str, loc)), message, kind] for line, (loc, message, kind) in errors
        ]
        for _, line, field, message, _ in rows[: MAX_SHOWN_ERRORS - len(self._first_messages)]:
            self._first_messages.append(f"{path}: line {line}: {f'{field}: ' if field else ''}{message}")
        self._write_rows(rows)
        self._count += len(errors)

    def close(self) -> None:
        """Write the errors that are still buffered, and close the file if there is one."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                raise _unwritable_error(self._file.name, error) from None

    def print_first(self) -> None:
        """Print the first errors and the number of further errors. Call this after the progress display has ended."""
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
