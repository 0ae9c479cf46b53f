"""Query expansion: finds words similar to the typed words in the vocabulary (the words in patients' names).

Typed words are compared with distinct words and not with patients, because a million patients have only thousands of
distinct words. For a restricted principal, only words of patients of its own hospitals are considered, so that neither
the result nor the time it takes depends on the names of other patients.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple, Self

from sqlalchemy import ARRAY, Integer, Text, TextClause, bindparam, text

from app.db.connection import Connection
from app.locality.short_forms import Groups

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
MAX_UNVERIFIED_SPLIT_LENGTH = 4
"""Maximum number of letters in a typed word that is split without reading the vocabulary, if its letters are not Latin.

In Chinese and Korean, a name of two to four letters may consist of the last name and the first name.
"""
MAX_COUNTED_PATIENTS = 63
"""Maximum number of patients that are counted to find out how common a word is."""
_MIN_SEPARATE_LETTERS = 5
"""Minimum number of letters in words that are hardly ever a part of a longer word, unlike `mac` and `le`."""
_VAN_DER_PATTERN = re.compile(r"vd(?=[^\W\d_]{4})", re.IGNORECASE)
"""The beginning of `vdMerwe`, which is short for van der Merwe."""
_NARROW_KANA = {ord(unicodedata.normalize("NFKC", chr(narrow))): chr(narrow) for narrow in range(0xFF66, 0xFF9E)} | {
    0x3099: "\uff9e",
    0x309A: "\uff9f",
}
"""Translates wide kana into narrow kana (half-width), with voicing marks as separate characters."""
_MAX_FUZZY_WORD_LENGTH = 64
"""Maximum number of letters in a typed word that is checked for typing errors or for matches of the kind SUBSTRING.

Longer vocabulary words cannot match as SUBSTRING either.
"""


def _within_edits(word: str, form: str, max_edits: str) -> str:
    """Return the SQL condition that two SQL expressions differ by at most `max_edits` edits, also an SQL expression.

    The lengths are compared first, because `levenshtein()` takes much longer for long words. `word` is cut to 255
    letters, because `levenshtein()` rejects longer words.
    """
    return f"""
        CASE WHEN abs(char_length({word}) - char_length({form})) <= {max_edits}
        THEN extensions.levenshtein_less_equal(left({word}, 255), {form}, {max_edits}) <= {max_edits} ELSE false END
    """


class _Extent(IntEnum):
    """The part of the typed text that a spelling stands for."""

    WORD = 0
    """A typed word."""
    JOINED = 1
    """Several typed words written together, without errors."""
    JOINED_LOOSELY = 2
    """Several typed words written together, of which one is short. An error is tolerated."""


class MatchKind(IntEnum):
    """How a word in a patient's name matches a typed word, best kind first."""

    EXACT = 0
    """The same word, or for a word of one or two letters, a word that begins with it."""
    SPELLING = 1
    """The same letters, written as one word instead of several, or as several words instead of one."""
    SHORT_FORM = 2
    """A short form of the name, or a name that it is a short form of."""
    ONE_EDIT = 3
    """One letter is added, missing or replaced, or two adjacent letters are swapped.

    The typed word has at least four letters.
    """
    SOUND = 4
    """The words have a Daitch-Mokotoff code in common, and at least half of their letters."""
    PREFIX = 5
    """The name word begins with the typed word."""
    SHORT_WORD_EDIT = 6
    """The same differences as in ONE_EDIT, but the typed word has two or three letters."""
    TWO_EDITS = 7
    """Two differences of the kinds in ONE_EDIT. The typed word has at least four letters."""
    SUBSTRING = 8
    """The name word contains the typed word, which must have at least three letters."""


SHORT_WORD_LENGTH = 3
"""Words with fewer letters than this count as short: they are initials, or almost as short as initials."""
CLOSE_MATCHES = tuple(MatchKind)[: MatchKind.SHORT_WORD_EDIT]
"""Match kinds with which a patient agrees with a typed word."""


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

    Its columns are `n` (the number of the typed word), `likeness` (the match kind) and `word`, which is two words if
    the typed word consists of them. For an unrestricted principal, words are found with an index on `typing_keys`. The
    operator `&&` of this index finds all words within the given number of edits, and some other words, which
    levenshtein() then excludes. For a restricted principal, the words of its hospitals' patients are compared one by
    one, which takes 0.15 ms per thousand words.

    levenshtein() counts two swapped letters as two edits. For this reason, words are also compared with all variants of
    the typed word in which two adjacent letters are swapped.
    """
    index_condition = "" if restricted else "typing_keys(word, 2) && typing_keys(form, {}) AND "
    one_edit = f"""
        {index_condition.format("CASE WHEN char_length(form) > 2 THEN 1 ELSE 0 END")}
        char_length(word) + char_length(form) > 4 AND word <> form
        AND ({_within_edits("word", "form", "1")} OR word = ANY (once))
        AND (char_length(form) > 3 OR NOT starts_with(word, form))
    """
    has_same_code = "extensions.daitch_mokotoff(word) && codes"
    has_half_of_letters = _within_edits("word", "form", "char_length(form) / 2")
    # without an index, the code of a word is computed last, because it takes longest
    sound = f"""
        word <> form AND {has_half_of_letters} AND {
        f"CASE WHEN {has_half_of_letters} THEN {has_same_code} ELSE false END" if restricted else has_same_code
    }
    """
    substring = f"""
        char_length(word) <= {_MAX_FUZZY_WORD_LENGTH} AND word LIKE '%' || form || '%' AND NOT starts_with(word, form)
    """
    two_edits = f"""
        {index_condition.format(2)}
        {_within_edits("word", "form", "4")} AND NOT starts_with(word, form) AND (
            {_within_edits("word", "form", "2")}
            OR EXISTS (SELECT FROM unnest(once) AS o WHERE {_within_edits("word", "o", "1")})
            OR word = ANY (twice)
        )
    """
    vocabulary_cte = """
        WITH dictionary AS MATERIALIZED (
            SELECT word, count(*) AS hospitals, min(since) AS since
            FROM hospital_words WHERE hospital_id = ANY (:hospitals) GROUP BY word
        ), """
    # not EXISTS, for which PostgreSQL would read the whole table
    is_known = (
        "(SELECT word FROM hospital_words WHERE hospital_id = ANY (:hospitals) AND word = {} LIMIT 1) IS NOT NULL"
        if restricted
        else "(SELECT word FROM name_words WHERE word = {}) IS NOT NULL"
    )
    first_part, second_part = "left(form, letter)", "substr(form, letter + 1)"
    statement = text(
        f"""
        {vocabulary_cte if restricted else "WITH "} spelt AS (
            SELECT n, min(extent) AS extent, form
            FROM unnest(:indexes, :extents, :words) AS given(n, extent, word),
                unnest(ARRAY[word, transcribe(word)]) AS spelling,
                LATERAL (
                    SELECT regexp_replace(fold(spelling) COLLATE pg_c_utf8, '[[:punct:][:space:]]+', '', 'g')
                        COLLATE "C" AS form
                ) AS folded
            WHERE form <> '' GROUP BY n, form
        ), swapped AS (
            SELECT n, extent, form, extensions.daitch_mokotoff(left(form, {_MAX_FUZZY_WORD_LENGTH})) AS codes, ARRAY(
                SELECT overlay(form PLACING reverse(substr(form, letter, 2)) FROM letter FOR 2)
                FROM generate_series(1, char_length(form) - 1) AS letter
                WHERE char_length(form) <= {_MAX_FUZZY_WORD_LENGTH}
            ) AS once
            FROM spelt
        ), typed AS MATERIALIZED (
            SELECT n, extent, form, codes, once, ARRAY(
                SELECT overlay(other PLACING reverse(substr(other, letter, 2)) FROM letter FOR 2)
                FROM unnest(once) AS other, generate_series(1, char_length(form) - 1) AS letter
                WHERE extent = {_Extent.WORD:d}
            ) AS twice
            FROM swapped
        )
        SELECT
            n, CASE WHEN extent = {_Extent.WORD:d} THEN {MatchKind.EXACT:d} ELSE {MatchKind.SPELLING:d} END AS likeness,
            form AS word
        FROM typed
        UNION ALL
        SELECT n, {MatchKind.SPELLING:d}, {first_part} || ' ' || {second_part}
        FROM typed, generate_series(1, least(char_length(form), {_MAX_FUZZY_WORD_LENGTH}) - 1) AS letter
        WHERE extent = {_Extent.WORD:d} AND CASE
            WHEN form ~ '[a-z0-9]' OR char_length(form) > {MAX_UNVERIFIED_SPLIT_LENGTH}
            THEN char_length({first_part}) > 1 AND char_length({second_part}) > 1
                AND {is_known.format(first_part)} AND {is_known.format(second_part)}
            ELSE true
        END
        UNION ALL
        SELECT n, likeness, word
        FROM (
            SELECT * FROM typed
            WHERE extent <> {_Extent.JOINED:d} AND char_length(form) BETWEEN 2 AND {_MAX_FUZZY_WORD_LENGTH}
        ) AS typed, LATERAL (
            SELECT
                CASE WHEN char_length(form) > 3 THEN {MatchKind.ONE_EDIT:d} ELSE {MatchKind.SHORT_WORD_EDIT:d} END, word
            FROM ({_best_candidates_sql(one_edit, restricted=restricted)}) AS best
            UNION ALL
            SELECT {MatchKind.SOUND:d}, word FROM ({_best_candidates_sql(sound, restricted=restricted)}) AS best
            WHERE extent = {_Extent.WORD:d} AND char_length(form) > 3
            UNION ALL
            SELECT {MatchKind.SUBSTRING:d}, word FROM ({_best_candidates_sql(substring, restricted=restricted)}) AS best
            WHERE extent = {_Extent.WORD:d} AND char_length(form) > 2
            UNION ALL
            SELECT {MatchKind.TWO_EDITS:d}, word FROM ({_best_candidates_sql(two_edits, restricted=restricted)}) AS best
            WHERE extent = {_Extent.WORD:d} AND char_length(form) > 3
        ) AS alike(likeness, word)
        """  # noqa: S608  # contains only our own constants
    ).bindparams(
        bindparam("indexes", type_=ARRAY(Integer)),
        bindparam("extents", type_=ARRAY(Integer)),
        bindparam("words", type_=ARRAY(Text)),
        # the planner has to know the limits: otherwise it reads all words in the order of their ages
        bindparam("candidates", type_=Integer, literal_execute=True),
    )
    return statement.bindparams(
        bindparam("hospitals", type_=ARRAY(Text))
        if restricted
        else bindparam("ranked", type_=Integer, literal_execute=True)
    )


_SELECT_CANDIDATES = {restricted: _candidates_statement(restricted=restricted) for restricted in (False, True)}


class ExpandedWord(NamedTuple):
    """A typed word together with similar words, as search conditions on `patient_search` in tsquery syntax."""

    folded: str
    """The typed word, case- and accent-folded."""
    is_short: bool
    """Whether the word is so short that an index helps little, because many names contain it or begin with it."""
    alternatives: Mapping[MatchKind, Sequence[str]]
    """The tsqueries for each match kind. Names that match in this way match one of them."""
    words: Mapping[MatchKind, Sequence[str]]
    """The similar words by match kind. Each is only in the best kind in which it matches."""
    patterns: Mapping[MatchKind, str]
    """The tsquery for each match kind of what is not a word: beginnings, and several words that belong together."""

    @classmethod
    def from_candidates(cls, words_by_kind: Mapping[MatchKind, list[str]], groups: Groups) -> Self:
        """Return the expanded word for a typed word, given the matching words by match kind, and the short forms.

        The words of the kind `EXACT` are the spellings of the typed word itself. A short spelling, such as an initial,
        also matches every word that begins with it as `EXACT`.
        """
        spellings = sorted(words_by_kind[MatchKind.EXACT], key=len)
        other_forms = sorted({form for spelling in spellings for form in groups.get(spelling, ())} - set(spellings))
        of_kind = {match_kind: list(words_by_kind.get(match_kind, ())) for match_kind in MatchKind}
        of_kind[MatchKind.EXACT] = [word for word in spellings if not _is_beginning(word)]
        of_kind[MatchKind.SHORT_FORM] = other_forms
        singles = {match_kind: [word for word in found if " " not in word] for match_kind, found in of_kind.items()}
        patterns = {
            match_kind: [_as_tsquery(word) for word in found if " " in word] for match_kind, found in of_kind.items()
        }
        patterns[MatchKind.EXACT] = [_as_tsquery(word, prefix=True) for word in spellings if _is_beginning(word)]
        patterns[MatchKind.PREFIX] = [_as_tsquery(word, prefix=True) for word in spellings]
        words: dict[MatchKind, list[str]] = {}
        known: set[str] = set()
        for match_kind, found in singles.items():
            if better := [word for word in dict.fromkeys(found) if word not in known]:
                words[match_kind] = better
                known.update(better)
        alternatives = {
            match_kind: [*map(_as_tsquery, found), *patterns[match_kind]] for match_kind, found in singles.items()
        }
        joined = {match_kind: " | ".join(found) for match_kind, found in patterns.items() if found}
        return cls(spellings[0], len(spellings[-1]) < SHORT_WORD_LENGTH, alternatives, words, joined)

    @property
    def is_initial(self) -> bool:
        """Whether the word is a single letter with which many names begin."""
        return self.is_short and len(self.folded) == 1

    def any_of(self, match_kinds: Iterable[MatchKind]) -> str:
        """Return the tsquery for names with a word that matches in at least one of `match_kinds`, or an empty one."""
        # each only once, because the index compares the patients that it finds with each of them
        return " | ".join(dict.fromkeys(each for match_kind in match_kinds for each in self.alternatives[match_kind]))


def _is_beginning(spelling: str) -> bool:
    """Return whether a spelling of a typed word is so short that it stands for all words that begin with it."""
    return len(spelling) < SHORT_WORD_LENGTH and spelling.isascii()


def _as_tsquery(words: str, *, prefix: bool = False) -> str:
    """Return the tsquery for names that contain a word, or several words, or words that begin with it if `prefix`.

    The words consist of letters, digits and marks, so they need no escaping.
    """
    suffix = ":*" if prefix else ""
    return "(" + " & ".join(f"'{word}'{suffix}" for word in words.split()) + ")"


def _joined_words(words: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield each sequence of two or three adjacent words, once for each word in it, with the index of that word."""
    for count in (2, 3):
        for start in range(len(words) - count + 1):
            for index in range(start, start + count):
                yield index, words[start : start + count]


def _spellings(words: Sequence[str]) -> Iterator[tuple[int, _Extent, str]]:
    """Yield the spellings of the typed words: the number of the word, what it is a spelling of, and the spelling."""
    for number, word in enumerate(words):
        for spelling in {word, *_other_widths(word)}:
            yield number, _Extent.WORD, spelling
        if _VAN_DER_PATTERN.match(word):
            yield number, _Extent.JOINED, f"vander{word[2:]}"
    for number, parts in _joined_words(words):
        joined = "".join(parts)
        is_loose = len(joined) >= _MIN_SEPARATE_LETTERS > min(map(len, parts)) > 1
        yield number, _Extent.JOINED_LOOSELY if is_loose else _Extent.JOINED, joined


def _other_widths(word: str) -> Iterator[str]:
    """Yield the word with wide and with narrow kana, if it contains kana."""
    wide = unicodedata.normalize("NFKC", word)
    narrow = unicodedata.normalize("NFD", wide).translate(_NARROW_KANA)
    if narrow != unicodedata.normalize("NFD", wide) and len(narrow) <= _MAX_FUZZY_WORD_LENGTH:
        yield from (wide, narrow)


async def expand(
    connection: Connection, words: Sequence[str], hospitals: Collection[str] | None, groups: Groups
) -> list[ExpandedWord | None]:
    """Return the typed words, each expanded with similar words from the vocabulary and with short forms of names.

    A word without searchable characters is replaced by None. `hospitals` is the hospital scope of the principal;
    None means an unrestricted principal. For a restricted principal, only the words of its hospitals' patients are
    considered.
    """
    candidates: dict[int, dict[MatchKind, list[str]]] = defaultdict(lambda: defaultdict(list))
    scope_parameters = (
        {"ranked": MAX_RANKED_CANDIDATES // len(words)} if hospitals is None else {"hospitals": sorted(hospitals)}
    )
    indexes, extents, spellings = zip(*_spellings(words), strict=True)
    rows = await connection.execute(
        _SELECT_CANDIDATES[hospitals is not None],
        {
            "indexes": indexes,
            "extents": extents,
            "words": spellings,
            "candidates": min(MAX_CANDIDATES, MAX_CANDIDATES_PER_SEARCH // len(words)),
            **scope_parameters,
        },
    )
    for n, match_kind, word in rows:
        candidates[n][MatchKind(match_kind)].append(word)
    return [
        ExpandedWord.from_candidates(candidates[n], groups) if candidates[n][MatchKind.EXACT] else None
        for n in range(len(words))
    ]
