"""Compares all patients of a register with each other, in batches whose candidates are searched ahead."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import structlog
from sqlalchemy import Integer, bindparam, text

from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.db.database import Database
from app.matching.candidates import find_candidates
from app.matching.pairs import Comparer, read_patients
from app.matching.pending import is_due_to_patients
from app.matching.similar_words import SimilarWords
from app.models import duplicate_scans
from app.observability.logging import describe_error

log = structlog.get_logger()

SCAN_BATCH_SIZE = 500
"""Number of patients that one transaction of a scan compares."""
MAX_SEARCHES = 3
"""Maximum number of batches whose candidates a scan has searched or is searching, one of which is being compared.

PostgreSQL takes three times as long for the search as Python for the comparison, so that two searches at once occupy
two cores.
"""
SCAN_POOL_SIZE = 1 + MAX_SEARCHES
"""Number of connections that a scan needs: for its transaction and its searches."""
_LOCK_KEY = 0x7363616E
"""The key of the advisory lock that lets one process at a time continue a scan: the letters `scan`."""
_WAIT_FOR_LOCK = text(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")
_SELECT_NEXT_IDS = text(
    'SELECT unique_id FROM patients WHERE unique_id > CAST(:after AS text) COLLATE "C" ORDER BY unique_id LIMIT :most'
).bindparams(bindparam("after", type_=ID_TEXT), bindparam("most", type_=Integer))
_DELETE_POSITION = duplicate_scans.delete().returning(duplicate_scans.c.last_id)
_INSERT_POSITION = duplicate_scans.insert()


class _Batch(NamedTuple):
    ids: Sequence[str]
    candidate_ids: Mapping[str, Sequence[str]]
    """The ids of the candidates of each patient, if they were searched ahead."""


async def _next_ids(connection: Connection, after: str, size: int) -> Sequence[str]:
    return (await connection.execute(_SELECT_NEXT_IDS, {"after": after, "most": size})).scalars().all()


class _Searches:
    """Searches the candidates of the next batches, each with a connection of its own, while another one is compared.

    Only their ids are kept: the comparison reads the values of all patients in the transaction that stores the pairs.
    """

    def __init__(self, database: Database, similar_words: SimilarWords, batch_size: int) -> None:
        self._database = database
        self._similar_words = similar_words
        self._batch_size = batch_size
        self._tasks: dict[str, asyncio.Task[_Batch]] = {}
        """The searches by the id after which their batch begins."""
        self._next_after: str | None = None
        """The id after which the next search begins, once it is known."""

    async def batch_after(self, after: str) -> _Batch:
        """Return the batch that begins after this id, and search the following ones meanwhile."""
        for earlier in [key for key in self._tasks if key < after]:
            self._tasks.pop(earlier).cancel()
        if after not in self._tasks:
            self.cancel()
            self._next_after = after
        self._begin()
        return await self._tasks[after]

    def cancel(self) -> None:
        """Give up all searches."""
        while self._tasks:
            self._tasks.popitem()[1].cancel()
        self._next_after = None

    def _begin(self) -> None:
        if self._next_after is not None and len(self._tasks) < MAX_SEARCHES:
            task = asyncio.create_task(self._search(self._next_after))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever needs it gets the error
            self._tasks[self._next_after] = task
            self._next_after = None

    async def _search(self, after: str) -> _Batch:
        async with self._database.read() as connection:
            ids = await _next_ids(connection, after, self._batch_size)
            if not ids:
                return _Batch(ids, {})
            self._next_after = ids[-1]
            self._begin()
            await self._similar_words.refresh(connection)
            patients = await read_patients(connection, ids)
            candidates = await find_candidates(connection, [*patients.values()], self._similar_words)
        found = zip(patients, candidates, strict=True)
        return _Batch(ids, {one: [other["unique_id"] for other in others] for one, others in found})


class _Scan:
    """A scan by this process: how many patients it has compared, and how many it compares next."""

    def __init__(self, database: Database, batch_size: int) -> None:
        self._similar_words = SimilarWords()
        self._batch_size = batch_size
        self.searches = _Searches(database, self._similar_words, batch_size)
        self.compared = 0
        self.size = batch_size
        """Maximum number of patients in the next batch, or 0 if the next patient is left out."""

    async def compare_batch(self, connection: Connection) -> int:
        """Compare the next batch. Return the number of its patients, which is 0 at the end of the register."""
        await connection.execute(_WAIT_FOR_LOCK)
        after = (await connection.execute(_DELETE_POSITION)).scalar_one_or_none()
        if after is None and self.compared:  # another scan has come to the end
            return 0
        batch = await self._batch_after(connection, after or "")
        if batch.ids:
            await connection.execute(_INSERT_POSITION, {"last_id": batch.ids[-1]})
            if self.size:
                comparer = Comparer(connection, self._similar_words, datetime.now(UTC).date())
                await comparer.compare(batch.ids, batch.candidate_ids)
        return len(batch.ids)

    async def _batch_after(self, connection: Connection, after: str) -> _Batch:
        if self.size == self._batch_size:
            return await self.searches.batch_after(after)
        return _Batch(await _next_ids(connection, after, max(self.size, 1)), {})

    def note_success(self, count: int) -> None:
        self.compared += count
        self.size = min(2 * max(self.size, 1), self._batch_size)

    def note_failure(self, error: Exception) -> None:
        """Make the next batch smaller, so that the patients are found who make the comparison fail."""
        self.searches.cancel()
        if self.size == 1:
            log.warning("patient not compared", **describe_error(error))
        self.size //= 2


async def scan(
    database: Database,
    report_progress: Callable[[int], None],
    batch_size: int = SCAN_BATCH_SIZE,
) -> int:
    """Compare all patients of the register with each other, beginning where an unfinished scan ended.

    Return the number of compared patients. `report_progress` is called with their number so far. Two scans at once
    share the comparisons, and both end with them. `database` needs `SCAN_POOL_SIZE` connections.
    """
    progress = _Scan(database, batch_size)
    try:
        while True:
            try:
                count = await database.transaction(progress.compare_batch)
            except Exception as error:
                if not is_due_to_patients(error):
                    raise
                progress.note_failure(error)
                continue
            if not count:
                return progress.compared
            progress.note_success(count)
            report_progress(progress.compared)
    finally:
        progress.searches.cancel()
