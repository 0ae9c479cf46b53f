"""Finds the words of the vocabulary that contain a text, if they are so few that an index finds their patients."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ARRAY, Integer, Text, TextClause, bindparam, text

from app.db.connection import Connection

MAX_CONTAINING_WORDS = 1000
"""Maximum number of words that contain a text. Each of them is looked up in the search index of patients.

More words are in so many names that a scan of the patients soon finds enough of them.
"""
MIN_LETTERS = 2
"""Minimum number of letters for which words are searched. A hospital's vocabulary has no shorter words at all."""


def _statement(*, restricted: bool) -> TextClause:
    """Return the statement that selects the longest part of each text that is within a word, and the words with it.

    For an unrestricted principal, an index on the trigrams of words finds them. For a restricted principal, the words
    of its hospitals' patients are compared one by one, so that the time does not depend on those of others.
    """
    words = "SELECT word FROM name_words WHERE word LIKE '%' || part || '%' LIMIT :words"
    if restricted:
        words = """
            SELECT word FROM hospital_words WHERE hospital_id = ANY (:hospitals) AND strpos(word, part) > 0
            GROUP BY word LIMIT :words
        """
    statement = text(
        f"""
        WITH longest AS MATERIALIZED (
            SELECT n, (
                SELECT part COLLATE "C"
                FROM regexp_split_to_table(fold(contained) COLLATE pg_c_utf8, '[[:punct:][:space:]]+') AS part
                ORDER BY char_length(part) DESC LIMIT 1
            ) AS part
            FROM unnest(:texts) WITH ORDINALITY AS given(contained, n)
        )
        SELECT part, CASE WHEN char_length(part) >= :letters THEN ARRAY({words}) END
        FROM longest ORDER BY n
        """  # noqa: S608  # contains only our own constants
    ).bindparams(
        bindparam("texts", type_=ARRAY(Text)), bindparam("words", type_=Integer), bindparam("letters", type_=Integer)
    )
    return statement.bindparams(bindparam("hospitals", type_=ARRAY(Text))) if restricted else statement


_SELECT_WORDS = {restricted: _statement(restricted=restricted) for restricted in (False, True)}


async def containing_queries(
    connection: Connection, texts: Sequence[str], hospitals: Collection[str] | None
) -> list[str | None]:
    """Return, for each text, the tsquery for the patients whose names may contain it, or None if these are too many.

    The query finds all patients whose names contain the text, without regard to case and accents, and others.
    `hospitals` is the hospital scope of the principal, or None if it is unrestricted. The vocabulary has the first 60
    words of a patient, which is more than names have.
    """
    parameters: dict[str, Any] = {"texts": list(texts), "words": MAX_CONTAINING_WORDS + 1, "letters": MIN_LETTERS}
    if hospitals is not None:
        parameters["hospitals"] = sorted(hospitals)
    rows = await connection.execute(_SELECT_WORDS[hospitals is not None], parameters)
    return [
        # a hospital's vocabulary has no words of two letters, which contain the part only if they are equal to it
        " | ".join(f"'{word}'" for word in {part, *words})
        if words is not None and len(words) < parameters["words"]
        else None
        for part, words in rows
    ]
