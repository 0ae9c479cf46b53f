"""The values of search parameters: escapes, tokens, references and dates of any precision (FHIR R4, search.html)."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

MAX_VALUE_LENGTH = 200
"""Maximum number of characters in a value. It is the limit of a search text of the contract, too."""
MAX_VALUES = 50
"""Maximum number of values of a parameter, separated by commas."""


class InvalidValueError(Exception):
    """A value of a parameter is invalid. The message says what it must be."""


def split_values(text: str) -> list[str]:
    r"""Return the values of a parameter, which commas separate. They still have their escapes, such as `\,`.

    Raises:
        InvalidValueError: a value is empty, too long or contains a NUL character, or there are too many.
    """
    values = _split(text, ",")
    if len(values) > MAX_VALUES:
        raise InvalidValueError(f"Must have at most {MAX_VALUES} values")
    for value in values:
        if not value.strip():
            raise InvalidValueError("Must not be empty: write a comma in a value as \\,")
        if "\0" in value:
            raise InvalidValueError("Must not contain NUL characters")
        if len(value) > MAX_VALUE_LENGTH:
            raise InvalidValueError(f"Must have at most {MAX_VALUE_LENGTH} characters")
    return values


def _split(text: str, separator: str) -> list[str]:
    """Return the parts of a text between the separators that are not escaped."""
    return re.findall(rf"(?:^|[{separator}])((?:\\.|[^\\{separator}]|\\$)*)", text)


def unescape(text: str) -> str:
    r"""Return a text without its escapes: `\,`, `\|`, `\$` and `\\`."""
    return re.sub(r"\\([,|$\\])", r"\1", text)


class Token(NamedTuple):
    """A value of the type token. The system is None if any matches, and empty if there must be none."""

    system: str | None
    code: str


def parse_token(value: str) -> Token:
    """Return a token, which is written `code`, `system|code`, `|code` or `system|`."""
    parts = _split(value, "|")
    if len(parts) > 2:  # noqa: PLR2004  # a system and a code
        raise InvalidValueError("Must be a code, or a system and a code with | between them")
    system, code = (None, parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    return Token(system if system is None else unescape(system), unescape(code))


_DATE_PATTERN = re.compile(
    r"(?P<prefix>eq|ne|gt|lt|ge|le|sa|eb|ap)?(?P<year>[0-9]{4})(-(?P<month>[0-9]{2})(-(?P<day>[0-9]{2})"
    r"(?P<time>T[0-9]{2}:[0-9]{2}(?P<seconds>:[0-9]{2}(\.[0-9]{1,6})?)?)?(?P<offset>Z|[+-][0-9]{2}:[0-9]{2})?)?)?"
)
_APPROXIMATION = 0.1
"""Share of the time between a value and now by which an approximate value may differ."""


class Period(NamedTuple):
    """The time that a value with a limited precision covers: from `first` until just before `end`."""

    prefix: str
    first: datetime
    end: datetime
    has_time: bool

    def bounds(self, *, as_dates: bool) -> tuple[str, dict[str, Any]]:
        """Return the kind of the predicate that finds the records of this period, and the values of the predicate."""
        first, end = self.first, self.end
        if self.prefix == "ap":
            slack = abs(datetime.now(UTC) - self.first) * _APPROXIMATION
            first, end = max(first, _EARLIEST + slack) - slack, min(end, _LATEST - slack) + slack
        bounds: dict[str, Any] = (
            {"first": first.date(), "end": end.date()} if as_dates else {"first": first, "end": end}
        )
        values = {
            "gt": {"first": bounds["end"]},
            "sa": {"first": bounds["end"]},
            "ge": {"first": bounds["first"]},
            "lt": {"end": bounds["first"]},
            "eb": {"end": bounds["first"]},
            "le": {"end": bounds["end"]},
        }
        return "outside" if self.prefix == "ne" else "within", values.get(self.prefix, bounds)


_EARLIEST, _LATEST = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 1, 1, tzinfo=UTC)


def parse_period(value: str) -> Period:
    """Return the period of a date or time, such as `ge1980`, `1980-05` or `2026-11-30T12:00:00Z`.

    Raises:
        InvalidValueError: the value is not a date or time between the years 2 and 9997.
    """
    match = _DATE_PATTERN.fullmatch(value)
    if match is None or (match["offset"] and not match["time"]):
        raise InvalidValueError(
            "Must be a date such as 1980 or ge1980-05-17, or a time with an offset, in which %2B stands for +"
        )
    try:
        start = date(int(match["year"]), int(match["month"] or 1), int(match["day"] or 1))
        first = datetime(start.year, start.month, start.day, tzinfo=UTC)
        if match["time"]:
            first = datetime.fromisoformat(f"{start}{match['time']}{match['offset'] or '+00:00'}")
    except ValueError:
        raise InvalidValueError("Must be a date of the calendar") from None
    if not _EARLIEST <= first < _LATEST:
        raise InvalidValueError("Must be a date between the years 2 and 9997")
    if match["time"]:
        length = timedelta(seconds=1) if match["seconds"] else timedelta(minutes=1)
        end = first + (timedelta(microseconds=1) if "." in (match["seconds"] or "") else length)
    elif match["day"]:
        end = first + timedelta(days=1)
    elif match["month"]:
        end = (first + timedelta(days=31)).replace(day=1)
    else:
        end = first.replace(year=first.year + 1)
    return Period(match["prefix"] or "eq", first, end, bool(match["time"]))
