"""The dictionary of names: learning its words from imports, and forgetting those that no patient has any more.

Triggers of the database learn the words of everything else that is written (see `app.models.name_word`).
"""

import asyncio
import random
from collections.abc import Sequence

import structlog
from sqlalchemy import ARRAY, Text, bindparam, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.database import Database, LockNotAvailableError, set_local, translate_errors
from app.errors import UnavailableError

log = structlog.get_logger()

STALE_WORDS_INTERVAL_SECONDS = 10
"""How often words are looked at that patients no longer have."""
_SHORT_LOCK_TIMEOUT = set_local({"lock_timeout": "100ms"})
"""Forgetting excludes writers for a moment, and never waits long for its turn: all writers would wait behind it."""

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
"""Words that are looked at in one transaction: some milliseconds."""
MAX_LOCK_ATTEMPTS = 100
"""Attempts to forget the words of an erased person, each of which waits for 0.1 seconds at most."""

_WORDS_PARAMETER = bindparam("words", type_=ARRAY(Text))
_DELETE_UNUSED_WORDS = text("SELECT forget_words(:words)").bindparams(_WORDS_PARAMETER)
_DELETE_STALE_WORDS = text("SELECT forget_stale_words(:words)").bindparams(_WORDS_PARAMETER)
_SELECT_STALE_WORDS = text(
    """
    SELECT DISTINCT word FROM stale_words
    WHERE word > CAST(:after AS text) COLLATE "C" AND NOT pg_is_in_recovery() ORDER BY word LIMIT :most
    """
)


async def words_in_history(connection: AsyncConnection, patient_id: str) -> Sequence[str]:
    """All words of all names that a patient has had."""
    return (await connection.execute(_SELECT_WORDS_IN_HISTORY, {"id": patient_id})).scalars().all()


async def delete_unused_words(connection: AsyncConnection, words: Sequence[str]) -> None:
    """Remove those of some words that no patient, or no patient of a hospital, has any more.

    Raises:
        InTheWayError: other transactions, such as an import, write words all the time.
    """
    for attempt in range(MAX_LOCK_ATTEMPTS):
        try:
            async with translate_errors(), connection.begin_nested():
                await connection.execute(_SHORT_LOCK_TIMEOUT)
                await connection.execute(_DELETE_UNUSED_WORDS, {"words": words})
                return
        except LockNotAvailableError:
            if attempt == MAX_LOCK_ATTEMPTS - 1:
                raise
            await asyncio.sleep(random.uniform(0.1, 0.3))  # noqa: S311  # no secret


async def delete_stale_words(database: Database) -> None:
    """Remove the words that no patient has any more since a name changed, a patient was deleted or a link removed.

    A batch that cannot be done now, since writers or another process are in the way or it takes too long, is left for
    the next time, and keeps no other back.
    """
    after, failure = "", None
    while words := await _select_stale_words(database, after):
        after = words[-1]

        async def work(connection: AsyncConnection, batch: Sequence[str] = words) -> None:
            await connection.execute(_SHORT_LOCK_TIMEOUT)
            await connection.execute(_DELETE_STALE_WORDS, {"words": batch})

        try:
            await database.transaction(work, max_attempts=1)
        except (DBAPIError, UnavailableError) as error:
            failure = type(error).__name__
    if failure is not None:  # said once: a role without the right fails at each batch
        log.info("words were not forgotten yet", error=failure)


async def _select_stale_words(database: Database, after: str) -> Sequence[str]:
    try:
        async with database.read() as connection:
            return (
                (await connection.execute(_SELECT_STALE_WORDS, {"after": after, "most": STALE_WORDS_BATCH_SIZE}))
                .scalars()
                .all()
            )
    except (DBAPIError, UnavailableError) as error:
        log.info("words were not forgotten yet", error=type(error).__name__)
        return ()


async def delete_stale_words_periodically(database: Database) -> None:
    """Forget stale words from time to time, until cancelled."""
    while True:
        await asyncio.sleep(STALE_WORDS_INTERVAL_SECONDS)
        await delete_stale_words(database)


DEFER_NAME_WORDS = set_local({"patients.learn_words": "later", "patients.learn_hospital_words": "later"})
"""Have the triggers learn no words in the rest of a transaction, which has to do it at its end, by `LEARN`.

The first transaction that has a word holds up all others that have it too, until it ends.
"""
_STAGED_WORDS_SQL = """
    FROM patients JOIN staged_patients USING (unique_id) {links},
        unnest((tsvector_to_array(patient_search))[1 : 60]) AS word
    WHERE fate IN ('created', 'updated') AND char_length(word) > {short}
    ON CONFLICT DO NOTHING
"""
STAGE_NAME_WORDS = (
    text("INSERT INTO staged_words SELECT DISTINCT word" + _STAGED_WORDS_SQL.format(links="", short=0)),
    text(
        "INSERT INTO staged_hospital_words SELECT DISTINCT hospital_id, word"
        + _STAGED_WORDS_SQL.format(links="JOIN patient_hospitals ON patient_id = unique_id", short=2)
    ),
)
"""Note the words of patients that are staged (`app.transfer`), and of their hospitals."""
INSERT_NAME_WORDS = (
    text("INSERT INTO name_words (word) SELECT word FROM staged_words ORDER BY word ON CONFLICT DO NOTHING"),
    text(
        "INSERT INTO hospital_words (hospital_id, word) SELECT hospital_id, word FROM staged_hospital_words"
        " ORDER BY hospital_id, word ON CONFLICT DO NOTHING"
    ),
)
"""Learn the words that were noted, in the order in which the triggers learn them."""
