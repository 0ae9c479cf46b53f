"""Compares patients with all others in the background.

Triggers queue each patient that is created, restored, imported or deleted, or of which a compared field changes. The
queue is worked off in batches. The transaction that removes patients from the queue also stores their pairs, so that
nothing is lost if a process is killed.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

import asyncpg
import structlog
from cachetools import TTLCache
from sqlalchemy import ARRAY, Integer, bindparam, text

from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.db.database import Database, set_local
from app.db.errors import OutOfTimeError
from app.db.pacing import PAUSE_PER_WORK
from app.errors import UnavailableError
from app.matching.pairs import Comparer
from app.matching.similar_words import SimilarWords
from app.observability.logging import describe_error
from app.observability.metrics import COMPARISON_FAILURES

log = structlog.get_logger()

COMPARISON_INTERVAL_SECONDS = 2
"""Seconds between two runs of the background comparison."""
MAX_ATTEMPTS = 3
"""Number of attempts to compare a patient before it is set aside."""
SET_ASIDE_SECONDS = 3600
"""Seconds for which a patient is set aside."""
MAX_SET_ASIDE = 1000
"""Maximum number of patients whose failed attempts are counted."""
COMPARISON_BATCH_SIZE = 200
"""Maximum number of patients that one transaction compares, so that a transaction takes a fraction of a second."""
_LOCK_KEY = 0x6475706C
"""The key of the advisory lock that lets one process at a time work off the queue: the letters `dupl`."""
_TRY_LOCK = text(f"SELECT NOT pg_is_in_recovery() AND pg_try_advisory_xact_lock({_LOCK_KEY})")
_WAIT_FOR_LOCK = text(
    f"SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_advisory_xact_lock({_LOCK_KEY}) IS NOT NULL ELSE false END"
)
_LIMIT_WAIT = set_local({"lock_timeout": "2s"})
"""Limits how long a list waits for another process that is comparing a batch, which takes a fraction of a second."""
_SELECT_PENDING = text(
    """
    SELECT patient_id FROM pending_comparisons
    WHERE patient_id <> ALL (:set_aside) ORDER BY patient_id LIMIT :most
    """
).bindparams(bindparam("set_aside", type_=ARRAY(ID_TEXT)), bindparam("most", type_=Integer))
_TAKE_PENDING = text("DELETE FROM pending_comparisons WHERE patient_id = ANY (:ids) RETURNING patient_id").bindparams(
    bindparam("ids", type_=ARRAY(ID_TEXT))
)


def is_due_to_patients(error: Exception) -> bool:
    """Return whether a comparison failed because of what is compared, so that others may succeed.

    A database that is unavailable, or that lacks a table or a right, fails for all patients alike. A comparison that
    takes too long may do so because of a patient.
    """
    if isinstance(error, UnavailableError):
        return isinstance(error, OutOfTimeError)
    return not isinstance(error, asyncpg.SyntaxOrAccessError)


class BackgroundComparison:
    """Compares the queued patients with all others. A process has one, which also keeps the similar words of names.

    A patient whose comparison fails delays no others. After `MAX_ATTEMPTS`, it is set aside: it stays in the queue, but
    this process compares it only after `SET_ASIDE_SECONDS`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._failures: TTLCache[str, int] = TTLCache(MAX_SET_ASIDE, SET_ASIDE_SECONDS)
        """The number of attempts that failed for each patient."""
        self.similar_words = SimilarWords()

    async def run(self, *, waits: bool = False) -> bool:
        """Compare a batch of the queued patients with all others, unless another process is doing so.

        If `waits` is true, the patients that are queued now are compared when this method returns, by this process or
        by the other one, provided that they are no more than a batch. Return whether there may be more. What fails
        stays queued for the next run, which is logged.
        """
        set_aside = [unique_id for unique_id, failures in self._failures.items() if failures >= MAX_ATTEMPTS]
        try:
            async with self._database.read() as connection:
                parameters = {"set_aside": set_aside, "most": COMPARISON_BATCH_SIZE}
                ids = (await connection.execute(_SELECT_PENDING, parameters)).scalars().all()
                if ids:
                    await self.similar_words.refresh(connection)
            if ids:
                await self._compare(sorted({*ids}), waits=waits)
        except (asyncpg.PostgresError, UnavailableError) as error:
            log.info("patients not compared yet", error=type(error).__name__)
            return False
        return len(ids) >= COMPARISON_BATCH_SIZE

    async def run_periodically(self) -> None:
        """Call `run` every `COMPARISON_INTERVAL_SECONDS` until the task is cancelled.

        If there is more to do, the next batch begins after a pause, so that requests have most of the time for
        themselves.
        """
        pause_seconds: float = COMPARISON_INTERVAL_SECONDS
        while True:
            await asyncio.sleep(pause_seconds)
            began = time.monotonic()
            has_more = await self.run()
            pause_seconds = (time.monotonic() - began) * PAUSE_PER_WORK if has_more else COMPARISON_INTERVAL_SECONDS

    async def _compare(self, ids: Sequence[str], *, waits: bool) -> None:
        """Compare these patients in one transaction or, if it fails because of some of them, each half by itself."""
        try:
            await self._database.transaction(partial(self._compare_batch, ids=ids, waits=waits), max_attempts=1)
        except Exception as error:
            if not is_due_to_patients(error):
                raise
            if len(ids) == 1:
                self._note_failure(ids[0], error)
                return
            half = len(ids) // 2
            for part in (ids[:half], ids[half:]):
                await self._compare(part, waits=waits)

    async def _compare_batch(self, connection: Connection, *, ids: Sequence[str], waits: bool) -> None:
        if waits:
            await connection.execute(_LIMIT_WAIT)
        if not (await connection.execute(_WAIT_FOR_LOCK if waits else _TRY_LOCK)).scalar_one():
            return
        taken = (await connection.execute(_TAKE_PENDING, {"ids": ids})).scalars().all()
        if taken:
            comparer = Comparer(connection, self.similar_words, datetime.now(UTC).date())
            await comparer.compare(sorted({*taken}))

    def _note_failure(self, unique_id: str, error: Exception) -> None:
        attempts = self._failures[unique_id] = self._failures.get(unique_id, 0) + 1
        COMPARISON_FAILURES.inc()
        if attempts < MAX_ATTEMPTS:
            log.info("patient not compared yet", attempts=attempts, error=type(error).__name__)
        else:
            log.warning("patient not compared", attempts=attempts, **describe_error(error))
