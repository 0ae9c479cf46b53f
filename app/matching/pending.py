"""Compares patients with all others in the background, and all patients in a scan of the whole register.

Triggers queue each patient that is created, restored, imported or deleted, or of which a compared field changes. The
queue is worked off in batches. The transaction that removes patients from the queue also stores their pairs, so that
nothing is lost if a process is killed.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import asyncpg
import structlog
from sqlalchemy import Integer, bindparam, text

from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.db.database import Database, set_local
from app.errors import UnavailableError
from app.matching.candidates import SimilarWords
from app.matching.pairs import Comparer
from app.models import duplicate_scans

log = structlog.get_logger()

COMPARISON_INTERVAL_SECONDS = 2
"""Seconds between two runs of the background comparison."""
PAUSE_PER_WORK = 9
"""Ratio of the pause between two batches to the duration of the batch before it, if many patients are queued.

Comparing a patient costs about as much as creating one. After an import, or while clients create thousands of patients,
the background comparison therefore takes a tenth of the time, and is behind for a while.
"""
COMPARISON_BATCH_SIZE = 200
"""Maximum number of patients that one transaction compares, so that a transaction takes a fraction of a second."""
SCAN_BATCH_SIZE = 500
"""Number of patients that one transaction of a scan compares."""
_LOCK_KEY = 0x6475706C
"""The key of the advisory lock that lets one process at a time work off the queue: the letters `dupl`."""
_SCAN_LOCK_KEY = 0x7363616E
"""The key of the advisory lock that lets one process at a time continue a scan: the letters `scan`."""
_WAIT_FOR_SCAN_LOCK = text(f"SELECT pg_advisory_xact_lock({_SCAN_LOCK_KEY})")
_TRY_LOCK = text(f"SELECT NOT pg_is_in_recovery() AND pg_try_advisory_xact_lock({_LOCK_KEY})")
_WAIT_FOR_LOCK = text(
    f"SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_advisory_xact_lock({_LOCK_KEY}) IS NOT NULL ELSE false END"
)
_LIMIT_WAIT = set_local({"lock_timeout": "2s"})
"""Limits how long a list waits for another process that is comparing a batch, which takes a fraction of a second."""
_TAKE_PENDING = text(
    """
    DELETE FROM pending_comparisons WHERE patient_id = ANY (ARRAY(
        SELECT patient_id FROM pending_comparisons ORDER BY patient_id LIMIT :most
    ))
    RETURNING patient_id
    """
).bindparams(bindparam("most", type_=Integer))
_HAS_PENDING = text("SELECT EXISTS (SELECT FROM pending_comparisons)")
_SELECT_NEXT_IDS = text(
    'SELECT unique_id FROM patients WHERE unique_id > CAST(:after AS text) COLLATE "C" ORDER BY unique_id LIMIT :most'
).bindparams(bindparam("after", type_=ID_TEXT), bindparam("most", type_=Integer))
_DELETE_POSITION = duplicate_scans.delete().returning(duplicate_scans.c.last_id)
_INSERT_POSITION = duplicate_scans.insert()


async def compare_pending(database: Database, phone_region: str, *, waits: bool = False) -> bool:
    """Compare a batch of the queued patients with all others, unless another process is doing so.

    If `waits` is true, the patients that are queued now are compared when this function returns, by this process or by
    the other one, provided that they are no more than a batch. Return whether there may be more. A failed batch stays
    queued for the next run, which is logged.
    """
    try:
        async with database.read() as connection:
            if not (await connection.execute(_HAS_PENDING)).scalar_one():
                return False
        return await database.transaction(
            partial(_compare_batch, phone_region=phone_region, waits=waits), max_attempts=1
        )
    except (asyncpg.PostgresError, UnavailableError) as error:
        log.info("patients not compared yet", error=type(error).__name__)
        return False


async def _compare_batch(connection: Connection, phone_region: str, *, waits: bool) -> bool:
    if waits:
        await connection.execute(_LIMIT_WAIT)
    if not (await connection.execute(_WAIT_FOR_LOCK if waits else _TRY_LOCK)).scalar_one():
        return False
    taken = (await connection.execute(_TAKE_PENDING, {"most": COMPARISON_BATCH_SIZE})).scalars().all()
    if taken:
        comparer = Comparer(connection, SimilarWords(), phone_region, datetime.now(UTC).date())
        await comparer.compare(sorted({*taken}))
    return len(taken) >= COMPARISON_BATCH_SIZE


async def compare_pending_periodically(database: Database, phone_region: str) -> None:
    """Run `compare_pending` every `COMPARISON_INTERVAL_SECONDS` until the task is cancelled.

    If there is more to do, the next batch begins after a pause, so that requests have most of the time for themselves.
    """
    pause_seconds: float = COMPARISON_INTERVAL_SECONDS
    while True:
        await asyncio.sleep(pause_seconds)
        began = time.monotonic()
        has_more = await compare_pending(database, phone_region)
        pause_seconds = (time.monotonic() - began) * PAUSE_PER_WORK if has_more else COMPARISON_INTERVAL_SECONDS


async def scan(
    database: Database,
    phone_region: str,
    report_progress: Callable[[int], None],
    batch_size: int = SCAN_BATCH_SIZE,
) -> int:
    """Compare all patients of the register with each other, beginning where an unfinished scan ended.

    Return the number of compared patients. `report_progress` is called with their number so far. Two scans at once
    share the work, and both end with it.
    """
    compared, similar_words = 0, SimilarWords()

    async def work(connection: Connection) -> int:
        await connection.execute(_WAIT_FOR_SCAN_LOCK)
        after = (await connection.execute(_DELETE_POSITION)).scalar_one_or_none()
        if after is None and compared:  # another scan has come to the end
            return 0
        ids = (await connection.execute(_SELECT_NEXT_IDS, {"after": after or "", "most": batch_size})).scalars().all()
        if ids:
            await connection.execute(_INSERT_POSITION, {"last_id": ids[-1]})
            await Comparer(connection, similar_words, phone_region, datetime.now(UTC).date()).compare(ids)
        return len(ids)

    while count := await database.transaction(work):
        compared += count
        report_progress(compared)
    return compared
