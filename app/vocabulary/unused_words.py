"""Deletes unused words from the search vocabulary. A word is unused if no patient's name contains it any more.

The words of an erased patient are deleted at once, all other words in the background (`app.vocabulary.stale_words`).
Database triggers add words (`app.models.name_word`), and an import adds its words at its end
(`app.staging.name_words`).
"""

import asyncio
import random
from collections.abc import Sequence

from sqlalchemy import ARRAY, Text, bindparam, text

from app.db.connection import Connection
from app.db.database import SET_SHORT_LOCK_TIMEOUT
from app.db.errors import LockNotAvailableError, translate_errors

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
MAX_LOCK_ATTEMPTS = 100
"""Maximum number of attempts to delete the words of an erased patient.

Each attempt waits up to 0.1 seconds for the locks.
"""

_DELETE_UNUSED_WORDS = text("SELECT forget_words(:words)").bindparams(bindparam("words", type_=ARRAY(Text)))


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
