"""Query expansion: finds words similar to the typed words in the vocabulary (the words in patients' names).

Typed words are compared with distinct words and not with patients, because a million patients have only thousands of
distinct words. For a restricted principal, only words of patients of its own hospitals are considered, so that neither
the result nor the time it takes depends on the names of other patients.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple, Self

from sqlalchemy import ARRAY, Integer, Text, TextClause, bindparam, text

from app.db.connection import Connection

MAX_CANDIDATES = 100
"""Maximum number of vocabulary words per match kind and typed word.

Each of these words is looked up in the search index of patients. The limit bounds the number of these lookups per
search, whatever names are stored.
"""
MAX_CANDIDATES_PER_SEARCH = 300
"""Maximum number of vocabulary words, per match kind, for all typed words together.

It only matters if more than three words are typed. Without it, one search for eight words that are similar to hundreds
of names would cost as much as several ordinary searches.
"""
MAX_RANKED_CANDIDATES = 2000
"""Maximum number of matching words, per match kind, that are ranked by how many patients have them.

Words are ranked in this way only if more than `MAX_CANDIDATES` match. The number is divided equally among the typed
words.
"""
MAX_COUNTED_PATIENTS = 63
"""Maximum number of patients that are counted to find out how common a word is."""
_MAX_FUZZY_WORD_LENGTH = 64
"""Maximum number of letters in a typed word that is checked for typing errors or for matches of the kind SUBSTRING.

Longer vocabulary words cannot match as SUBSTRING either.
"""


def _within_edits(word: str, form: str, max_edits: int) -> str:
    """Return the SQL condition that the SQL expressions `word` and `form` differ by at most `max_edits` edits.

    `word` is cut to 255 letters, because levenshtein() rejects longer words.
    """
    return f"extensions.levenshtein_less_equal(left({word}, 255), {form}, {max_edits}) <= {max_edits}"


class MatchKind(IntEnum):
    """How a word in a patient's name matches a typed word.

    The value is the cost of the match in the rank, in thousands: better matches have lower costs.
    """

    EXACT = 0
    PREFIX = 1
    """The name word begins with the typed word."""
    ONE_EDIT = 10
    """One letter is added, missing or replaced, or two adjacent letters are swapped.

    The typed word has at least four letters.
    """
    SHORT_WORD_EDIT = 100
    """The same differences as in ONE_EDIT, but the typed word has two or three letters."""
    SUBSTRING = 200
    """The name word contains the typed word, which must have at least three letters."""
    TWO_EDITS = 300
    """Two differences of the kinds in ONE_EDIT. The typed word has at least four letters."""


SHORT_WORD_LENGTH = 3
"""Words with fewer letters than this count as short: they are initials, or almost as short as initials."""
CLOSE_MATCHES = (MatchKind.EXACT, MatchKind.PREFIX, MatchKind.ONE_EDIT)
"""Match kinds that every search includes."""
DISTANT_MATCHES = (MatchKind.SHORT_WORD_EDIT, MatchKind.SUBSTRING, MatchKind.TWO_EDITS)
"""Match kinds that a search includes only if it has no close matches."""


def _best_candidates_sql(condition: str, *, restricted: bool) -> str:
    """Return the SQL that selects the vocabulary words that meet `condition`, up to `:candidates`.

    If more than `MAX_CANDIDATES` words match, the most common ones come first. Words count as equally common if the
    numbers of their patients, rounded down to a power of four, are the same. Among equally common words, and if fewer
    words match, the words that have been in the vocabulary for longest come first. New names therefore cannot displace
    frequent names, which are more common, or old rare names, which have been in the vocabulary for longer. For a
    restricted principal, words are ordered by the number of the principal's hospitals that have the word and not by the
    number of patients, because the time to count patients would reveal the names of other patients.
    """
    if restricted:
        return f"""
            SELECT word FROM dictionary WHERE {condition}
            ORDER BY hospitals DESC, since, hashtext(word) LIMIT :candidates
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
        LIMIT :candidates
    """  # noqa: S608  # contains only our own constants


def _candidates_statement(*, restricted: bool) -> TextClause:
    """Return the statement that selects the vocabulary words that match each typed word.

    Its columns are `n` (the number of the typed word), `likeness` (the match kind) and `word`. For an unrestricted
    principal, words are found with an index on `typing_keys`. The operator `&&` of this index finds all words within
    the given number of edits, and some other words, which levenshtein() then excludes. For a restricted principal, the
    words of its hospitals' patients are compared one by one, which takes 0.15 ms per thousand words.

    levenshtein() counts two swapped letters as two edits. For this reason, words are also compared with all variants of
    the typed word in which two adjacent letters are swapped.
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
    ).bindparams(bindparam("words", type_=ARRAY(Text)), bindparam("candidates", type_=Integer))
    return statement.bindparams(
        bindparam("hospitals", type_=ARRAY(Text)) if restricted else bindparam("ranked", type_=Integer)
    )


_SELECT_CANDIDATES = {restricted: _candidates_statement(restricted=restricted) for restricted in (False, True)}


class ExpandedWord(NamedTuple):
    """A typed word together with similar words, as search conditions on `patient_search` in tsquery syntax."""

    letter_count: int
    is_short: bool
    """Whether the word is so short that an index helps little, because many names contain it or begin with it."""
    queries: dict[MatchKind, str]
    """The tsquery for each match kind. It is empty if no word matches in this way."""

    @classmethod
    def from_candidates(cls, words_by_kind: dict[MatchKind, list[str]]) -> Self:
        """Return the expanded word for a typed word, given the matching words by match kind.

        The words of the kind `EXACT` are the spellings of the typed word itself. A short spelling, such as an initial,
        also matches every word that begins with it as `EXACT`.
        """
        spellings = sorted(words_by_kind[MatchKind.EXACT], key=len)
        queries = {match_kind: _any_word(words_by_kind.get(match_kind, ())) for match_kind in MatchKind}
        queries[MatchKind.EXACT] = " | ".join(
            _any_word([word], prefix=len(word) < SHORT_WORD_LENGTH) for word in spellings
        )
        queries[MatchKind.PREFIX] = _any_word(spellings, prefix=True)
        return cls(len(spellings[0]), len(spellings[-1]) < SHORT_WORD_LENGTH, queries)

    def any_of(self, match_kinds: Iterable[MatchKind]) -> str:
        """Return the tsquery for names with a word that matches in at least one of `match_kinds`."""
        return " | ".join(filter(None, (self.queries[match_kind] for match_kind in match_kinds)))


def _any_word(words: Sequence[str], *, prefix: bool = False) -> str:
    """Return the tsquery for names that contain at least one of `words`.

    If `prefix` is true, the names may also contain longer words that begin with one of them. The words consist of
    letters, digits and marks, so they need no escaping.
    """
    return " | ".join(f"'{word}'{':*' if prefix else ''}" for word in words)


async def expand(connection: Connection, words: Sequence[str], hospitals: Collection[str] | None) -> list[ExpandedWord]:
    """Return the typed words, each expanded with similar words from the vocabulary.

    Words without searchable characters are left out of the result. `hospitals` is the hospital scope of the principal;
    None means an unrestricted principal. For a restricted principal, only the words of its hospitals' patients are
    considered.
    """
    candidates: dict[int, dict[MatchKind, list[str]]] = defaultdict(lambda: defaultdict(list))
    scope_parameters = (
        {"ranked": MAX_RANKED_CANDIDATES // len(words)} if hospitals is None else {"hospitals": sorted(hospitals)}
    )
    rows = await connection.execute(
        _SELECT_CANDIDATES[hospitals is not None],
        {
            "words": list(words),
            "candidates": min(MAX_CANDIDATES, MAX_CANDIDATES_PER_SEARCH // len(words)),
            **scope_parameters,
        },
    )
    for n, match_kind, word in rows:
        candidates[n][MatchKind(match_kind)].append(word)
    return [ExpandedWord.from_candidates(candidates[n]) for n in sorted(candidates)]
