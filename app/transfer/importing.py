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
from app.db.session import CollisionError, in_savepoint
from app.errors import ConflictError
from app.transfer.bodies import Bodies, Body
from app.transfer.patients import PatientStaging
from app.transfer.reading import Source, UnreadableFileError
from app.transfer.resources import RESOURCES
from app.transfer.staging import Batch, Fault, Staging

T = TypeVar("T")

BATCH = 2000
"""Lines that are written at once: some megabytes, and more gain little."""
MOST_LINKS = 8000
"""Links that are written at once: a line may have thousands, each of which may be wrong."""
MAX_WRONG_LINES = 100_000
"""After so many the rest of a file is not looked at: it is not what it seems to be."""
ADVISORY_LOCK = 0x696D706F7274
"""Any number that all versions agree on, held by who imports; this one spells `import`."""
IMPORT = Principal("import")
"""Under this name the journal has what an import has done."""


@dataclass
class Tally:
    """What has become of the lines of a file so far."""

    lines: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    """Lines that are not stored, however many errors each has."""


Report = Callable[[Tally, Sequence[Fault], int], None]
"""Is told after each batch: the tally so far, what was wrong with the batch, and how many bytes were read."""


class _Portion(NamedTuple):
    """What was read of a file at once."""

    batch: Batch
    lines: int
    faults: list[Fault]
    """Of lines that are not in the batch."""
    position: int


def _portions(source: Source, bodies: Bodies, staging: Staging) -> Iterator[_Portion]:
    batch, faults, lines = staging.batch(), list[Fault](), 0
    for line in source.lines():
        checked = bodies.check(line)
        if (
            lines == BATCH
            or batch.links > MOST_LINKS
            or (isinstance(checked, Body) and not batch.has_room_for(checked))
        ):
            yield _Portion(batch, lines, faults, source.position)
            batch, faults, lines = staging.batch(), [], 0
        lines += 1
        if isinstance(checked, Body):
            batch.add(checked)
        else:
            faults += [Fault(line.number, error) for error in checked]
    if lines:
        yield _Portion(batch, lines, faults, source.position)


async def load(connection: AsyncConnection, name: str, source: Source, report: Report, *, update: bool) -> Tally:
    """Import the lines of a file of resource `name`, all that are right, in the transaction of `connection`.

    It is the caller's to undo the transaction where lines were wrong. Batches are read and checked in a thread while
    PostgreSQL writes the one before.

    Raises:
        UnreadableFileError: the file cannot be read to its end, or too much of it is wrong.
        ConflictError: other transactions were in the way again and again.
    """
    # one import after the other: two that have the same records, in another order, would end each other
    await connection.execute(select(func.pg_advisory_xact_lock(ADVISORY_LOCK)))
    # a batch is small and the tables grow: all is looked up by index, one by one
    for way in ("seqscan", "hashjoin", "mergejoin"):
        await connection.execute(text(f"SET LOCAL enable_{way} = off"))
    transferred = RESOURCES[name]
    staging = (
        PatientStaging(connection, IMPORT, overwrite=update)
        if name == "patients"
        else Staging(connection, IMPORT, transferred.service.repository_class, overwrite=update)
    )
    await staging.open()
    portions = _portions(source, Bodies(transferred, update=update), staging)
    tally = Tally()

    async def store(portion: _Portion) -> None:
        stored, faults = await in_savepoint(connection, lambda: _store(staging, portion.batch))
        faults = sorted([*portion.faults, *faults], key=lambda fault: fault.line)
        tally.lines += portion.lines
        tally.fates.update(stored)
        tally.wrong += len({fault.line for fault in faults})
        report(tally, faults, portion.position)
        if tally.wrong > MAX_WRONG_LINES:
            raise UnreadableFileError(f"More than {MAX_WRONG_LINES:,} lines are wrong: mend these first.")

    try:
        coming = _in_thread(lambda: next(portions, None))
        while (portion := await coming) is not None:
            coming = _in_thread(lambda: next(portions, None))
            await store(portion)
        await staging.close()
    except (CollisionError, ConflictError) as error:
        raise ConflictError("Others changed the same records at the same moment. Nothing was stored.") from error
    return tally


def _in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Do `work` in a thread that nobody waits for where the command ends before: it may wait for a pipe for ever."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def end(result: T | None, error: Exception | None) -> None:
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
            loop.call_soon_threadsafe(end, result, error)

    Thread(target=run, daemon=True).start()
    return future


async def _store(staging: Staging, batch: Batch) -> tuple[dict[str, int], list[Fault]]:
    # plans are kept, those of foreign keys' checks too, and the first ones were made when the tables were empty
    await staging.connection.execute(text("DISCARD PLANS"))
    await staging.stage(batch)
    await staging.compare()
    faults = [fault async for fault in staging.faults()]
    if faults:
        await staging.discard({fault.line for fault in faults})
    return await staging.write(), faults
