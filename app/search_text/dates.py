"""Dates of birth in search texts: finds days, periods and ages as people write them."""

import calendar
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from app.locality.months import MONTHS

_MONTH = f"(?P<month_name>{'|'.join(sorted(MONTHS, key=len, reverse=True))})"
_BEFORE, _AFTER = r"(?<![\w+/-])(?<!\d[.])", r"(?![\w+/@-])(?![.]\d)"
_SEPARATOR = r"(?P<separator>[-/.|,\\_]+|[ ])"
_ORDINAL = r"(?:st|nd|rd|th|de|ste|er)?"
_APOSTROPHE = "['’‘`´]"  # noqa: RUF001  # these characters are intended
_BETWEEN = rf"[-/., ]*(?:(?:of|van|de) )?{_APOSTROPHE}?"
_DAY_PATTERNS = tuple(
    re.compile(_BEFORE + pattern + _AFTER, re.IGNORECASE)
    for pattern in (
        rf"(?P<year>\d{{4}}){_SEPARATOR}(?P<month>\d{{1,2}})(?P=separator)(?P<day>\d{{1,2}})",
        rf"(?P<day>\d{{1,2}}){_SEPARATOR}(?P<month>\d{{1,2}})(?P=separator)(?P<year>\d{{4}})",
        r"(?P<day>\d{1,2})(?P<separator>[-/.])(?P<month>\d{1,2})(?P=separator)(?P<year>\d{2})",
        rf"(?P<day>\d{{1,2}}){_ORDINAL}{_BETWEEN}{_MONTH}{_BETWEEN}(?P<year>\d{{4}}|\d{{2}})",
        r"(?P<year>\d{4}) ?年 ?(?P<month>\d{1,2}) ?月 ?(?P<day>\d{1,2}) ?[日号]?",
        rf"{_MONTH}[-/., ]*(?P<day>\d{{1,2}}){_ORDINAL}[-/, ]+(?P<year>\d{{4}})",
        rf"(?P<year>\d{{4}})[-/., ]*{_MONTH}[-/., ]*(?P<day>\d{{1,2}}){_ORDINAL}",
    )
)
"""Patterns of days. In a date of digits only, the day is first or, as in ISO 8601, the year."""
_MONTH_PATTERNS = tuple(
    re.compile(_BEFORE + pattern + _AFTER, re.IGNORECASE)
    for pattern in (
        rf"{_MONTH}[-/., ]*(?P<year>\d{{4}})",
        r"(?P<month>\d{1,2})[-/.](?P<year>\d{4})",
        r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})",
    )
)
_SHORT_YEAR_PATTERN = re.compile(rf"(?<!\w){_APOSTROPHE}(?P<year>\d{{2}})(?![\w/.'-])")
"""A year as it is abbreviated: `'90`."""
_TIME_PATTERN = re.compile(
    r"(?<=\d)T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?(?!\w)"
    r"|(?<![\w:.-])\d{1,2}:\d\d(?::\d\d)?(?: ?[ap]m)?(?![\w:.-])|(?<![\w:.-])\d{1,2} ?[ap]m(?!\w)",
    re.IGNORECASE,
)
"""Times of day, which say nothing about a patient."""
_AGE_PATTERN = re.compile(
    rf"{_BEFORE}(?:(?:(?:aged?|ouderdom):? *)?(?:"
    r"(?:(?P<years>\d{1,3})[ -]?(?:years?|yrs?|y/?o|y|jarige|jaar|jr|jahre?|anos?|ans|[岁歲歳])"
    r"|(?P<months>\d{1,2})[ -]?(?:months?|mths?|maande?)"
    r"|(?P<weeks>\d{1,2})[ -]?(?:weeks?|wks?|weke))(?:[ -]old| oud| alt)?"
    r"|(?:(?P<twelfths>\d{1,2})/12|(?P<week_parts>\d{1,2})/52)(?:[ -]old| oud)(?! +\w))"
    rf"|(?:aged?|ouderdom):? *(?P<age>\d{{1,3}})){_AFTER}",
    re.IGNORECASE,
)
"""Ages, also as they are written in hospitals: `3/12 old` is three months, `6/52 old` six weeks.

A word behind these means that they are an address, such as `3/12 Old Mill Road`.
"""
_FIRST_YEAR = 1900


class Period(NamedTuple):
    """A period in which a patient may have been born: the first and the last day."""

    first: date
    last: date

    @property
    def widened(self) -> "Period":
        """The year of a month, and any other period with a year before and a year after it."""
        if (self.first.year, self.first.month) == (self.last.year, self.last.month):
            return year_period(self.first.year)
        return Period(_shift_years(self.first, -1), _shift_years(self.last, 1))


class BirthDate(NamedTuple):
    """A date of birth in a search text."""

    days: tuple[date, ...] = ()
    """The days that the text may mean. It is empty if the text has the form of a date but means no day."""
    near_days: tuple[date, ...] = ()
    """Days that are written almost like it: another day or month, both swapped, or one other digit."""
    period: Period | None = None
    """The period in which the patient was born, if the text has no day."""
    words: tuple[str, ...] = ()
    """The name of the month and the year, if the text may also be a name and another number, such as `April 2001`."""


def today() -> date:
    """Return the current date in UTC."""
    return datetime.now(UTC).date()


def extract_birth_dates(text: str) -> tuple[list[BirthDate], str]:
    """Return the dates, months, years and ages in a text, and the text without them and without times of day."""
    found: list[BirthDate] = []

    def take_day(match: re.Match[str]) -> str:
        groups = match.groupdict()
        month = MONTHS[groups["month_name"].lower()] if groups.get("month_name") else int(groups["month"])
        year, day = full_year(groups["year"]), int(groups["day"])
        days = possible_days(year, month, day)
        if not days and groups.get("separator") == " ":
            return match.group()  # some other numbers
        found.append(BirthDate(days, near_days(days, year, month, day)))
        return " "

    def take_month(match: re.Match[str]) -> str:
        groups = match.groupdict()
        month = MONTHS[groups["month_name"].lower()] if groups.get("month_name") else int(groups["month"])
        year = int(groups["year"])
        if not (1 <= month <= 12 and is_birth_year(year)):  # noqa: PLR2004  # months of a year
            return match.group()
        words = (groups["month_name"], groups["year"]) if groups.get("month_name") else ()
        found.append(BirthDate(period=month_period(year, month), words=words))
        return " "

    def take_age(match: re.Match[str]) -> str:
        if weeks := match["weeks"] or match["week_parts"]:
            last = today() - timedelta(weeks=int(weeks))
            first = last - timedelta(weeks=1)
        elif months := match["months"] or match["twelfths"]:
            last = _shift_months(today(), -int(months))
            first = _shift_months(last, -1)
        else:
            last = _shift_years(today(), -int(match["age"] or match["years"]))
            first = _shift_years(last, -1)
        found.append(BirthDate(period=Period(first, last)))
        return " "

    text = _TIME_PATTERN.sub(" ", text)
    for pattern in _DAY_PATTERNS:
        text = pattern.sub(take_day, text)
    for pattern in _MONTH_PATTERNS:
        text = pattern.sub(take_month, text)
    found += [BirthDate(period=year_period(full_year(year))) for year in _SHORT_YEAR_PATTERN.findall(text)]
    text = _SHORT_YEAR_PATTERN.sub(" ", text)
    return found, _AGE_PATTERN.sub(take_age, text)


def read_compact_date(digits: str) -> BirthDate | None:
    """Return the date that digits without separators mean, or None if they mean none.

    Eight digits are a date, year first or day first. Thirteen are a South African identity number, which begins with
    two digits each of the year, the month and the day.
    """
    if len(digits) == 8:  # noqa: PLR2004  # digits of a date
        parts = (
            (int(digits[:4]), int(digits[4:6]), int(digits[6:])),
            (int(digits[4:]), int(digits[2:4]), int(digits[:2])),
        )
        days = [day for each in parts for day in possible_days(*each)]
    elif len(digits) == 13:  # noqa: PLR2004  # digits of an identity number
        year = full_year(digits[:2])
        days = [*_real_days([(each, int(digits[2:4]), int(digits[4:6])) for each in (year, year - 100)])]
    else:
        return None
    unique = tuple(dict.fromkeys(day for day in days if is_birth_year(day.year)))
    return BirthDate(unique, near_days(unique, *_parts(unique[0]))) if unique else None


def is_birth_year(year: int) -> bool:
    """Return whether a patient may have been born in this year."""
    return _FIRST_YEAR <= year <= today().year


def year_period(year: int) -> Period:
    """Return the period of a year."""
    return Period(date(year, 1, 1), date(year, 12, 31))


def month_period(year: int, month: int) -> Period:
    """Return the period of a month."""
    return Period(date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1]))


def full_year(digits: str) -> int:
    """Return the year that two or four digits mean. Two digits mean the latest year that has begun."""
    year = int(digits)
    if len(digits) == 4:  # noqa: PLR2004  # digits of a year
        return year
    century = today().year // 100 * 100
    return century + year if century + year <= today().year else century - 100 + year


def possible_days(year: int, month: int, day: int) -> tuple[date, ...]:
    """Return the day, or the day with the month first if it is none otherwise, or nothing if there is no such day."""
    return tuple(_real_days([(year, month, day)])) or tuple(_real_days([(year, day, month)]))


def near_days(days: tuple[date, ...], year: int, month: int, day: int) -> tuple[date, ...]:
    """Return the days that are written almost like a date, which may be impossible, such as 30 February."""
    written = f"{year:04}{month:02}{day:02}"
    parts = [
        (year, day, month),
        *((year, month, other) for other in range(1, 32)),
        *((year, other, day) for other in range(1, 13)),
        *(_split(written[:at] + digit + written[at + 1 :]) for at in range(8) for digit in "0123456789"),
        *(_split(written[:at] + written[at + 1] + written[at] + written[at + 2 :]) for at in range(7)),
    ]
    return tuple(sorted({each for each in _real_days(parts) if _FIRST_YEAR <= each.year <= today().year} - set(days)))


def _split(written: str) -> tuple[int, int, int]:
    return int(written[:4]), int(written[4:6]), int(written[6:8])


def _parts(day: date) -> tuple[int, int, int]:
    return day.year, day.month, day.day


def _real_days(parts: list[tuple[int, int, int]]) -> Iterator[date]:
    for year, month, day in parts:
        if year >= 1 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]:  # noqa: PLR2004
            yield date(year, month, day)


def _shift_years(day: date, years: int) -> date:
    return _shift_months(day, 12 * years)


def _shift_months(day: date, months: int) -> date:
    year, month = divmod(12 * day.year + day.month - 1 + months, 12)
    year, month = max(1, year), month + 1
    return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))
