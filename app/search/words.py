"""The words that are meant: what was typed, compared with all words that names of patients have.

Typing errors are looked up among different words, of which there are thousands where there are a million patients.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple, Self

from sqlalchemy import ARRAY, Integer, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

MOST_ALIKE = 100
"""Words of each likeness, to one that was typed.

Not for who is limited to hospitals: by adding patients of similar names it would see, by which of them is left out
then, that somebody has such a name whom it may not see.
"""
_LONGEST = 64
"""Letters of a typed word in which errors are looked for."""


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

# `&&` on the keys finds all words with so few errors, and some more; levenshtein counts two for letters in the wrong
# order, so words are compared with all in which two neighbours have changed places, too
_MEANT = text(
    f"""
    WITH spelt AS (
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
        (
            SELECT CASE WHEN char_length(form) > 3 THEN {Likeness.ONE_ERROR:d} ELSE {Likeness.SHORT_ERROR:d} END, word
            FROM name_words
            WHERE typing_keys(word, 2) && typing_keys(form, CASE WHEN char_length(form) > 2 THEN 1 ELSE 0 END)
                AND char_length(word) + char_length(form) > 4
                AND ({_apart("word", "form", 1)} OR word = ANY (once))
            ORDER BY word LIMIT :most
        )
        UNION ALL
        (
            SELECT {Likeness.INSIDE:d}, word FROM name_words
            WHERE char_length(form) > 2 AND word LIKE '%' || form || '%'
            ORDER BY char_length(word), word LIMIT :most
        )
        UNION ALL
        (
            SELECT {Likeness.TWO_ERRORS:d}, word FROM name_words
            WHERE char_length(form) > 3 AND typing_keys(word, 2) && typing_keys(form, 2) AND (
                {_apart("word", "form", 2)} OR EXISTS (SELECT FROM unnest(once) AS o WHERE {_apart("word", "o", 1)})
                OR word = ANY (twice)
            )
            ORDER BY extensions.levenshtein_less_equal(left(word, 255), form, 4), word LIMIT :most
        )
    ) AS alike(likeness, word)
    WHERE NOT starts_with(word, form)
    """  # noqa: S608  # put together from numbers
).bindparams(bindparam("words", type_=ARRAY(Text)), bindparam("most", type_=Integer))


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


_WORDS_OF = text(
    """
    SELECT DISTINCT word
    FROM journal, unnest(tsvector_to_array(spellings(
        record->>'patient_last_name', record->>'patient_first_name',
        record->>'patient_initials', record->>'patient_title'
    ))) AS word
    WHERE resource = 'patients' AND unique_id = :id
    """
)
# writers learn words under a lock that this one excludes: none is forgotten that somebody is just about to have
_LOCK = text("LOCK TABLE name_words IN SHARE ROW EXCLUSIVE MODE")
_FORGET = text(
    """
    DELETE FROM name_words
    WHERE word = ANY (:words) AND NOT EXISTS (
        SELECT FROM patients WHERE patient_search @@ CAST(quote_literal(word) AS tsquery)
    )
    """
).bindparams(bindparam("words", type_=ARRAY(Text)))


async def words_of(connection: AsyncConnection, patient_id: str) -> Sequence[str]:
    """The words of all names that a patient has had."""
    return (await connection.execute(_WORDS_OF, {"id": patient_id})).scalars().all()


async def forget(connection: AsyncConnection, words: Sequence[str]) -> None:
    """Forget those of some words that no patient has any more."""
    await connection.execute(_LOCK)
    await connection.execute(_FORGET, {"words": words})


async def meant(connection: AsyncConnection, words: Sequence[str], *, limited: bool) -> list[Meant]:
    """What typed words mean; one that has nothing by which it could be found is left out.

    On behalf of who is `limited`, no word is left out for there being too many.
    """
    found: dict[int, dict[Likeness, list[str]]] = defaultdict(lambda: defaultdict(list))
    for n, likeness, word in await connection.execute(
        _MEANT, {"words": list(words), "most": None if limited else MOST_ALIKE}
    ):
        found[n][Likeness(likeness)].append(word)
    return [Meant.of(found[n]) for n in sorted(found)]


LEARN_LATER = text("SET LOCAL patients.learn_words = 'later'")
"""Have the rest of a transaction learn no words by itself; it has to, before it ends, by `LEARN`.

Who is first to have a word holds up all others who have it, until its transaction ends.
"""
NOTE = text(
    """
    INSERT INTO staged_words
    SELECT DISTINCT word FROM patients JOIN staged_patients USING (unique_id),
        unnest(tsvector_to_array(patient_search)) AS word
    WHERE fate IN ('created', 'updated')
    ON CONFLICT DO NOTHING
    """
)
"""Note the words of patients that are staged (`app.transfer`)."""
LEARN = text("INSERT INTO name_words SELECT word FROM staged_words ORDER BY word ON CONFLICT DO NOTHING")
"""Learn the words that were noted, in the order in which all others learn them."""
