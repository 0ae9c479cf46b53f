"""The words that are meant: what was typed, compared with the words that names of patients have.

Typing errors are looked up among different words, of which there are thousands where there are a million patients; for
a principal limited to hospitals, among the words of its own patients alone. So what it finds, and how long that takes,
depends on nobody else's names.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple, Self

from sqlalchemy import ARRAY, Integer, Text, TextClause, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

MAX_CANDIDATES = 100
"""Words of each likeness, to one that was typed: what they ask of the index is bounded, whatever names there are."""
MAX_RANKED_CANDIDATES = 2000
"""Words that are ranked by their use where more than `MOST_ALIKE` are alike, shared by all that was typed."""
MAX_COUNTED_PATIENTS = 63
"""Patients up to which the use of a word is counted."""
_MAX_FUZZY_WORD_LENGTH = 64
"""Letters of a typed word in which errors are looked for, and of a word in whose middle it is."""


def _within_edits(word: str, form: str, max_edits: int) -> str:
    """Whether two words are at most so many errors apart; levenshtein() refuses words of more than 255 letters."""
    return f"extensions.levenshtein_less_equal(left({word}, 255), {form}, {max_edits}) <= {max_edits}"


class MatchKind(IntEnum):
    """How a word of a name is like what was typed; the number is what that costs in the rank, in thousands."""

    EXACT = 0
    PREFIX = 1
    """It begins so."""
    ONE_EDIT = 10
    """A letter too many, too few, or another, or two in the wrong order; in words of four letters and more."""
    SHORT_WORD_EDIT = 100
    """The same in words of two and three letters."""
    SUBSTRING = 200
    """It has what was typed somewhere inside."""
    TWO_EDITS = 300
    """In words of four letters and more."""


PREFIX_ONLY_LENGTH = 3
"""Letters; words that have fewer are initials, or nearly."""
CLOSE_MATCHES = (MatchKind.EXACT, MatchKind.PREFIX, MatchKind.ONE_EDIT)
"""What is looked for at once."""
DISTANT_MATCHES = (MatchKind.SHORT_WORD_EDIT, MatchKind.SUBSTRING, MatchKind.TWO_EDITS)
"""What is looked for besides, where that finds nobody."""


def _best_candidates_sql(condition: str, *, restricted: bool) -> str:
    """SQL of the words that meet the condition `alike`: the most used first, then those known for longest.

    Use is counted in powers of four of the patients that have a word. Names that somebody adds hide no frequent name,
    since that is used more, and no rare name from before, since that is known for longer. For a limited principal use
    is the number of its hospitals that have the word: counting patients would tell by its time what others have.
    """
    if restricted:
        return f"""
            SELECT word FROM dictionary WHERE {condition}
            ORDER BY hospitals DESC, since, hashtext(word) LIMIT {MAX_CANDIDATES}
        """  # noqa: S608  # put together from our own words and numbers
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
    """  # noqa: S608  # as above


def _candidates_statement(*, restricted: bool) -> TextClause:
    """The statement that answers the words that are alike each typed one: `n`, `likeness` and `word`.

    The words of all patients are under an index of `typing_keys`, whose `&&` finds all words with so few errors, and
    some more. The words of a limited principal's hospitals are compared one by one, a thousand in 0.15 ms.
    levenshtein counts two for letters in the wrong order, so words are compared with all in which two neighbours have
    changed places, too.
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
        """  # noqa: S608  # put together from our own words and numbers
    ).bindparams(bindparam("words", type_=ARRAY(Text)))
    return statement.bindparams(
        bindparam("hospitals", type_=ARRAY(Text)) if restricted else bindparam("ranked", type_=Integer)
    )


_SELECT_CANDIDATES = {restricted: _candidates_statement(restricted=restricted) for restricted in (False, True)}


class ExpandedWord(NamedTuple):
    """A typed word, as conditions on `patient_search`, each in the language of tsquery; "" where no word is alike."""

    letter_count: int
    is_prefix_only: bool
    """Whether so many names have it, or begin so, that an index helps little."""
    queries: dict[MatchKind, str]

    @classmethod
    def from_candidates(cls, words_by_kind: dict[MatchKind, list[str]]) -> Self:
        """The conditions of one typed word, whose own spellings are the `SAME`; of an initial, what begins with it."""
        spellings = sorted(words_by_kind[MatchKind.EXACT], key=len)
        queries = {match_kind: _any_word(words_by_kind.get(match_kind, ())) for match_kind in MatchKind}
        queries[MatchKind.EXACT] = " | ".join(
            _any_word([word], prefix=len(word) < PREFIX_ONLY_LENGTH) for word in spellings
        )
        queries[MatchKind.PREFIX] = _any_word(spellings, prefix=True)
        return cls(len(spellings[0]), len(spellings[-1]) < PREFIX_ONLY_LENGTH, queries)

    def any_of(self, match_kinds: Iterable[MatchKind]) -> str:
        """The condition that a word is alike in one of these ways."""
        return " | ".join(filter(None, (self.queries[match_kind] for match_kind in match_kinds)))


def _any_word(words: Sequence[str], *, prefix: bool = False) -> str:
    """The condition that there is one of some words, which have letters, digits and marks alone."""
    return " | ".join(f"'{word}'{':*' if prefix else ''}" for word in words)


async def expand(
    connection: AsyncConnection, words: Sequence[str], hospitals: Collection[str] | None
) -> list[ExpandedWord]:
    """What typed words mean; one that has nothing by which it could be found is left out.

    On behalf of a principal limited to `hospitals`, only the words of their patients are considered.
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
