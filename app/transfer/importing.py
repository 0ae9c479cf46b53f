"""Import of a file: its lines are validated, then written by `app.transfer.staging`, all in one transaction."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import NamedTuple, TypeVar, cast

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.db.database import SerializationError, run_in_savepoint
from app.errors import ConflictError
from app.transfer.bodies import LineValidator, ValidLine
from app.transfer.patients import PatientStaging
from app.transfer.reading import RecordFile, UnreadableFileError
from app.transfer.resources import RESOURCES
from app.transfer.staging import RowError, StagedBatch, Staging

T = TypeVar("T")

IMPORT_BATCH_SIZE = 2000
"""Maximum number of lines per batch: some megabytes; larger batches gain little."""
BATCH_FULL_AT_LINKS = 8000
"""Number of links above which a batch takes no more lines: a line may have thousands, and each may be an error."""
MAX_REJECTED_LINES = 100_000
"""Maximum number of rejected lines; after more, the rest of the file is not read: it is not what it seems to be."""
IMPORT_ADVISORY_LOCK_KEY = 0x696D706F7274
"""Key of the advisory lock that serialises imports: an arbitrary number, equal in all versions (`import` in ASCII)."""
IMPORT_PRINCIPAL = Principal("import")
"""The principal under which the journal records what an import has written."""


@dataclass
class ImportSummary:
    """Counts of the lines of a file that have been processed so far."""

    lines: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    """Number of lines that are not stored; a line with several errors counts once."""


ProgressCallback = Callable[[ImportSummary, Sequence[RowError], int], None]
"""Called after each batch with the summary so far, the errors of the batch, and the number of bytes read so far."""


class _CheckedBatch(NamedTuple):
    """Consecutive lines of a file that were read and validated together."""

    staged_batch: StagedBatch
    lines: int
    errors: list[RowError]
    """The errors of the lines that are not in `staged_batch`."""
    bytes_read: int


def _checked_batches(record_file: RecordFile, validator: LineValidator, staging: Staging) -> Iterator[_CheckedBatch]:
    batch, errors, lines = staging.new_batch(), list[RowError](), 0
    for line in record_file.lines():
        validated = validator.validate(line)
        if (
            lines == IMPORT_BATCH_SIZE
            or batch.link_count > BATCH_FULL_AT_LINKS
            or (isinstance(validated, ValidLine) and not batch.can_add(validated))
        ):
            yield _CheckedBatch(batch, lines, errors, record_file.bytes_read)
            batch, errors, lines = staging.new_batch(), [], 0
        lines += 1
        if isinstance(validated, ValidLine):
            batch.add(validated)
        else:
            errors += [RowError(line.line_number, error) for error in validated]
    if lines:
        yield _CheckedBatch(batch, lines, errors, record_file.bytes_read)


async def import_file(
    connection: AsyncConnection,
    resource_name: str,
    record_file: RecordFile,
    report_progress: ProgressCallback,
    *,
    overwrite: bool,
) -> ImportSummary:
    """Import all valid lines of a file in the transaction of `connection`, and return the counts of all lines.

    If lines were rejected, the caller decides whether to roll the transaction back. Each batch is read and validated in
    a thread while PostgreSQL writes the previous one.

    Raises:
        UnreadableFileError: the file cannot be read to its end, or too many of its lines were rejected.
        ConflictError: a batch conflicted with other transactions at every attempt.
    """
    # one import at a time: two with the same records in different orders would deadlock
    await connection.execute(select(func.pg_advisory_xact_lock(IMPORT_ADVISORY_LOCK_KEY)))
    # a batch is small and the tables grow, so every row is looked up by index
    for plan_node in ("seqscan", "hashjoin", "mergejoin"):
        await connection.execute(text(f"SET LOCAL enable_{plan_node} = off"))
    resource = RESOURCES[resource_name]
    staging = (
        PatientStaging(connection, IMPORT_PRINCIPAL, overwrite=overwrite)
        if resource_name == "patients"
        else Staging(connection, IMPORT_PRINCIPAL, resource.service_class.repository_class, overwrite=overwrite)
    )
    await staging.create_tables()
    checked_batches = _checked_batches(record_file, LineValidator(resource, overwrite=overwrite), staging)
    summary = ImportSummary()

    async def store(checked_batch: _CheckedBatch) -> None:
        status_counts, errors = await run_in_savepoint(
            connection, lambda: _store_batch(staging, checked_batch.staged_batch)
        )
        errors = sorted([*checked_batch.errors, *errors], key=lambda fault: fault.line_number)
        summary.lines += checked_batch.lines
        summary.by_status.update(status_counts)
        summary.rejected += len({fault.line_number for fault in errors})
        report_progress(summary, errors, checked_batch.bytes_read)
        if summary.rejected > MAX_REJECTED_LINES:
            raise UnreadableFileError(f"More than {MAX_REJECTED_LINES:,} lines were rejected: correct them first.")

    try:
        next_batch = _run_in_thread(lambda: next(checked_batches, None))
        while (checked_batch := await next_batch) is not None:
            next_batch = _run_in_thread(lambda: next(checked_batches, None))
            await store(checked_batch)
        await staging.finish()
    except (SerializationError, ConflictError) as error:
        raise ConflictError(
            "Other transactions changed the same records. Nothing was stored: run the import again."
        ) from error
    return summary


def _run_in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Run `work` in a daemon thread and return a future for its result.

    A command that ends early does not wait for the thread, which may be blocked on a pipe forever.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def resolve(result: T | None, error: Exception | None) -> None:
        if future.done():  # cancelled
            return
        if error is None:
            future.set_result(cast("T", result))
        else:
            future.set_exception(error)
            future.exception()  # marks it as retrieved: asyncio would log it if nothing awaits the future any more

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as raised:  # noqa: BLE001  # raised where the future is awaited
            error = raised
        with suppress(RuntimeError):  # the event loop is closed
            loop.call_soon_threadsafe(resolve, result, error)

    Thread(target=run, daemon=True).start()
    return future


async def _store_batch(staging: Staging, batch: StagedBatch) -> tuple[dict[str, int], list[RowError]]:
    # PostgreSQL caches plans, also those of foreign-key checks, and made the first ones when the tables were empty
    await staging.connection.execute(text("DISCARD PLANS"))
    await staging.stage(batch)
    await staging.classify()
    errors = [fault async for fault in staging.find_errors()]
    if errors:
        await staging.discard({fault.line_number for fault in errors})
    return await staging.write(), errors
