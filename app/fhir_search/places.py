"""Finds the values of an address column that contain a text. Most registers have few places, so few values are read."""

from collections.abc import Mapping, Sequence

from sqlalchemy import ARRAY, Text, TextClause, bindparam, text

from app.db.connection import Connection

MAX_PLACES = 2000
"""Maximum number of different values that are read. Each of them is one access to the column's index."""
PLACE_COLUMNS = ("patient_town", "patient_region", "patient_province", "patient_country", "patient_postal_code")
"""The columns of an address that have an index of their folded values."""


def _statement(column: str) -> TextClause:
    """Return the statement that selects the values of a column that contain each text, or null if there are too many.

    It goes from each value of the index to the next larger one (a loose index scan), so that the time depends on the
    number of places and not on that of patients.
    """
    following = f"SELECT min({column}_folded) FROM patients"  # noqa: S608  # contains only our own constants
    return text(
        f"""
        WITH RECURSIVE place AS (
            SELECT ({following}) AS value, 1 AS number
            UNION ALL
            SELECT ({following} WHERE {column}_folded > value), number + 1
            FROM place WHERE value IS NOT NULL AND number <= {MAX_PLACES}
        )
        SELECT CASE WHEN (SELECT count(value) FROM place) <= {MAX_PLACES}
            THEN ARRAY(SELECT value FROM place WHERE strpos(value, fold(contained)) > 0) END
        FROM unnest(:texts) WITH ORDINALITY AS given(contained, n) ORDER BY n
        """  # noqa: S608  # contains only our own constants
    ).bindparams(bindparam("texts", type_=ARRAY(Text)))


_SELECT_PLACES: Mapping[str, TextClause] = {column: _statement(column) for column in PLACE_COLUMNS}


async def containing_places(connection: Connection, column: str, texts: Sequence[str]) -> list[Sequence[str] | None]:
    """Return, for each text, all folded values of a column of addresses that contain it, or None if there are too many.

    The values are those of all patients, so call this only for unrestricted principals.
    """
    return [values for (values,) in await connection.execute(_SELECT_PLACES[column], {"texts": list(texts)})]
