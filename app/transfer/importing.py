"""Importing a file: its lines are checked and then written by `app.transfer.staging`, all in one transaction."""

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
"""Lines that are written at once: some megabytes, and more gain little."""
MAX_LINKS_PER_BATCH = 8000
"""Links that are written at once: a line may have thousands, each of which may be wrong."""
MAX_REJECTED_LINES = 100_000
"""After so many the rest of a file is not looked at: it is not what it seems to be."""
IMPORT_ADVISORY_LOCK_KEY = 0x696D706F7274
"""Any number that all versions agree on, held by who imports; this one spells `import`."""
IMPORT_PRINCIPAL = Principal("import")
"""Under this name the journal has what an import has done."""


@dataclass
class ImportSummary:
    """What has become of the lines of a file so far."""

    lines: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    """Lines that are not stored, however many errors each has."""


ProgressCallback = Callable[[ImportSummary, Sequence[RowError], int], None]
"""Is told after each batch: the tally so far, what was wrong with the batch, and how many bytes were read."""


class _CheckedBatch(NamedTuple):
    """What was read of a file at once."""

    staged_batch: StagedBatch
    lines: int
    errors: list[RowError]
    """Of lines that are not in the batch."""
    bytes_read: int


def _checked_batches(record_file: RecordFile, validator: LineValidator, staging: Staging) -> Iterator[_CheckedBatch]:
    batch, errors, lines = staging.new_batch(), list[RowError](), 0
    for line in record_file.lines():
        validated = validator.validate(line)
        if (
            lines == IMPORT_BATCH_SIZE
            or batch.link_count > MAX_LINKS_PER_BATCH
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
    """Import the lines of a file of resource `name`, all that are right, in the transaction of `connection`.

    It is the caller's to undo the transaction where lines were wrong. Batches are read and checked in a thread while
    PostgreSQL writes the one before.

    Raises:
        UnreadableFileError: the file cannot be read to its end, or too much of it is wrong.
        ConflictError: other transactions were in the way again and again.
    """
    # one import after the other: two that have the same records, in another order, would end each other
    await connection.execute(select(func.pg_advisory_xact_lock(IMPORT_ADVISORY_LOCK_KEY)))
    # a batch is small and the tables grow: all is looked up by index, one by one
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
            raise UnreadableFileError(f"More than {MAX_REJECTED_LINES:,} lines are wrong: mend these first.")

    try:
        next_batch = _run_in_thread(lambda: next(checked_batches, None))
        while (checked_batch := await next_batch) is not None:
            next_batch = _run_in_thread(lambda: next(checked_batches, None))
            await store(checked_batch)
        await staging.finish()
    except (SerializationError, ConflictError) as error:
        raise ConflictError("Others changed the same records at the same moment. Nothing was stored.") from error
    return summary


def _run_in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Do `work` in a thread that nobody waits for where the command ends before: it may wait for a pipe for ever."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def resolve(result: T | None, error: Exception | None) -> None:
        if future.done():  # given up
            return
        if error is None:
            future.set_result(cast("T", result))
        else:
            future.set_exception(error)
            future.exception()  # seen: where nobody waits any more asyncio would print it

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as raised:  # noqa: BLE001  # whoever waits raises it
            error = raised
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(resolve, result, error)

    Thread(target=run, daemon=True).start()
    return future


async def _store_batch(staging: Staging, batch: StagedBatch) -> tuple[dict[str, int], list[RowError]]:
    # plans are kept, those of foreign keys' checks too, and the first ones were made when the tables were empty
    await staging.connection.execute(text("DISCARD PLANS"))
    await staging.stage(batch)
    await staging.classify()
    errors = [fault async for fault in staging.find_errors()]
    if errors:
        await staging.discard({fault.line_number for fault in errors})
    return await staging.write(), errors
