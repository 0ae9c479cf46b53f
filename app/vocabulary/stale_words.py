"""Deletes queued words from the search vocabulary in the background, if no patient's name contains them any more."""

import asyncio
import time
from collections.abc import Sequence

import asyncpg
import structlog
from sqlalchemy import ARRAY, Text, bindparam, text

from app.db.connection import Connection
from app.db.database import SET_SHORT_LOCK_TIMEOUT, Database
from app.db.pacing import PAUSE_PER_WORK
from app.errors import UnavailableError

log = structlog.get_logger()

STALE_WORDS_INTERVAL_SECONDS = 10
"""Seconds between two runs of the background deletion of unused words."""
STALE_WORDS_BATCH_SIZE = 10
"""Maximum number of words that one transaction checks. Nobody can write names while it deletes some of them.

A frequent word takes up to two milliseconds, because PostgreSQL looks up the hospitals of all patients with this word.
"""
_DELETE_STALE_WORDS = text("SELECT forget_stale_words(:words)").bindparams(bindparam("words", type_=ARRAY(Text)))
_SELECT_STALE_WORDS = text(
    """
    SELECT DISTINCT word FROM stale_words
    WHERE word > CAST(:after AS text) COLLATE "C" AND NOT pg_is_in_recovery() ORDER BY word LIMIT :most
    """
)


async def delete_stale_words(database: Database, pause_per_work: float = 0) -> None:
    """Delete the queued words that are no longer used.

    A word is queued when a name changes, a patient is deleted or a link is removed. The words are deleted in batches. A
    batch fails if writers or another process hold the locks, or if the batch takes too long. A failed batch is left for
    the next run and does not hold up other batches. After each batch, this pauses `pause_per_work` times as long as the
    batch took.
    """
    after, failure = "", None
    while words := await _select_stale_words(database, after):
        after, began = words[-1], time.monotonic()

        async def work(connection: Connection, batch: Sequence[str] = words) -> None:
            await connection.execute(SET_SHORT_LOCK_TIMEOUT)
            await connection.execute(_DELETE_STALE_WORDS, {"words": batch})

        try:
            await database.transaction(work, max_attempts=1)
        except (asyncpg.PostgresError, UnavailableError) as error:
            failure = type(error).__name__
        await asyncio.sleep((time.monotonic() - began) * pause_per_work)
    if failure is not None:  # logged once per run, because a role without the privilege fails at each batch
        log.info("unused name words not deleted yet", error=failure)


async def _select_stale_words(database: Database, after: str) -> Sequence[str]:
    try:
        async with database.read() as connection:
            return (
                (await connection.execute(_SELECT_STALE_WORDS, {"after": after, "most": STALE_WORDS_BATCH_SIZE}))
                .scalars()
                .all()
            )
    except (asyncpg.PostgresError, UnavailableError) as error:
        log.info("unused name words not deleted yet", error=type(error).__name__)
        return ()


async def delete_stale_words_periodically(database: Database) -> None:
    """Run `delete_stale_words` every `STALE_WORDS_INTERVAL_SECONDS` until the task is cancelled."""
    while True:
        await asyncio.sleep(STALE_WORDS_INTERVAL_SECONDS)
        await delete_stale_words(database, PAUSE_PER_WORK)
