"""Deletes unused words from the search vocabulary. A word is unused if no patient's name contains it any more.

Words are deleted in the background, and when a patient is erased. Database triggers add words (`app.models.name_word`),
and an import adds its words at its end (`app.transfer.name_words`).
"""

import asyncio
import random
from collections.abc import Sequence

import asyncpg
import structlog
from sqlalchemy import ARRAY, Text, bindparam, text

from app.db.connection import Connection
from app.db.database import SET_SHORT_LOCK_TIMEOUT, Database, LockNotAvailableError, translate_errors
from app.errors import UnavailableError

log = structlog.get_logger()

STALE_WORDS_INTERVAL_SECONDS = 10
"""Seconds between two runs of the background deletion of unused words."""
_SELECT_WORDS_IN_HISTORY = text(
    """
    SELECT DISTINCT word
    FROM journal, unnest(tsvector_to_array(spellings(
        record->>'patient_last_name', record->>'patient_first_name',
        record->>'patient_initials', record->>'patient_title'
    ))) AS word
    WHERE resource = 'patients' AND unique_id = :id
    """
)
STALE_WORDS_BATCH_SIZE = 50
"""Maximum number of words that one transaction checks, so that a transaction takes only a few milliseconds."""
MAX_LOCK_ATTEMPTS = 100
"""Maximum number of attempts to delete the words of an erased patient.

Each attempt waits up to 0.1 seconds for the locks.
"""

_WORDS_PARAMETER = bindparam("words", type_=ARRAY(Text))
_DELETE_UNUSED_WORDS = text("SELECT forget_words(:words)").bindparams(_WORDS_PARAMETER)
_DELETE_STALE_WORDS = text("SELECT forget_stale_words(:words)").bindparams(_WORDS_PARAMETER)
_SELECT_STALE_WORDS = text(
    """
    SELECT DISTINCT word FROM stale_words
    WHERE word > CAST(:after AS text) COLLATE "C" AND NOT pg_is_in_recovery() ORDER BY word LIMIT :most
    """
)


async def words_in_history(connection: Connection, patient_id: str) -> Sequence[str]:
    """Return all words of all names that a patient has ever had, according to the journal."""
    return (await connection.execute(_SELECT_WORDS_IN_HISTORY, {"id": patient_id})).scalars().all()


async def delete_unused_words(connection: Connection, words: Sequence[str]) -> None:
    """Delete the words in `words` that are no longer used.

    A word is deleted from the vocabulary if no patient has it any more, and from the words of a hospital if no patient
    of this hospital has it any more.

    Raises:
        LockNotAvailableError: the locks were not available in any attempt, because other transactions, such as an
            import, write words all the time.
    """
    for attempt in range(MAX_LOCK_ATTEMPTS):
        try:
            async with translate_errors(), connection.savepoint():
                await connection.execute(SET_SHORT_LOCK_TIMEOUT)
                await connection.execute(_DELETE_UNUSED_WORDS, {"words": words})
                return
        except LockNotAvailableError:
            if attempt == MAX_LOCK_ATTEMPTS - 1:
                raise
            await asyncio.sleep(random.uniform(0.1, 0.3))  # noqa: S311  # jitter, not a secret


async def delete_stale_words(database: Database) -> None:
    """Delete the queued words that are no longer used.

    A word is queued when a name changes, a patient is deleted or a link is removed. The words are deleted in batches. A
    batch fails if writers or another process hold the locks, or if the batch takes too long. A failed batch is left for
    the next run and does not hold up other batches.
    """
    after, failure = "", None
    while words := await _select_stale_words(database, after):
        after = words[-1]

        async def work(connection: Connection, batch: Sequence[str] = words) -> None:
            await connection.execute(SET_SHORT_LOCK_TIMEOUT)
            await connection.execute(_DELETE_STALE_WORDS, {"words": batch})

        try:
            await database.transaction(work, max_attempts=1)
        except (asyncpg.PostgresError, UnavailableError) as error:
            failure = type(error).__name__
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
        await delete_stale_words(database)
