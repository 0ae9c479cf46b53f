"""Import of a file: batches of lines are validated and then written by `app.staging.records`, in one transaction."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from sqlalchemy import func, select, text

from app.auth.principal import Principal
from app.db.connection import Connection
from app.db.database import run_in_savepoint, set_local
from app.db.errors import SerializationError, translate_errors
from app.errors import ConflictError
from app.fields.schemas import CreateBody
from app.patient_identifiers.types import read_types
from app.staging.batches import ValidLine
from app.staging.duplicates import DuplicatePolicy
from app.staging.patients import PatientStaging
from app.staging.records import Staging
from app.staging.results import RowError, RowStatus
from app.staging.table_build import NotReplaceableError, TablesInUseError
from app.table_files.errors import UnreadableFileError
from app.transfer.bodies import LineValidator, left_out
from app.transfer.link_names import LinkNames, NewLinks
from app.transfer.reader_process import ReaderProcess
from app.transfer.reading import ParsedLine, RecordFile
from app.transfer.resources import RESOURCES

IMPORT_BATCH_SIZE = 2000
"""Maximum number of lines per batch, which takes a few megabytes. Larger batches gain little."""
BATCH_FULL_AT_LINKS = 8000
"""Number of links above which no more lines are added to a batch.

A line may have thousands of links, and each link may cause an error. This limit bounds the number of errors that are in
memory.
"""
MAX_REJECTED_LINES = 100_000
"""Maximum number of rejected lines per file. A file with more is probably the wrong file, so its import fails early."""
IMPORT_ADVISORY_LOCK_KEY = 0x696D706F7274
"""Key of the advisory lock that allows only one import at a time.

The number is arbitrary (`import` in ASCII), but must be the same in all versions.
"""
SCAN_SETTINGS = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")
"""Settings of the plans that read whole tables. They are off while records are written, so that PostgreSQL finds every
row through an index, because few records are written at a time and the tables grow."""
IMPORT_PRINCIPAL = Principal("import")
"""The principal of every import. The journal records it as the author of the imported changes."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What a person wants an import to do with the records of a file."""

    overwrite: bool = False
    """Whether a line updates a stored record that differs from it."""
    allow_other_person: bool = False
    """Whether a line may change both the name and the date of birth of a stored patient."""
    drop_bad_values: bool = False
    """Whether a line is stored without its wrong values, if it is valid without them."""
    id_prefix: str = ""
    """Text that is put in front of each `unique_id` of the file's own records."""
    link_names: bool = False
    """Whether tables contain the names of hospitals and doctors instead of their ids."""
    create_links: bool = False
    """Whether hospitals and doctors are created whose names do not exist."""
    duplicates: DuplicatePolicy = DuplicatePolicy.REPORT
    """What happens to new patients who may be registered already."""
    dry_run: bool = False
    """Whether nothing is stored."""
    skip_rejected: bool = False
    """Whether valid lines are stored if others are rejected."""

    def stores(self, rejected: int) -> bool:
        """Return whether an import with a number of rejected lines stores the others. If not, its caller undoes it."""
        return not self.dry_run and (not rejected or self.skip_rejected)


@dataclass
class ImportSummary:
    """Counts of the lines of a file that have been processed so far."""

    lines: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    """Number of lines with errors, which are not stored. A line with several errors counts once."""
    remarks: int = 0
    """Number of remarks on lines that are stored nevertheless."""
    created_links: Counter[str] = field(default_factory=Counter)
    """Numbers of records that were created because lines name them, by the singular of the resource's name."""
    kept_indexes: bool = False
    """Whether rows were inserted into empty tables with all their indexes, because copies could not replace these."""


ProgressCallback = Callable[[ImportSummary, Sequence[RowError], int], None]
"""A function that is called after each batch to report the progress of an import.

Its arguments are the summary so far, the errors and remarks in the batch, and the number of bytes read so far.
"""


class _CheckedBatch(NamedTuple):
    """A batch of consecutive lines of a file that have been read and validated, but not stored."""

    tables: list[bytes]
    """The rows of the valid lines for each staging table, in the text format of COPY."""
    lines: int
    errors: list[RowError]
    """The errors in the invalid lines, which have no rows, and the remarks on others."""
    linked_bodies: list[tuple[str, CreateBody]]
    """The new records that lines link to by name, and that no earlier batch has."""
    bytes_read: int


def _with_prefix(line: ParsedLine, prefix: str) -> ParsedLine:
    """Put a prefix in front of the `unique_id` of a line, if it has one, and return the line."""
    if line.record is not None and isinstance(unique_id := line.record.get("unique_id"), str) and unique_id:
        line.record["unique_id"] = f"{prefix}{unique_id}"
    return line


async def _prepared_lines(
    connection: Connection, record_file: RecordFile, options: ImportOptions
) -> tuple[Iterator[ParsedLine], LinkNames | None]:
    """Return the lines of a file with complete ids: with the prefix in the options, and ids in place of link names.

    The second value replaces the names. It is None if the options do not ask for that.
    """
    lines = record_file.lines()
    if options.id_prefix:
        lines = map(partial(_with_prefix, prefix=options.id_prefix), lines)
    if not options.link_names:
        return lines, None
    link_names = LinkNames(makes_records=options.create_links)
    await link_names.load(connection)
    return map(link_names.resolve, lines), link_names


def _checked_batches(
    lines_to_check: Iterator[ParsedLine],
    record_file: RecordFile,
    validator: LineValidator,
    staging: Staging,
    link_names: LinkNames | None,
) -> Iterator[_CheckedBatch]:
    batch, errors, bodies, lines = staging.new_batch(), list[RowError](), list[tuple[str, CreateBody]](), 0
    for line in lines_to_check:
        validated = validator.validate(line)
        if (
            lines == IMPORT_BATCH_SIZE
            or batch.link_count > BATCH_FULL_AT_LINKS
            or (isinstance(validated, ValidLine) and not batch.can_add(validated))
        ):
            yield _CheckedBatch(batch.tables, lines, errors, bodies, record_file.bytes_read)
            batch, errors, bodies, lines = staging.new_batch(), [], [], 0
        lines += 1
        if isinstance(validated, ValidLine):
            batch.add(validated)
            errors += [RowError(line.line_number, remark, is_remark=True) for remark in validated.remarks]
            if link_names is not None:
                bodies += link_names.take_bodies(validated.values)
        else:
            errors += [RowError(line.line_number, error) for error in validated]
    if lines:
        yield _CheckedBatch(batch.tables, lines, errors, bodies, record_file.bytes_read)


async def import_file(
    connection: Connection,
    resource_name: str,
    record_file: RecordFile,
    report_progress: ProgressCallback,
    options: ImportOptions,
) -> ImportSummary:
    """Import the valid lines of a file in the transaction of `connection`, and return the counts of all lines.

    The caller must roll the transaction back if nothing is to be stored (`ImportOptions.stores`). While PostgreSQL
    writes a batch, another process reads and validates the next batch.

    Raises:
        UnreadableFileError: the file cannot be read to its end, or has more than `MAX_REJECTED_LINES` rejected lines.
        ConflictError: the import conflicted with other transactions at every attempt.
    """
    # only one import at a time, because concurrent imports of the same records in different orders would deadlock
    await connection.execute(select(func.pg_advisory_xact_lock(IMPORT_ADVISORY_LOCK_KEY)))
    await connection.execute(set_local(dict.fromkeys(SCAN_SETTINGS, "off")))
    staging = _staging(connection, resource_name, options)
    summary = ImportSummary()
    try:
        await staging.create_tables()
    except NotReplaceableError:
        summary.kept_indexes = True
    types = await read_types(connection)
    record_file.know_identifier_types(types)
    validator = LineValidator(
        RESOURCES[resource_name],
        overwrite=options.overwrite,
        drop_bad_values=options.drop_bad_values,
        identifier_types=types,
    )
    lines, link_names = await _prepared_lines(connection, record_file, options)
    checked_batches = _checked_batches(lines, record_file, validator, staging, link_names)
    new_links = NewLinks(connection, IMPORT_PRINCIPAL)

    lines_when_planned = 0

    async def store(checked_batch: _CheckedBatch) -> None:
        nonlocal lines_when_planned
        if summary.lines >= 2 * lines_when_planned:
            # PostgreSQL caches plans, also for foreign-key checks, and those for small tables do not suit large ones
            await connection.execute(text("DISCARD PLANS"))
            lines_when_planned = summary.lines
        new_links.add(checked_batch.linked_bodies)
        stored = await run_in_savepoint(
            connection,
            lambda: _store_batch(staging, checked_batch.tables, new_links, leaves_out_links=options.drop_bad_values),
        )
        errors = sorted([*checked_batch.errors, *stored.errors], key=lambda fault: fault.line_number)
        rejected = {fault.line_number for fault in errors if not fault.is_remark}
        errors = [fault for fault in errors if not (fault.is_remark and fault.line_number in rejected)]
        summary.lines += checked_batch.lines
        summary.by_status.update(stored.status_counts)
        summary.rejected += len(rejected)
        summary.remarks += sum(fault.is_remark for fault in errors)
        summary.created_links.update(stored.created_links)
        report_progress(summary, errors, checked_batch.bytes_read)
        if summary.rejected > MAX_REJECTED_LINES:
            raise UnreadableFileError(f"More than {MAX_REJECTED_LINES:,} lines were rejected: correct them first.")

    try:
        async with ReaderProcess(checked_batches) as reader:
            while (checked_batch := await reader.next()) is not None:
                await store(checked_batch)
        await connection.execute(set_local(dict.fromkeys(SCAN_SETTINGS, "on")))
        async with translate_errors():
            is_changed = any(summary.by_status[status] for status in (RowStatus.CREATED, RowStatus.UPDATED))
            await staging.finish(stores=is_changed and options.stores(summary.rejected))
    except TablesInUseError:
        raise
    except (SerializationError, ConflictError) as error:
        raise ConflictError(
            "Other transactions changed the same records. Nothing was stored: run the import again."
        ) from error
    return summary


def _staging(connection: Connection, resource_name: str, options: ImportOptions) -> Staging:
    if resource_name == "patients":
        return PatientStaging(
            connection,
            IMPORT_PRINCIPAL,
            options.duplicates,
            overwrite=options.overwrite,
            allow_other_person=options.allow_other_person,
        )
    repository = RESOURCES[resource_name].service_class.repository_class
    return Staging(connection, IMPORT_PRINCIPAL, repository, overwrite=options.overwrite)


class _StoredBatch(NamedTuple):
    """What became of a batch."""

    status_counts: dict[str, int]
    """Number of lines per status."""
    errors: list[RowError]
    """The errors and remarks that only the database could find."""
    created_links: Counter[str]
    """Numbers of records that were created because lines link to them by name, as in `ImportSummary`."""


async def _store_batch(
    staging: Staging, tables: list[bytes], new_links: NewLinks, *, leaves_out_links: bool
) -> _StoredBatch:
    """Write the valid lines of a batch. With `leaves_out_links`, a line is stored without links that are wrong."""
    await staging.stage(tables)
    unknown_links = await staging.unknown_links()
    wrong_links = [link for link in unknown_links if link.unique_id not in new_links]
    errors = [RowError(link.line_number, link.error) for link in wrong_links]
    remarks: list[RowError] = []
    if leaves_out_links and errors:
        errors, remarks = [], [one._replace(error=left_out(one.error), is_remark=True) for one in errors]
        for name in {link.name for link in wrong_links}:
            await staging.leave_out(name, {link.line_number for link in wrong_links if link.name == name})
    await staging.classify()
    errors = [*[fault async for fault in staging.find_errors()], *errors]
    errors += await staging.find_conflicts({fault.line_number for fault in errors})
    rejected = {fault.line_number for fault in errors}
    if rejected:
        await staging.discard(rejected)
    left_out_fields = {(link.line_number, link.name) for link in wrong_links}
    created_links = {
        link.unique_id
        for link in unknown_links
        if link.line_number not in rejected
        and link.unique_id in new_links
        and (link.line_number, link.name) not in left_out_fields
    }
    created_counts = await new_links.create(created_links)
    remarks += [remark async for remark in staging.find_remarks()]
    return _StoredBatch(await staging.write(), [*errors, *remarks], created_counts)
