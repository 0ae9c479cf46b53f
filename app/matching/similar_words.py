"""The words in names of patients that a word may be a misspelling of, or may stand for."""

import math
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import combinations

from cachetools import LRUCache
from rapidfuzz.distance import OSA
from sqlalchemy import ARRAY, DateTime, Text, TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import JSON

from app.db.connection import Connection
from app.locality.names import SHORT_FORMS

MAX_NEAR_WORDS = 40
"""Maximum number of similar words of other names that are considered for each word of a name."""
LONG_WORD_LENGTH = 4
"""Minimum length of the words that are searched for. Shorter words are particles, initials and titles, and are searched
for only if a name has no other words.
"""
_TWO_ERRORS_LENGTH = 7
"""Length from which words that differ by two typing errors count as similar."""
_PREFIX_LENGTH = 7
"""Number of letters at the beginning of a word by which similar words are found, as in the index."""
MAX_KEPT_WORDS = 10_000
"""Maximum number of words whose similar words are kept, which take half a kilobyte each."""
MAX_NEW_WORDS = 500
"""Maximum number of new words of names for which the kept words are brought up to date. Beyond that, as after an
import, they are read again."""
COMMIT_DELAY = timedelta(seconds=10)
"""For how long a new word may be invisible, because the transaction that adds it has yet to commit."""
MAX_AGE_SECONDS = 2
"""Maximum age of what `SimilarWords.refresh_if_old` leaves as it is."""
HOSPITALS = bindparam("hospitals", type_=ARRAY(Text))


def _near_words_statement(*, restricted: bool) -> TextClause:
    """Return the statement that selects similar words of stored names for each of the words in `:words`.

    The words are JSON and not an array, because the planner would estimate the length of each array, and plan the
    statement again.
    """
    own_words, source = "", "name_words WHERE typing_keys(word, 2) && keys"
    if restricted:
        # read once, and compared one by one: an index of all words would take longer if others have similar ones
        own_words = """
        WITH own_words AS MATERIALIZED (
            SELECT DISTINCT word, char_length(word) AS length FROM hospital_words WHERE hospital_id = ANY (:hospitals)
        )
        """
        source = "own_words WHERE length BETWEEN char_length(given) - 2 AND char_length(given) + 2"
    statement = text(
        f"""
        {own_words}
        SELECT given, near.word
        FROM json_to_recordset(:words) AS given(given text, keys text[]), LATERAL (
            SELECT word, edits
            FROM (
                SELECT word, extensions.levenshtein_less_equal(left(word, 255), given, 2) AS edits FROM {source}
                OFFSET 0  -- the distance is computed once
            ) AS alike
            WHERE edits <= 2 ORDER BY edits, word LIMIT {MAX_NEAR_WORDS}
        ) AS near
        """  # noqa: S608  # contains only our own constants
    ).bindparams(bindparam("words", type_=JSON))
    return statement.bindparams(HOSPITALS) if restricted else statement


_SELECT_NEAR_WORDS = {restricted: _near_words_statement(restricted=restricted) for restricted in (False, True)}
_SELECT_NEW_WORDS = text(
    f"""
    SELECT statement_timestamp(), ARRAY(
        SELECT word FROM name_words WHERE since >= :after ORDER BY since LIMIT {MAX_NEW_WORDS + 1}
    )
    """  # noqa: S608  # our own constant
).bindparams(bindparam("after", type_=DateTime(timezone=True)))


def typing_keys(word: str, errors: int) -> set[str]:
    """Return what the SQL function `typing_keys` returns, which takes PostgreSQL as long as half of the search."""
    prefix = word[:_PREFIX_LENGTH]
    lengths = range(len(prefix), max(len(prefix) - errors, 1) - 1, -1)
    return {"".join(letters) for length in lengths for letters in combinations(prefix, length)}


def _max_errors(word: str) -> int:
    """Return the number of typing errors by which words are similar to a word."""
    return 2 if len(word) >= _TWO_ERRORS_LENGTH else 1


class SimilarWords:
    """Finds the words of stored names that are similar to a word: its correct spelling, or a form of the same name.

    Words that were read are kept, so that many patients with the same names cost little. `refresh` adds the words of
    names that were stored later to what is kept.
    """

    def __init__(self, hospitals: Collection[str] | None = None) -> None:
        """`hospitals` is the hospital scope of the principal; None means an unrestricted principal."""
        self.scope = {} if hospitals is None else {"hospitals": sorted(hospitals)}
        self._words: LRUCache[str, set[str]] = LRUCache(MAX_KEPT_WORDS)
        self._after: datetime | None = None
        """From when on words may be new, by the database's clock."""
        self._new_words: dict[str, list[str]] = {}
        """The words near each of the new words. They are considered again until no slow transaction can interfere."""
        self._refreshed_at = -math.inf
        """When the last refresh began, by the monotonic clock."""

    async def read(self, connection: Connection, words: Collection[str]) -> Mapping[str, Collection[str]]:
        """Return the words that are similar to each of the `words`, and each word itself."""
        similar = {word: kept for word in words if (kept := self._words.get(word)) is not None}
        unknown = [word for word in words if word not in similar]
        for word in unknown:
            similar[word] = {word, *SHORT_FORMS.get(word, ())}
        long_words = {word: _max_errors(word) for word in unknown if len(word) >= LONG_WORD_LENGTH}
        near = await self._near_words(connection, long_words)
        for word, errors in long_words.items():
            similar[word].update(each for each in near[word] if OSA.distance(word, each) <= errors)
        for word in unknown:
            if word not in near or word in near[word]:  # `refresh` finds no words that are in no name
                self._words[word] = similar[word]
        return similar

    async def refresh_if_old(self, connection: Connection) -> None:
        """Call `refresh` unless this was done less than `MAX_AGE_SECONDS` ago, or nothing is kept between requests.

        This suffices for requests: the comparison in the background finds the patients that a request misses.
        """
        if not self.scope and time.monotonic() - self._refreshed_at >= MAX_AGE_SECONDS:
            await self.refresh(connection)

    async def refresh(self, connection: Connection) -> None:
        """Add the words of names that were added to the register since the last call to the words near them."""
        self._refreshed_at = time.monotonic()
        now, words = (await connection.execute(_SELECT_NEW_WORDS, {"after": self._after})).one()
        if self._after is None or len(words) > MAX_NEW_WORDS:
            self._words.clear()
            words = []
        self._after = now - COMMIT_DELAY
        # also short words are near a word, and also those that are near by its number of errors, not by their own
        unknown = {word: 2 for word in words if word not in self._new_words}
        near = await self._near_words(connection, unknown)
        for word in unknown:
            self._words.pop(word, None)
        self._new_words = {word: self._new_words.get(word) or near.get(word, []) for word in words}
        for new_word, near_words in self._new_words.items():
            for word in near_words:
                if len(word) >= LONG_WORD_LENGTH and OSA.distance(word, new_word) <= _max_errors(word):
                    self._words.get(word, set()).add(new_word)

    async def _near_words(self, connection: Connection, words: Mapping[str, int]) -> dict[str, list[str]]:
        """Return the words in names that may differ from each of the `words` by that number of typing errors."""
        near: dict[str, list[str]] = {word: [] for word in words}
        if words:
            given = [{"given": word, "keys": [*typing_keys(word, errors)]} for word, errors in sorted(words.items())]
            parameters = {"words": given, **self.scope}
            for word, near_word in (await connection.execute(_SELECT_NEAR_WORDS[bool(self.scope)], parameters)).records:
                near[word].append(near_word)
        return near


def names_query(words: Iterable[str], similar: Mapping[str, Collection[str]]) -> str:
    """Return the tsquery for names with one of the `words`, or a `similar` word, which `SimilarWords.read` returns.

    The words consist of letters, digits and marks, so they need no escaping.
    """
    return " | ".join(f"'{word}'" for word in sorted({other for word in words for other in similar[word]}))
