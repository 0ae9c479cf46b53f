"""Query expansion: compares the typed words with the vocabulary, which is the words in the names of patients.

Typing errors are matched against distinct words, of which there are thousands for a million patients. For a restricted
principal only the words of its own hospitals' patients are considered, so that the result, and the time it takes, do
not depend on the names of other patients.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple, Self

from sqlalchemy import ARRAY, Integer, Text, TextClause, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

MAX_CANDIDATES = 100
"""Maximum number of words per match kind and typed word, so that index use is bounded, whatever names there are."""
MAX_RANKED_CANDIDATES = 2000
"""Maximum number of words that are ranked by use if more than `MAX_CANDIDATES` match, shared by all typed words."""
MAX_COUNTED_PATIENTS = 63
"""Maximum number of patients that are counted to measure the use of a word."""
_MAX_FUZZY_WORD_LENGTH = 64
"""Maximum number of letters of a typed word that may have typing errors, and of a word that is matched as SUBSTRING."""


def _within_edits(word: str, form: str, max_edits: int) -> str:
    """Return the SQL condition that two words are within `max_edits` edits.

    The word is cut, because levenshtein() rejects words of more than 255 letters.
    """
    return f"extensions.levenshtein_less_equal(left({word}, 255), {form}, {max_edits}) <= {max_edits}"


class MatchKind(IntEnum):
    """How a word of a name matches a typed word; the value is the cost of the match in the rank, in thousands."""

    EXACT = 0
    PREFIX = 1
    """The name word begins with the typed word."""
    ONE_EDIT = 10
    """One letter is added, missing or replaced, or two neighbouring letters are swapped, in words of at least four."""
    SHORT_WORD_EDIT = 100
    """As ONE_EDIT, in words of two or three letters."""
    SUBSTRING = 200
    """The name word contains the typed word, which has three letters or more."""
    TWO_EDITS = 300
    """Two errors as in ONE_EDIT, in words of at least four letters."""


SHORT_WORD_LENGTH = 3
"""Words with fewer letters than this are initials or almost as short."""
CLOSE_MATCHES = (MatchKind.EXACT, MatchKind.PREFIX, MatchKind.ONE_EDIT)
"""Match kinds that are always searched."""
DISTANT_MATCHES = (MatchKind.SHORT_WORD_EDIT, MatchKind.SUBSTRING, MatchKind.TWO_EDITS)
"""Match kinds that are searched in addition if there are no close matches."""


def _best_candidates_sql(condition: str, *, restricted: bool) -> str:
    """Return the SQL for the words that meet `condition`: the most used first, then those known for longest.

    Use is the number of patients that have the word, in powers of four. Names that somebody adds hide no frequent name,
    which is used more, and no older rare name, which has been known for longer. For a restricted principal, use is the
    number of its hospitals that have the word: the time to count patients would reveal the names of other patients.
    """
    if restricted:
        return f"""
            SELECT word FROM dictionary WHERE {condition}
            ORDER BY hospitals DESC, since, hashtext(word) LIMIT {MAX_CANDIDATES}
        """  # noqa: S608  # contains only our own constants
    return f"""
        SELECT word
        FROM (
            SELECT word, since, count(*) OVER () > {MAX_CANDIDATES} AS too_many
            FROM (SELECT word, since FROM name_words WHERE {condition} ORDER BY since LIMIT :ranked) AS known
        ) AS known
        ORDER BY CASE WHEN too_many THEN floor(log(4, 1 + (
                SELECT count(*) FROM (
                    SELECT FROM patients WHERE patient_search @@ CAST(quote_literal(word) AS tsquery)
                    LIMIT {MAX_COUNTED_PATIENTS}
                ) AS having_it
            ))) END DESC, since, hashtext(word)
        LIMIT {MAX_CANDIDATES}
    """  # noqa: S608  # contains only our own constants


def _candidates_statement(*, restricted: bool) -> TextClause:
    """Return the statement for the words that match each typed word: `n` (its number), `likeness` (kind) and `word`.

    The words of all patients have an index on `typing_keys`, whose `&&` finds all words within that many edits, and
    some more. The words of a restricted principal's hospitals are compared one by one, a thousand in 0.15 ms.
    levenshtein() counts swapped letters as two edits, so words are also compared with all variants of the typed word in
    which two neighbouring letters are swapped.
    """
    index_condition = "" if restricted else "typing_keys(word, 2) && typing_keys(form, {}) AND "
    one_edit = f"""
        {index_condition.format("CASE WHEN char_length(form) > 2 THEN 1 ELSE 0 END")}
        char_length(word) + char_length(form) > 4
        AND ({_within_edits("word", "form", 1)} OR word = ANY (once))
    """
    substring = (
        f"char_length(form) > 2 AND char_length(word) <= {_MAX_FUZZY_WORD_LENGTH} AND word LIKE '%' || form || '%'"
    )
    two_edits = f"""
        {index_condition.format(2)}
        char_length(form) > 3 AND {_within_edits("word", "form", 4)} AND (
            {_within_edits("word", "form", 2)}
            OR EXISTS (SELECT FROM unnest(once) AS o WHERE {_within_edits("word", "o", 1)})
            OR word = ANY (twice)
        )
    """
    vocabulary_cte = """
        WITH dictionary AS MATERIALIZED (
            SELECT word, count(*) AS hospitals, min(since) AS since
            FROM hospital_words WHERE hospital_id = ANY (:hospitals) GROUP BY word
        ), """
    statement = text(
        f"""
        {vocabulary_cte if restricted else "WITH "} spelt AS (
            SELECT DISTINCT n, regexp_replace(fold(spelling) COLLATE pg_c_utf8, '[[:punct:][:space:]]+', '', 'g')
                COLLATE "C" AS form
            FROM unnest(:words) WITH ORDINALITY AS given(word, n), unnest(ARRAY[word, transcribe(word)]) AS spelling
        ), swapped AS (
            SELECT n, form, ARRAY(
                SELECT overlay(form PLACING reverse(substr(form, place, 2)) FROM place FOR 2)
                FROM generate_series(1, char_length(form) - 1) AS place
                WHERE char_length(form) <= {_MAX_FUZZY_WORD_LENGTH}
            ) AS once
            FROM spelt WHERE form <> ''
        ), typed AS MATERIALIZED (
            SELECT n, form, once, ARRAY(
                SELECT overlay(other PLACING reverse(substr(other, place, 2)) FROM place FOR 2)
                FROM unnest(once) AS other, generate_series(1, char_length(form) - 1) AS place
            ) AS twice
            FROM swapped
        )
        SELECT n, {MatchKind.EXACT:d} AS likeness, form AS word FROM typed
        UNION ALL
        SELECT n, likeness, word
        FROM (SELECT * FROM typed WHERE char_length(form) BETWEEN 2 AND {_MAX_FUZZY_WORD_LENGTH}) AS typed, LATERAL (
            SELECT
                CASE WHEN char_length(form) > 3 THEN {MatchKind.ONE_EDIT:d} ELSE {MatchKind.SHORT_WORD_EDIT:d} END, word
            FROM ({_best_candidates_sql(one_edit, restricted=restricted)}) AS best
            UNION ALL
            SELECT {MatchKind.SUBSTRING:d}, word FROM ({_best_candidates_sql(substring, restricted=restricted)}) AS best
            UNION ALL
            SELECT {MatchKind.TWO_EDITS:d}, word FROM ({_best_candidates_sql(two_edits, restricted=restricted)}) AS best
        ) AS alike(likeness, word)
        WHERE NOT starts_with(word, form)
        """  # noqa: S608  # contains only our own constants
    ).bindparams(bindparam("words", type_=ARRAY(Text)))
    return statement.bindparams(
        bindparam("hospitals", type_=ARRAY(Text)) if restricted else bindparam("ranked", type_=Integer)
    )


_SELECT_CANDIDATES = {restricted: _candidates_statement(restricted=restricted) for restricted in (False, True)}


class ExpandedWord(NamedTuple):
    """A typed word as conditions on `patient_search`, in tsquery syntax."""

    letter_count: int
    is_short: bool
    """Whether the word is so short that many names have it or begin with it, and an index helps little."""
    queries: dict[MatchKind, str]
    """The condition for each match kind; "" if no word matches in this way."""

    @classmethod
    def from_candidates(cls, words_by_kind: dict[MatchKind, list[str]]) -> Self:
        """Return the conditions for a typed word, whose own spellings are its `EXACT` words.

        A short spelling, such as an initial, also matches all words that begin with it as `EXACT`.
        """
        spellings = sorted(words_by_kind[MatchKind.EXACT], key=len)
        queries = {match_kind: _any_word(words_by_kind.get(match_kind, ())) for match_kind in MatchKind}
        queries[MatchKind.EXACT] = " | ".join(
            _any_word([word], prefix=len(word) < SHORT_WORD_LENGTH) for word in spellings
        )
        queries[MatchKind.PREFIX] = _any_word(spellings, prefix=True)
        return cls(len(spellings[0]), len(spellings[-1]) < SHORT_WORD_LENGTH, queries)

    def any_of(self, match_kinds: Iterable[MatchKind]) -> str:
        """Return the condition that a word matches in one of these kinds."""
        return " | ".join(filter(None, (self.queries[match_kind] for match_kind in match_kinds)))


def _any_word(words: Sequence[str], *, prefix: bool = False) -> str:
    """Return the condition for any of the words; they consist of letters, digits and marks, so need no escaping."""
    return " | ".join(f"'{word}'{':*' if prefix else ''}" for word in words)


async def expand(
    connection: AsyncConnection, words: Sequence[str], hospitals: Collection[str] | None
) -> list[ExpandedWord]:
    """Return the expanded words, without those that have no characters by which they could be found.

    For a principal that is restricted to `hospitals`, only the words of their patients are considered.
    """
    candidates: dict[int, dict[MatchKind, list[str]]] = defaultdict(lambda: defaultdict(list))
    scope_parameters = (
        {"ranked": MAX_RANKED_CANDIDATES // len(words)} if hospitals is None else {"hospitals": sorted(hospitals)}
    )
    rows = await connection.execute(
        _SELECT_CANDIDATES[hospitals is not None], {"words": list(words), **scope_parameters}
    )
    for n, match_kind, word in rows:
        candidates[n][MatchKind(match_kind)].append(word)
    return [ExpandedWord.from_candidates(candidates[n]) for n in sorted(candidates)]
