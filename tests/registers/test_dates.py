"""Readings of dates that depend on the date of today, or of months by their names."""

from datetime import date, timedelta

import pytest

from app.registers.dates import read_date


@pytest.mark.parametrize(("days", "year"), [(-1, 2026), (0, 2026), (1, 1926), (2, 1926)])
def test_a_year_with_two_digits_is_never_in_the_future(days: int, year: int) -> None:
    """A date of tomorrow is a hundred years old, although it is accepted with four digits, for other time zones."""
    today = date(2026, 11, 30)
    text = f"{today + timedelta(days=days):%d %b %y}"
    assert read_date(text, today + timedelta(days=1))["dmy"].startswith(str(year))


def test_an_abbreviation_of_two_months_is_no_date() -> None:
    """Both juin and juillet begin with `jui`, so a date with this abbreviation is not read."""
    today = date(2026, 1, 1)
    assert read_date("17 juin 1990", today)
    assert read_date("17 juillet 1990", today)
    assert not read_date("17 jui 1990", today)
