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

MOST_ALIKE = 100
"""Words of each likeness, to one that was typed: what they ask of the index is bounded, whatever names there are."""
MOST_RANKED = 2000
"""Words that are ranked by their use where more than `MOST_ALIKE` are alike, shared by all that was typed."""
MOST_COUNTED = 63
"""Patients up to which the use of a word is counted."""
_LONGEST = 64
"""Letters of a typed word in which errors are looked for, and of a word in whose middle it is."""


def _apart(word: str, form: str, errors: int) -> str:
    """Whether two words are at most so many errors apart; levenshtein() refuses words of more than 255 letters."""
    return f"extensions.levenshtein_less_equal(left({word}, 255), {form}, {errors}) <= {errors}"


class Likeness(IntEnum):
    """How a word of a name is like what was typed; the number is what that costs in the rank, in thousands."""

    SAME = 0
    BEGINNING = 1
    """It begins so."""
    ONE_ERROR = 10
    """A letter too many, too few, or another, or two in the wrong order; in words of four letters and more."""
    SHORT_ERROR = 100
    """The same in words of two and three letters."""
    INSIDE = 200
    """It has what was typed somewhere inside."""
    TWO_ERRORS = 300
    """In words of four letters and more."""


SHORT = 3
"""Letters; words that have fewer are initials, or nearly."""
NEAR = (Likeness.SAME, Likeness.BEGINNING, Likeness.ONE_ERROR)
"""What is looked for at once."""
FAR = (Likeness.SHORT_ERROR, Likeness.INSIDE, Likeness.TWO_ERRORS)
"""What is looked for besides, where that finds nobody."""


def _best(alike: str, *, limited: bool) -> str:
    """SQL of the words that meet the condition `alike`: the most used first, then those known for longest.

    Use is counted in powers of four of the patients that have a word. Names that somebody adds hide no frequent name,
    since that is used more, and no rare name from before, since that is known for longer. For a limited principal use
    is the number of its hospitals that have the word: counting patients would tell by its time what others have.
    """
    if limited:
        return f"""
            SELECT word FROM dictionary WHERE {alike}
            ORDER BY hospitals DESC, since, hashtext(word) LIMIT {MOST_ALIKE}
        """  # noqa: S608  # put together from our own words and numbers
    return f"""
        SELECT word
        FROM (
            SELECT word, since, count(*) OVER () > {MOST_ALIKE} AS too_many
            FROM (SELECT word, since FROM name_words WHERE {alike} ORDER BY since LIMIT :ranked) AS known
        ) AS known
        ORDER BY CASE WHEN too_many THEN floor(log(4, 1 + (
                SELECT count(*) FROM (
                    SELECT FROM patients WHERE patient_search @@ CAST(quote_literal(word) AS tsquery)
                    LIMIT {MOST_COUNTED}
                ) AS having_it
            ))) END DESC, since, hashtext(word)
        LIMIT {MOST_ALIKE}
    """  # noqa: S608  # as above


def _alike_statement(*, limited: bool) -> TextClause:
    """The statement that answers the words that are alike each typed one: `n`, `likeness` and `word`.

    The words of all patients are under an index of `typing_keys`, whose `&&` finds all words with so few errors, and
    some more. The words of a limited principal's hospitals are compared one by one, a thousand in 0.15 ms.
    levenshtein counts two for letters in the wrong order, so words are compared with all in which two neighbours have
    changed places, too.
    """
    keys = "" if limited else "typing_keys(word, 2) && typing_keys(form, {}) AND "
    one_error = f"""
        {keys.format("CASE WHEN char_length(form) > 2 THEN 1 ELSE 0 END")}
        char_length(word) + char_length(form) > 4
        AND ({_apart("word", "form", 1)} OR word = ANY (once))
    """
    inside = f"char_length(form) > 2 AND char_length(word) <= {_LONGEST} AND word LIKE '%' || form || '%'"
    two_errors = f"""
        {keys.format(2)}
        char_length(form) > 3 AND {_apart("word", "form", 4)} AND (
            {_apart("word", "form", 2)} OR EXISTS (SELECT FROM unnest(once) AS o WHERE {_apart("word", "o", 1)})
            OR word = ANY (twice)
        )
    """
    dictionary = """
        WITH dictionary AS MATERIALIZED (
            SELECT word, count(*) AS hospitals, min(since) AS since
            FROM hospital_words WHERE hospital_id = ANY (:hospitals) GROUP BY word
        ), """
    statement = text(
        f"""
        {dictionary if limited else "WITH "} spelt AS (
            SELECT DISTINCT n, regexp_replace(fold(spelling) COLLATE pg_c_utf8, '[[:punct:][:space:]]+', '', 'g')
                COLLATE "C" AS form
            FROM unnest(:words) WITH ORDINALITY AS given(word, n), unnest(ARRAY[word, transcribe(word)]) AS spelling
        ), swapped AS (
            SELECT n, form, ARRAY(
                SELECT overlay(form PLACING reverse(substr(form, place, 2)) FROM place FOR 2)
                FROM generate_series(1, char_length(form) - 1) AS place WHERE char_length(form) <= {_LONGEST}
            ) AS once
            FROM spelt WHERE form <> ''
        ), typed AS MATERIALIZED (
            SELECT n, form, once, ARRAY(
                SELECT overlay(other PLACING reverse(substr(other, place, 2)) FROM place FOR 2)
                FROM unnest(once) AS other, generate_series(1, char_length(form) - 1) AS place
            ) AS twice
            FROM swapped
        )
        SELECT n, {Likeness.SAME:d} AS likeness, form AS word FROM typed
        UNION ALL
        SELECT n, likeness, word
        FROM (SELECT * FROM typed WHERE char_length(form) BETWEEN 2 AND {_LONGEST}) AS typed, LATERAL (
            SELECT CASE WHEN char_length(form) > 3 THEN {Likeness.ONE_ERROR:d} ELSE {Likeness.SHORT_ERROR:d} END, word
            FROM ({_best(one_error, limited=limited)}) AS best
            UNION ALL
            SELECT {Likeness.INSIDE:d}, word FROM ({_best(inside, limited=limited)}) AS best
            UNION ALL
            SELECT {Likeness.TWO_ERRORS:d}, word FROM ({_best(two_errors, limited=limited)}) AS best
        ) AS alike(likeness, word)
        WHERE NOT starts_with(word, form)
        """  # noqa: S608  # put together from our own words and numbers
    ).bindparams(bindparam("words", type_=ARRAY(Text)))
    return statement.bindparams(
        bindparam("hospitals", type_=ARRAY(Text)) if limited else bindparam("ranked", type_=Integer)
    )


_ALIKE = {limited: _alike_statement(limited=limited) for limited in (False, True)}


class Meant(NamedTuple):
    """A typed word, as conditions on `patient_search`, each in the language of tsquery; "" where no word is alike."""

    letters: int
    is_short: bool
    """Whether so many names have it, or begin so, that an index helps little."""
    queries: dict[Likeness, str]

    @classmethod
    def of(cls, alike: dict[Likeness, list[str]]) -> Self:
        """The conditions of one typed word, whose own spellings are the `SAME`; of an initial, what begins with it."""
        typed = sorted(alike[Likeness.SAME], key=len)
        queries = {likeness: _any(alike.get(likeness, ())) for likeness in Likeness}
        queries[Likeness.SAME] = " | ".join(_any([word], beginning=len(word) < SHORT) for word in typed)
        queries[Likeness.BEGINNING] = _any(typed, beginning=True)
        return cls(len(typed[0]), len(typed[-1]) < SHORT, queries)

    def one_of(self, likenesses: Iterable[Likeness]) -> str:
        """The condition that a word is alike in one of these ways."""
        return " | ".join(filter(None, (self.queries[likeness] for likeness in likenesses)))


def _any(words: Sequence[str], *, beginning: bool = False) -> str:
    """The condition that there is one of some words, which have letters, digits and marks alone."""
    return " | ".join(f"'{word}'{':*' if beginning else ''}" for word in words)


async def meant(connection: AsyncConnection, words: Sequence[str], hospitals: Collection[str] | None) -> list[Meant]:
    """What typed words mean; one that has nothing by which it could be found is left out.

    On behalf of a principal limited to `hospitals`, only the words of their patients are considered.
    """
    found: dict[int, dict[Likeness, list[str]]] = defaultdict(lambda: defaultdict(list))
    among = {"ranked": MOST_RANKED // len(words)} if hospitals is None else {"hospitals": sorted(hospitals)}
    rows = await connection.execute(_ALIKE[hospitals is not None], {"words": list(words), **among})
    for n, likeness, word in rows:
        found[n][Likeness(likeness)].append(word)
    return [Meant.of(found[n]) for n in sorted(found)]
