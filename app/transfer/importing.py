"""Importing a file: its lines are checked and then written by `app.transfer.staging`, all in one transaction."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.db.session import CollisionError, in_savepoint
from app.errors import ConflictError
from app.transfer.bodies import Bodies, Body
from app.transfer.patients import PatientStaging
from app.transfer.reading import Source
from app.transfer.resources import RESOURCES
from app.transfer.staging import Batch, Fault, Staging

BATCH = 2000
"""Lines that are written at once: some megabytes, and more gain little."""
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
        if lines == BATCH or (isinstance(checked, Body) and not batch.has_room_for(checked)):
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
        UnreadableFileError: the file cannot be read to its end.
        ConflictError: other transactions were in the way again and again.
    """
    # plans are kept, those of foreign keys' checks too, and the first ones are made when the tables are still empty
    await connection.execute(text("SET LOCAL enable_seqscan = off"))
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

    coming = asyncio.create_task(asyncio.to_thread(next, portions, None))
    try:
        while (portion := await coming) is not None:
            coming = asyncio.create_task(asyncio.to_thread(next, portions, None))
            await store(portion)
        await staging.close()
    except (CollisionError, ConflictError) as error:
        raise ConflictError("Others changed the same records at the same moment. Nothing was stored.") from error
    finally:
        await asyncio.gather(coming, return_exceptions=True)
    return tally


async def _store(staging: Staging, batch: Batch) -> tuple[dict[str, int], list[Fault]]:
    await staging.stage(batch)
    await staging.compare()
    faults = [fault async for fault in staging.faults()]
    if faults:
        await staging.discard({fault.line for fault in faults})
    return await staging.write(), faults
