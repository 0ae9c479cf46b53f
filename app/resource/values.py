"""What a field may hold: the types that request schemas are made of.

Each cleans what it is given, says in one sentence what to change where it refuses, and publishes its rule in the
OpenAPI document. None repeats the input in its message: it is patient data.
"""

import re
import unicodedata
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema
from sqlalchemy import Column

from app.db.base import max_length
from app.resource.identifiers import PATTERN, is_identifier


def refuse(kind: str, message: str) -> PydanticCustomError:
    """The error that a validator raises: `kind` for programs, `message` for people."""
    return PydanticCustomError(kind, message)


def _blank_to_none(value: object) -> object:
    """HTML forms send `""` for a field that was left empty."""
    return None if isinstance(value, str) and not value.strip() else value


MAX_MARKS = 30
"""Combining marks in a row, as in Unicode's Stream-Safe Text Format (UAX #15, section 13)."""


def _is_stream_safe(text: str) -> bool:
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > MAX_MARKS:
            return False
    return True


def _clean(text: str, max_length: int) -> str:
    text = text.strip()
    # before NFC, whose cost is quadratic in the marks of a character; one has at most four code points more before it
    if len(text) > 5 * max_length:
        raise refuse("string_too_long", f"Must have at most {max_length} characters")
    if len(text) > max_length and not _is_stream_safe(text):
        raise refuse("string_marks", f"Must have at most {MAX_MARKS} combining marks in a row")
    if "\0" in text:
        raise refuse("string_nul", "Must not contain NUL characters")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise refuse("string_unicode", "Must not contain lone surrogates, which are no characters")
    return unicodedata.normalize("NFC", text)


def _or_blank(pattern: str) -> str:
    """The published pattern of an optional field: blank means `null`."""
    return rf"^\s*$|{pattern}"


class Text:
    """Text as `column` holds it: trimmed, in Unicode's NFC, at most the column's length; blank is `null`, or refused.

    Usage: `Annotated[str | None, Text(columns.patient_title)]`, or `Annotated[str, …]` where a value is required.
    """

    pattern: str | None = None
    kind: str
    message: str
    description: str | None = None

    def __init__(self, column: Column[Any]) -> None:
        self.max_length = max_length(column)

    def _check(self, text: str) -> str:
        text = _clean(text, self.max_length)
        if not text:
            raise refuse("string_blank", "Must not be blank")
        if len(text) > self.max_length:
            raise refuse("string_too_long", f"Must have at most {self.max_length} characters")
        if self.pattern is not None and re.fullmatch(self.pattern, text) is None:
            raise refuse(self.kind, self.message)
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic's hook: wrap the type check of `str` or `str | None`."""
        schema = handler(source)
        optional = schema["type"] == "nullable"

        def validate(value: object, check_type: ValidatorFunctionWrapHandler) -> str | None:
            text: str | None = check_type(_blank_to_none(value) if optional else value)
            return None if text is None else self._check(text)

        return core_schema.no_info_wrap_validator_function(validate, schema)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Pydantic's hook: publish the rule beside the type."""
        published = handler(schema)
        text = published["anyOf"][0] if "anyOf" in published else published
        text["maxLength"] = self.max_length
        if text is published:
            text |= {"minLength": 1, "pattern": self.pattern or r"\S"}
        elif self.pattern is not None:
            text["pattern"] = _or_blank(self.pattern)
        if self.description is not None:
            published["description"] = self.description
        return published


_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"


class Email(Text):
    """An e-mail address by its syntax, that of `<input type=email>`: the HTML standard, section 4.10.5.1.5."""

    pattern = rf"^[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*$"
    kind = "email"
    message = "Must be an e-mail address such as name@example.com"


class Mobile(Text):
    """A telephone number: an optional `+`, 4 to 15 digits (ITU-T E.164's most), spaces, dots, dashes, parentheses."""

    pattern = r"^\+?(?:[ .()-]*[0-9]){4,15}[ .()-]*$"
    kind = "mobile_number"
    message = "Must be an optional + and 4 to 15 digits; spaces, dots, dashes and parentheses may stand between"
    description = "An optional + and 4 to 15 digits; spaces, dots, dashes and parentheses are kept as sent."


class Gender(StrEnum):
    """Administrative gender."""

    MALE = "Male"
    FEMALE = "Female"
    OTHER = "Other"
    UNKNOWN = "Unknown"


_GENDERS = {spelling: gender.value for gender in Gender for spelling in (gender.lower(), gender[0].lower())}


def _gender(text: str) -> str:
    gender = _GENDERS.get(text.strip().lower())
    if gender is None:
        raise refuse("gender", "Must be Male, Female, Other or Unknown (or M, F, O, U)")
    return gender


_PUBLISHED_GENDER = {"$ref": "#/components/schemas/Gender"}
KnownGender = Annotated[
    str,
    AfterValidator(_gender),
    WithJsonSchema(_PUBLISHED_GENDER),
]
"""Administrative gender, as `AnyGender`, of which there has to be one."""
AnyGender = Annotated[
    str | None,
    BeforeValidator(_blank_to_none),
    AfterValidator(lambda text: None if text is None else _gender(text)),
    WithJsonSchema(
        {
            "anyOf": [_PUBLISHED_GENDER, {"type": "null"}],
            "description": "In any case; HL7's M, F, O, U are taken too.",
        }
    ),
]
"""Administrative gender: HL7 table 0001's M, F, O, U or their names, in any case; kept as the name."""


def _day(value: object) -> date:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value.strip()):
        try:
            day = date.fromisoformat(value.strip())
        except ValueError:
            day = date.min
        # date.min is no day that PostgreSQL takes: its driver sends it as -infinity
        if day != date.min:
            return day
    raise refuse("date", "Must be a date written YYYY-MM-DD")


Day = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
"""A day, written YYYY-MM-DD."""


def _date_of_birth(value: object) -> date | None:
    if value is None:
        return None
    day = _day(value)
    if day > (datetime.now(UTC) + timedelta(hours=14)).date():
        raise refuse("date_in_future", "Must not be in the future")
    return day


DateOfBirth = Annotated[
    date | None,
    BeforeValidator(_date_of_birth),
    BeforeValidator(_blank_to_none),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "format": "date"}, {"type": "null"}],
            "description": "YYYY-MM-DD, not in the future.",
        }
    ),
]
"""A day, not after today in UTC+14: where the day begins first, a baby may be born tomorrow."""

_FRACTION = r"(?:\.[0-9]{0,30})?"
_UP_TO = {
    90: rf"^[+-]?(?:0?90(?:\.0{{0,30}})?|0{{0,2}}[0-9]{_FRACTION}|0?[1-8][0-9]{_FRACTION})$",
    180: rf"^[+-]?(?:180(?:\.0{{0,30}})?|0{{0,2}}[0-9]{_FRACTION}|0?[1-9][0-9]{_FRACTION}|1[0-7][0-9]{_FRACTION})$",
}
_SIX_DECIMALS = Decimal("0.000001")


class _Degrees:
    """Degrees from `-limit` to `limit`: a number or a string holding one, rounded to six decimals; blank is `null`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def _check(self, value: object) -> Decimal | None:
        value = _blank_to_none(value)
        if value is None:
            return None
        number = self._number(value)
        if number is None or not number.is_finite() or abs(number) > self.limit:
            raise refuse("degrees", f"Must be a number from -{self.limit} to {self.limit}, or a string holding one")
        return number.quantize(_SIX_DECIMALS, ROUND_HALF_UP)

    def _number(self, value: object) -> Decimal | None:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        if isinstance(value, str) and re.fullmatch(_UP_TO[self.limit], value.strip()) is None:
            return None
        return Decimal(str(value).strip())

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic's hook: this check is the whole of it."""
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Pydantic's hook: publish both forms."""
        number = {"type": "number", "minimum": -self.limit, "maximum": self.limit}
        text = {"type": "string", "pattern": _or_blank(_UP_TO[self.limit])}
        description = f"Degrees from -{self.limit} to {self.limit} as text or a number, rounded to six decimals."
        return {"anyOf": [text, number, {"type": "null"}], "description": description}


Latitude = Annotated[Decimal | None, _Degrees(90)]
"""Degrees north, -90 to 90."""
Longitude = Annotated[Decimal | None, _Degrees(180)]
"""Degrees east, -180 to 180."""


def _identifier(text: str) -> str:
    if not is_identifier(text):
        raise refuse("identifier", "Must be 1 to 64 letters, digits or . _ ~ : @ -, beginning with a letter or digit")
    return text


Identifier = Annotated[
    str, AfterValidator(_identifier), WithJsonSchema({"type": "string", "maxLength": 64, "pattern": PATTERN})
]
"""The `unique_id` of a record."""

IdentifierSet = Annotated[list[Identifier], Field(max_length=1000)]
"""Ids in any order; repeats collapse."""

Degrees = Annotated[str, Field(pattern=r"^-?[0-9]{1,3}\.[0-9]{6}$")]
"""Latitude or longitude in an answer: a string with six decimals, as Django REST framework writes a DecimalField."""

Timestamp = Annotated[datetime, WithJsonSchema({"type": "string", "format": "date-time", "description": "In UTC."})]
"""A moment in UTC, ISO 8601 with `Z`."""

_FIRST_YEAR, _LAST_YEAR = 1900, 9000


def _moment(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        moment = datetime.min.replace(tzinfo=UTC)
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise refuse("moment", "Must be a date or a moment such as 2026-11-30 or 2026-11-30T12:00:00Z")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A moment in a query, ISO 8601; without an offset it is in UTC, and a date is its first moment."""


def _recorded(value: object) -> datetime | None:
    if value is None:
        return None
    moment = _moment(value)
    if moment > datetime.now(UTC):
        raise refuse("moment_in_future", "Must not be in the future")
    return moment


Recorded = Annotated[datetime | None, BeforeValidator(_recorded), BeforeValidator(_blank_to_none)]
"""A moment of which a record brings word from elsewhere; as `Moment`, and not in the future."""

MOST_VALUES = 50


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


T = TypeVar("T")
# the bounds before the validator: so they are the list's own, which is counted before its items are validated
Several = Annotated[list[T], Field(min_length=1, max_length=MOST_VALUES), BeforeValidator(_listed)]
"""The values of a filter, of which one has to match: one in a query as `name=a&name=b`, in a body also by itself."""
