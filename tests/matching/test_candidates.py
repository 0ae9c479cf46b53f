"""The conditions by which candidates are found."""

from datetime import date

import asyncpg
import pytest

from app.likeness.levels import Level
from app.likeness.values import compare_dates
from app.matching.candidates import BIRTH_MAY_AGREE

AGREEING = f"""
SELECT {BIRTH_MAY_AGREE}
FROM unnest($1::date[]) WITH ORDINALITY AS others(patient_date_of_birth, n), (
    SELECT date_part('year', born) AS year, date_part('month', born) AS month, date_part('day', born) AS day
    FROM (VALUES ($2::date)) AS given(born)
) AS given
ORDER BY n
"""  # noqa: S608  # our own constant
OTHER_DATES = [
    date(year, month, day)
    for year in (1948, 1983, 1984, 1985, 1994, 2084)
    for month in (1, 3, 4, 5, 12)
    for day in (1, 3, 4, 5, 13, 30)
]


@pytest.mark.parametrize("born", [date(1984, 3, 4), date(1984, 1, 1), date(1984, 5, 13), date(984, 3, 4)], ids=str)
async def test_candidates_have_the_dates_that_the_comparison_finds_similar(
    connection: asyncpg.Connection, born: date
) -> None:
    """The condition holds for a date of birth unless the comparison finds it different, and for missing ones."""
    others = [born, *OTHER_DATES]
    rows = await connection.fetch(AGREEING, others, born)
    assert [row[0] for row in rows] == [compare_dates(born, other) is not Level.DIFFERENT for other in others]
    for one, other in ((None, born), (born, None), (None, None)):
        assert await connection.fetchval(AGREEING, [one], other) is True
