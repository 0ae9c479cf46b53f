"""Dates in the formats of other systems. The order of day, month and year is found over a whole column."""

import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from app.fields.characters import normalize_characters
from app.locality.months import MONTHS
from app.table_files.errors import CellError

DATE_ORDERS: Mapping[str, str] = {
    "dmy": "day, month, year, such as 31/01/1980 or 31 Jan 80",
    "mdy": "month, day, year, such as 01/31/1980 or Jan 31, 1980",
    "ymd": "year, month, day, such as 1980/01/31 or 800131",
    "excel": "the number of days since 1900, such as 29251, as Excel stores dates",
}
"""The orders in which a date may be written, with a description of each."""
MIN_YEAR = 1850
"""The first year that a date may have. A number with an earlier year is in another order."""
_EXCEL_EPOCH = date(1899, 12, 30)
_MIN_EXCEL_DAY = 2101
"""The first number that is a serial number, of 1 October 1905. Lower numbers are probably years or ages."""
_CACHED_DATES = 50_000
_ISO_PATTERN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIMESTAMP_PATTERN = re.compile(
    r"(?P<date>.+?)[T ,]+(?P<time>[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?(?P<offset> ?Z| ?[+-][0-9]{2}:?[0-9]{2})?"
)
_SEPARATOR = r"(?:[./ ,-]+|(?<=[^\W\d_])|(?=[^\W\d_]))"
"""Punctuation, or nothing between a number and the name of a month."""
_DATE_PATTERN = re.compile(
    rf"([0-9]{{1,4}}|[^\W\d_]{{3,}}){_SEPARATOR}([0-9]{{1,2}}|[^\W\d_]{{3,}}){_SEPARATOR}([0-9]{{1,4}})"
)
_EXCEL_PATTERN = re.compile(r"[0-9]{2,5}(?:\.[0-9]+)?")


class AmbiguousDatesError(Exception):
    """The order of the dates in a column cannot be found. The message is a predicate whose subject is "The column"."""

    def __init__(self, message: str, possible_order: str = "dmy") -> None:
        super().__init__(message)
        self.possible_order = possible_order


def is_iso_date(text: str) -> bool:
    """Return whether a text has the form YYYY-MM-DD, which needs no order and is the format of the API."""
    return _ISO_PATTERN.fullmatch(text) is not None


@lru_cache(_CACHED_DATES)
def read_date(text: str, today: date) -> Mapping[str, str]:
    """Return all readings of a text as a date: the order of each, and the date as YYYY-MM-DD.

    A time after the date is added to the reading as `THH:MM:SS`, unless it is midnight. `today` is the date in the
    easternmost time zone, which is tomorrow in others. A year with two digits never means `today` or later. A date
    after `today` is a reading only if all readings are.
    """
    text, time = _split_time(normalize_characters(text).strip())
    readings = _read_numbers(text, today) or _read_serial_number(text, today)
    past = {order: day for order, day in readings.items() if day <= today}
    return {order: f"{day.isoformat()}{time}" for order, day in (past or readings).items()}


def _split_time(text: str) -> tuple[str, str]:
    match = _TIMESTAMP_PATTERN.fullmatch(text)
    if match is None:
        return text, ""
    hour, minute, second = [*match["time"].split(":"), "00"][:3]
    if match["half"]:
        hour = str(int(hour) % 12 + (12 if match["half"] in "Pp" else 0))
    time = f"{hour:0>2}:{minute}:{second}"
    offset = (match["offset"] or "").strip()
    return match["date"], "" if re.fullmatch(r"[0:.]+", time) else f"T{time}{offset}"


def _read_numbers(text: str, today: date) -> dict[str, date]:
    """Return the readings of a date that is written with a day, a month and a year."""
    if text.isdecimal() and len(text) in (6, 8):
        year_length = len(text) - 4
        parts = {
            "dmy": (text[:2], text[2:4], text[4:]),
            "mdy": (text[:2], text[2:4], text[4:]),
            "ymd": (text[:year_length], text[year_length:-2], text[-2:]),
        }
    elif (match := _DATE_PATTERN.fullmatch(text)) is not None and not text.isdecimal():
        first, second, third = match.groups()
        parts = dict.fromkeys(("dmy", "mdy", "ymd"), (first, second, third))
    else:
        return {}
    readings = {}
    for order, written in parts.items():
        by_part = dict(zip(order, written, strict=True))
        day = _day(by_part["y"], by_part["m"], by_part["d"], today)
        if day is not None and (by_part["m"].isdecimal() or order != "ymd" or len(by_part["y"]) > 2):  # noqa: PLR2004  # digits
            readings[order] = day
    return readings


def _day(year: str, month: str, day: str, today: date) -> date | None:
    month_number = int(month) if month.isdecimal() else MONTHS.get(month.casefold(), 0)
    if not day.isdecimal() or len(day) > 2 or (len(month) > 2 and month.isdecimal()) or len(year) not in (2, 4):  # noqa: PLR2004  # digits
        return None
    if not year.isdecimal():
        return None
    century_years = [int(year)] if len(year) == 4 else [2000 + int(year), 1900 + int(year)]  # noqa: PLR2004  # digits
    for number in century_years:
        try:
            found = date(number, month_number, int(day))
        except ValueError:
            continue
        if number >= MIN_YEAR and (len(year) == 4 or found < today):  # noqa: PLR2004  # digits
            return found
    return None


def _read_serial_number(text: str, today: date) -> dict[str, date]:
    if _EXCEL_PATTERN.fullmatch(text) is None or (days := int(float(text))) < _MIN_EXCEL_DAY:
        return {}
    day = _EXCEL_EPOCH + timedelta(days=days)
    return {"excel": day} if day <= today else {}


class DateColumn:
    """The dates of a column, from which the order of day, month and year is found."""

    def __init__(self) -> None:
        self._today = datetime.now(UTC).date() + timedelta(days=1)
        self._total = 0
        self._fitting: Counter[str] = Counter()
        self._only: Counter[str] = Counter()
        self._differing: set[frozenset[str]] = set()
        """The orders in which a text of the column has different readings."""
        self.has_iso_dates = False

    def add(self, text: str) -> None:
        """Add the text of a cell that is neither blank nor a null word."""
        if is_iso_date(text):
            self.has_iso_dates = True
            return
        readings = read_date(text, self._today)
        if not readings:
            return
        self._total += 1
        self._fitting.update(readings.keys())
        if len(readings) == 1:
            self._only.update(readings.keys())
        elif len(set(readings.values())) > 1:
            self._differing.add(frozenset(readings))

    def order(self, preferred: str | None = None) -> str | None:
        """Return the order of the dates, or None if the column has no dates except those in ISO 8601.

        `preferred` is the order that decides if several are possible.

        Raises:
            AmbiguousDatesError: several orders are possible, and `preferred` is not one of them.
        """
        if preferred in self._fitting:
            return preferred
        if not self._fitting:
            return None
        best_count = max(self._fitting.values())
        best = [order for order in DATE_ORDERS if self._fitting[order] == best_count]
        if preferred is not None:
            message = f"has no date in the format {preferred}, but dates in {' or '.join(best)}"
            raise AmbiguousDatesError(message, best[0])
        if best_count < self._total:
            if self._only["dmy"] and self._only["mdy"]:
                raise AmbiguousDatesError("has dates that begin with the day, and others that begin with the month")
            best = [order for order in best if self._only[order]] or best
        if len(best) > 1 and any(len(orders & set(best)) > 1 for orders in self._differing):
            raise AmbiguousDatesError(f"has dates that may be read as {' or '.join(best)}")
        return best[0]

    def describe(self, order: str | None) -> str:
        """Return a description of the format, for people."""
        iso = ["YYYY-MM-DD"] if self.has_iso_dates or order is None else []
        return " and ".join([*iso, *([] if order is None else [f"{order} ({DATE_ORDERS[order]})"])])


def to_iso(text: str, order: str | None, *, with_time: bool) -> str:
    """Return the date that a text means in `order`, as YYYY-MM-DD, or with a time behind it.

    Return the text unchanged if `order` is None, which means that no text of the column is a date in any order.

    Raises:
        CellError: the text is not a date in this order, or has a time although `with_time` is false.
    """
    if order is None:
        return text
    reading = read_date(text, datetime.now(UTC).date() + timedelta(days=1)).get(order)
    if reading is None:
        raise CellError("date_format", f"Must be a date in the format of this column, {order}")
    if "T" in reading and not with_time:
        raise CellError("date_format", "Must be a date without a time of day")
    return reading
