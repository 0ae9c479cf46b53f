"""`patients-api import`: import records from files."""

import argparse
import asyncio
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Self

from sqlalchemy import text

from app.cli.database import DATABASE_ERRORS, run_on_database
from app.counts import counted
from app.db.connection import Connection
from app.db.database import Database
from app.db.schema_version import LockTimeoutError, MigrationFailedError
from app.errors import ConflictError
from app.files.error_report import ErrorReport, open_errors_file
from app.files.input_files import input_files, naming_file, open_input
from app.models import journal
from app.registers.inspection import Inspection
from app.registers.options import TableOptions, check_encoding, parse_date_orders, parse_mapping
from app.staging.duplicates import DuplicatePolicy
from app.staging.results import RowError, RowStatus
from app.table_files.errors import UnreadableFileError
from app.terminal.progress import ProgressDisplay, progress_bar
from app.terminal.signals import exit_on_sigterm
from app.transfer.importing import ImportOptions, ImportSummary, import_file
from app.transfer.layout import Layout
from app.transfer.reading import RecordFile
from app.transfer.resources import RESOURCES

USER_ERRORS = (*DATABASE_ERRORS, ConflictError, LockTimeoutError, MigrationFailedError, UnreadableFileError)
ANALYZE_CONNECTIONS = 2
"""Number of connections that analyze tables at the end. PostgreSQL analyzes each table with one process."""
_KEPT_INDEXES_REASON = (
    "That requires that this role owns the tables and may create schemas, and that no view, publication or setting of "
    "your own belongs to the tables."
)


class _RollbackError(Exception):
    """Raised to roll back the transaction of an import. It has no message, because the summary is printed instead."""


class _StoredState(StrEnum):
    """How much an import has stored that has not ended. The value of each member is the text that the user sees."""

    NOTHING = "nothing was stored."
    UNKNOWN = "the import was just being committed. Check whether its records are there: either all are, or none."
    EVERYTHING = "all valid lines had already been stored."


class _StoredNotice:
    """A context manager that prints how much was stored if Ctrl-C or SIGTERM interrupts the import, or if it fails
    although something may have been stored.
    """

    stored_state = _StoredState.NOTHING

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            print(f"Interrupted: {self.stored_state}", file=sys.stderr)
        elif error is not None and self.stored_state is not _StoredState.NOTHING:
            print(f"The import failed at its end: {self.stored_state}", file=sys.stderr)


def run(arguments: argparse.Namespace) -> int:
    """Import all files in one transaction. Return 0, or 1 if any line was rejected or there were no records."""
    exit_on_sigterm()
    files = list(input_files(arguments.file, arguments.resource))
    tables = table_options(arguments)
    if len(files) > 1 and (arguments.inspect or tables.is_given):
        raise UnreadableFileError("Options for tables apply to one file: import the files of the directory one by one.")
    if arguments.inspect:
        return _inspect(*files[0], tables, arguments.save)
    if arguments.save:
        raise UnreadableFileError("Only --inspect writes a mapping file: specify --inspect with --save.")
    options = import_options(arguments)
    with ExitStack() as stack:
        notice = stack.enter_context(_StoredNotice())
        error_report = ErrorReport(
            open_errors_file(arguments.errors, [path for _, path in files]) if arguments.errors else None
        )
        stack.callback(_print_first, error_report)
        import_run = _ImportRun(error_report, stack.enter_context(progress_bar()))

        async def store(connection: Connection) -> None:
            for resource, path in files:
                await import_run.import_file(connection, resource, path, tables, options)
            error_report.close()  # before the commit, so that nothing is stored if the errors cannot be written
            if not options.stores(import_run.rejected):
                raise _RollbackError
            notice.stored_state = _StoredState.UNKNOWN

        async def work(database: Database) -> None:
            # no retries, because data that was read from a pipe cannot be read again
            await database.transaction(store, max_attempts=1)
            notice.stored_state = _StoredState.EVERYTHING
            await _analyze(database, _written_tables(files))

        try:
            run_on_database(work, pool_size=ANALYZE_CONNECTIONS, creates=True)
            stored = True
        except _RollbackError:
            stored = False
    import_run.print_summary(stored=stored)
    return 1 if import_run.rejected or import_run.is_empty else 0


def import_options(arguments: argparse.Namespace) -> ImportOptions:
    """Return the options in the arguments that concern the records."""
    return ImportOptions(
        overwrite=arguments.update,
        allow_other_person=arguments.allow_other_person,
        drop_bad_values=arguments.drop_bad_values,
        id_prefix=arguments.id_prefix or "",
        link_names=arguments.hospitals_by_name or arguments.create_hospitals,
        create_links=arguments.create_hospitals,
        duplicates=DuplicatePolicy(arguments.duplicates),
        dry_run=arguments.dry_run,
        skip_rejected=arguments.on_error == "skip",
    )


def table_options(arguments: argparse.Namespace) -> TableOptions:
    """Return what the arguments say about the table.

    Raises:
        UnreadableFileError: the mapping file cannot be read, or an argument has no meaning.
    """
    mapping = {}
    if arguments.map:
        try:
            mapping = parse_mapping(arguments.map.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise UnreadableFileError(f"{arguments.map} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise UnreadableFileError(f"{arguments.map} is not in UTF-8: save it as UTF-8.") from None
    return TableOptions(
        mapping={**mapping, **dict.fromkeys(arguments.ignore, ())},
        date_orders=parse_date_orders(arguments.date_format),
        null_words=tuple(arguments.null),
        sheet=arguments.sheet,
        link_names=arguments.hospitals_by_name or arguments.create_hospitals,
        encoding=arguments.encoding and check_encoding(arguments.encoding),
    )


def _inspect(resource: str, path: str, options: TableOptions, save_path: Path | None) -> int:
    """Print what the columns of a file are taken for, and write a mapping file if `save_path` is given. Return 0."""
    with open_input(path) as (file, _), naming_file(path):
        layout = Layout(RESOURCES[resource].service_class.repository_class)
        inspection = Inspection(RecordFile(file, layout, resource, options).register())
    for line in inspection.report():
        print(line)
    mapping = "".join(f"{line}\n" for line in inspection.mapping())
    print(f"\nA mapping file for --map:\n{mapping}", end="")
    if save_path is not None:
        try:
            with save_path.open("x", encoding="utf-8") as file_to_save:
                file_to_save.write(mapping)
        except FileExistsError:
            raise UnreadableFileError(f"{save_path} exists already: choose another name with --save.") from None
        except OSError as error:
            raise UnreadableFileError(f"{save_path} cannot be written: {error.strerror}.") from None
        print(f"Saved to {save_path}: edit it, then import with --map {save_path}.")
    return 0


def _print_first(error_report: ErrorReport) -> None:
    """Print the first errors. Call this after the progress display has ended."""
    for message in error_report.first_messages():
        print(message, file=sys.stderr)


def _written_tables(files: Iterable[tuple[str, str]]) -> list[str]:
    """Return the names of the tables that contain the imported records, their links and their journal entries.

    Those that take longest to analyze come first.
    """
    repositories = [RESOURCES[resource].service_class.repository_class for resource, _ in files]
    links = [relation.link_table.name for repository in repositories for relation in repository.link_relations.values()]
    return [journal.name, *(repository.table.name for repository in repositories), *links]


async def _analyze(database: Database, names: Iterable[str]) -> None:
    """Analyze tables, which invalidates the plans that other connections cached before the tables had these records.

    PostgreSQL skips tables that the role may not analyze.
    """
    remaining_names = iter(names)

    async def analyze_remaining() -> None:
        for name in remaining_names:
            await database.write(text(f"ANALYZE {name}"), {})

    # no more at a time than there are connections, because waiting for one of the pool counts as an overload
    await asyncio.gather(*(analyze_remaining() for _ in range(ANALYZE_CONNECTIONS)))


class _ImportRun:
    """An import of one or more files, with its progress display, error report and summary."""

    def __init__(self, error_report: ErrorReport, progress_display: ProgressDisplay) -> None:
        self._error_report = error_report
        self._progress_display = progress_display
        self._summaries: dict[str, ImportSummary] = {}

    @property
    def rejected(self) -> int:
        """Number of rejected lines in all files that have been imported."""
        return sum(summary.rejected for summary in self._summaries.values())

    @property
    def is_empty(self) -> bool:
        """Whether there were no records at all."""
        return not any(summary.lines for summary in self._summaries.values())

    async def import_file(
        self, connection: Connection, resource: str, path: str, table_options: TableOptions, options: ImportOptions
    ) -> None:
        """Import one file in the transaction of `connection`, and report the progress and the rejected lines."""
        layout = Layout(RESOURCES[resource].service_class.repository_class)
        with open_input(path) as (file, size):
            task = self._progress_display.add_task(resource, total=size, records=0)

            def report_progress(summary: ImportSummary, errors: Sequence[RowError], bytes_read: int) -> None:
                self._progress_display.update(task, completed=bytes_read, records=summary.lines)
                self._error_report.add(path, errors)

            with naming_file(path):
                record_file = RecordFile(file, layout, resource, table_options)
                self._summaries[path] = await import_file(connection, resource, record_file, report_progress, options)

    def print_summary(self, *, stored: bool) -> None:
        """Print the number of lines per status for each file. `stored` says whether the transaction was committed."""
        for path, summary in self._summaries.items():
            if not summary.lines:
                print(f"{path}: the file has no records.")
                continue
            status_counts = ", ".join(
                f"{summary.by_status[status]:,} {'' if stored else 'would be '}{status}" for status in RowStatus
            )
            print(f"{path}: {counted(summary.lines, 'record')}: {status_counts}, {summary.rejected:,} rejected")
            if summary.created_links:
                created = " and ".join(counted(count, noun) for noun, count in sorted(summary.created_links.items()))
                was = "was" if summary.created_links.total() == 1 else "were"
                print(f"{path}: {created} {was if stored else 'would be'} created by name.")
            if summary.remarks:
                print(f"{path}: {counted(summary.remarks, 'remark')} on lines that are not rejected.")
            if summary.kept_indexes:
                print(f"{path}: the indexes could not be built after the rows, which is slower. {_KEPT_INDEXES_REASON}")
        if stored and not self.is_empty:
            print("Stored, except for the rejected lines." if self.rejected else "Stored.")
        else:
            print(
                "Nothing was stored."
                + (" Correct the rejected lines, or skip them with --on-error skip." if self.rejected else "")
            )
