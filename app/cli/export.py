"""`patients-api export`: write records to files."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack, aclosing
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from app.audit.recorder import AUDITED_RESOURCES, AuditRecorder, command_row
from app.changes.cursors import newest_cursor
from app.changes.reading import ChangeFeed
from app.cli.database import DATABASE_ERRORS, run_on_database, standby_url
from app.counts import counted
from app.db.database import Database
from app.files.output_files import UnwritableFileError, make_directory, open_output
from app.http.field_errors import field_errors
from app.listing.cursors import Cursors
from app.listing.page import Page
from app.listing.pagination import NON_FILTER_PARAMETERS, ListParameters
from app.listing.query import ListQuery
from app.locality import Locality
from app.settings import Settings
from app.terminal.progress import progress_bar
from app.terminal.signals import exit_on_sigterm
from app.transfer.exporting import EXPORT_PRINCIPAL, FORMATS, ExcelCsvFormat, Export
from app.transfer.layout import Layout
from app.transfer.resources import PATIENTS_WITH_IDENTIFIERS, RESOURCES, TransferableResource

READING_CONNECTIONS = 2
"""Number of connections that read pages concurrently. PostgreSQL needs more time for a page than writing it takes."""


class CannotExportError(Exception):
    """A filter or an output file cannot be used. The message says what to change."""


USER_ERRORS = (*DATABASE_ERRORS, CannotExportError, UnwritableFileError)


def run(arguments: argparse.Namespace) -> int:
    """Export the records of one or all resources from one snapshot of the database, and return 0."""
    settings = Settings.load()
    exit_on_sigterm()  # so that SIGTERM leaves no incomplete files
    source_url = standby_url(settings) if arguments.from_standby else None
    format_name: str = arguments.format or ("csv" if arguments.excel else _format_of_file(arguments.output))
    if arguments.excel and format_name != "csv":
        raise CannotExportError("Excel opens CSV: do not combine --excel with --format ndjson.")
    format_class = ExcelCsvFormat if arguments.excel else FORMATS[format_name]
    resource_names = list(RESOURCES) if arguments.directory else [arguments.resource]
    if arguments.directory and arguments.filter:
        raise CannotExportError("A filter applies to one resource: do not combine --filter with --directory.")
    query = _query(arguments, settings.locality)
    resources = _resources(arguments)
    counts: dict[str, int] = {}
    cursor = ""
    if arguments.directory:
        make_directory(arguments.directory)
    with ExitStack() as stack:
        is_to_terminal = not (arguments.directory or arguments.output) and sys.stdout.isatty()
        progress_display = stack.enter_context(progress_bar(hidden=is_to_terminal))
        files = {
            name: stack.enter_context(open_output(_destination(arguments, name, format_name)))
            for name in resource_names
        }

        async def work(database: Database) -> None:
            nonlocal cursor
            recorder = AuditRecorder(database)

            async def record(name: str, page: Page) -> None:
                await recorder.write(command_row(EXPORT_PRINCIPAL, name, page.ids))

            async with AsyncExitStack() as databases:
                source = database
                if source_url is not None:
                    standby = Database(source_url, pool_size=READING_CONNECTIONS, with_timeouts=False)
                    source = await databases.enter_async_context(standby)
                cursor = await newest_cursor(ChangeFeed(source), Cursors(source), None)
                connections = await databases.enter_async_context(source.snapshots(READING_CONNECTIONS))
                for name, file in files.items():
                    # recorded in the audit before the records are written to the file
                    record_in_audit = partial(record, name) if name in AUDITED_RESOURCES else None
                    export = Export(connections, resources[name], query, record_in_audit)
                    repository = resources[name].service_class.repository_class
                    record_format = format_class(Layout(repository, gone=query.gone))
                    task = progress_display.add_task(name, total=await export.count(), records=0)
                    file.write(record_format.header)
                    counts[name] = 0
                    async with aclosing(export.batches()) as batches:
                        async for page in batches:
                            file.write(record_format.render(page))
                            counts[name] += len(page)
                            progress_display.update(task, completed=counts[name], records=counts[name])

        # the audit rows are written on another connection, because the snapshot is read-only
        run_on_database(work, pool_size=READING_CONNECTIONS + 1)
    for name, count in counts.items():
        print(
            f"{_destination(arguments, name, format_name) or name}: {counted(count, 'record')}",
            file=sys.stderr,
        )
    print(f"Changes-Cursor: {cursor}", file=sys.stderr)
    return 0


def _query(arguments: argparse.Namespace, locality: Locality) -> ListQuery:
    """Return the query for the records to export."""
    if not arguments.merged:
        return _list_query(RESOURCES[arguments.resource].parameters_model, arguments.filter, locality)
    if arguments.filter or arguments.directory or arguments.resource != "patients":
        raise CannotExportError("Only patients are merged: use --merged without --filter, --directory and --resource.")
    return ListQuery(gone="merged")


def _resources(arguments: argparse.Namespace) -> Mapping[str, TransferableResource]:
    """Return the resources by name, with the documents to export."""
    if arguments.include and arguments.resource != "patients":
        raise CannotExportError("Only patients have identifiers: do not combine --include with another resource.")
    has_identifiers = arguments.directory or arguments.include
    return {**RESOURCES, "patients": PATIENTS_WITH_IDENTIFIERS} if has_identifiers else RESOURCES


def _list_query(parameters_model: type[ListParameters], filters: list[str], locality: Locality) -> ListQuery:
    filter_values: Mapping[str, list[str]] = defaultdict(list)
    for filter_text in filters:
        name, separator, value = filter_text.partition("=")
        if not separator:
            raise CannotExportError("A filter has the form NAME=VALUE, such as hospital_id=hos123.")
        filter_values[name].append(value)
    if unusable := sorted(NON_FILTER_PARAMETERS & set(filter_values)):
        raise CannotExportError(f"{unusable[0]} is not a filter.")
    try:
        return parameters_model.model_validate(dict(filter_values)).to_query(locality)
    except ValidationError as error:
        messages = [
            f"--filter {'.'.join(map(str, item.loc))}: {item.msg}" for item in field_errors(error, parameters_model)
        ]
        raise CannotExportError("\n".join(messages)) from None


def _format_of_file(output: Path | None) -> str:
    """Return `csv` if the name of the output file contains the suffix `.csv`, otherwise `ndjson`."""
    return "csv" if output is not None and ".csv" in output.suffixes else "ndjson"


def _destination(arguments: argparse.Namespace, name: str, format_name: str) -> Path | None:
    directory: Path | None = arguments.directory
    output: Path | None = arguments.output
    return directory / f"{name}.{format_name}" if directory else output
