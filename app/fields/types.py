"""The field types of requests. Each type defines which values a field may have.

Each type cleans its input, and publishes its rule in the OpenAPI document. If a type rejects the input, the error
message says in one sentence what to change. No message repeats the input, because the input is patient data.
"""

import re
import unicodedata
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema
from sqlalchemy import Column

from app.db.base import max_length
from app.error_types import ErrorType, FileErrorType
from app.fields.characters import is_blank
from app.identifiers import IDENTIFIER_PATTERN, is_identifier


def validation_error(error_type: ErrorType | FileErrorType, message: str) -> PydanticCustomError:
    """Return an error for a validator to raise. Programs read `error_type`, and people read `message`."""
    return PydanticCustomError(error_type, message)


def is_no_value(value: object) -> bool:
    """Return whether a value is None or a blank text, because HTML forms send `""` for an empty field."""
    return value is None or (isinstance(value, str) and is_blank(value))


MAX_COMBINING_MARKS = 30
"""Maximum number of consecutive combining marks, as in Unicode's Stream-Safe Text Format (UAX #15, section 13)."""


def _is_stream_safe(text: str) -> bool:
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > MAX_COMBINING_MARKS:
            return False
    return True


_SURROGATE_PATTERN = re.compile("[\ud800-\udfff]")


def _clean(text: str, max_length: int) -> str:
    text = text.strip()
    # checked before NFC, which takes time that is quadratic in the number of combining marks of a character;
    # the limit is five times the maximum length, because NFC joins at most five code points into one
    if len(text) > 5 * max_length:
        raise PydanticKnownError("string_too_long", {"max_length": max_length})
    if len(text) > max_length and not _is_stream_safe(text):
        raise validation_error("string_marks", f"Must have at most {MAX_COMBINING_MARKS} combining marks in a row")
    if "\0" in text:
        raise validation_error("string_nul", "Must not contain NUL characters")
    if _SURROGATE_PATTERN.search(text) is not None:
        raise PydanticKnownError("string_unicode")
    return unicodedata.normalize("NFC", text)


def or_blank_pattern(pattern: str) -> str:
    """Return the pattern to publish for an optional field. It matches `pattern` and blank text, which means `null`."""
    return rf"^\s*$|{pattern}"


class Text:
    """The type of a text field that is stored in `column`.

    The text is trimmed and normalized to Unicode's NFC. It must be at most as long as the column allows. Blank text is
    `null` if the field is optional, and rejected if the field is required. Write `Annotated[str | None,
    Text(columns.patient_title)]` for an optional field, and `Annotated[str, …]` for a required one.
    """

    pattern: str | None = None
    error_type: ErrorType
    error_message: str
    description: str | None = None

    def __init__(self, column: Column[Any]) -> None:
        self.max_length = max_length(column)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic hook: clean and check texts before the type check of `str` or `str | None`."""
        schema = handler(source)
        is_optional = schema["type"] == "nullable"
        max_length = self.max_length
        matches = None if self.pattern is None else re.compile(self.pattern).fullmatch

        # one function, because imports spend most of their time in it
        def clean(value: object) -> object:
            if not isinstance(value, str):
                return value  # the type check decides
            if value.isascii() and value.isprintable():  # most texts need no other cleaning
                text = value.strip()
            else:
                text = "" if is_blank(value) else _clean(value, max_length)
            if not text:
                if is_optional:
                    return None
                raise validation_error("string_blank", "Must not be blank")
            if len(text) > max_length:
                raise PydanticKnownError("string_too_long", {"max_length": max_length})
            if matches is not None and matches(text) is None:
                raise validation_error(self.error_type, self.error_message)
            return text

        return core_schema.no_info_before_validator_function(clean, schema)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Pydantic hook: add the length limit, pattern and description of this class to the JSON schema of the type."""
        published = handler(schema)
        text = published["anyOf"][0] if "anyOf" in published else published
        text["maxLength"] = self.max_length
        if text is published:
            text |= {"minLength": 1, "pattern": self.pattern or r"\S"}
        elif self.pattern is not None:
            text["pattern"] = or_blank_pattern(self.pattern)
        if self.description is not None:
            published["description"] = self.description
        return published


_DOMAIN_LABEL_PATTERN = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"


class Email(Text):
    """An e-mail address in the syntax of `<input type=email>` (HTML standard, section 4.10.5.1.5)."""

    pattern = rf"^[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_DOMAIN_LABEL_PATTERN}(?:\.{_DOMAIN_LABEL_PATTERN})*$"
    error_type = "email"
    error_message = "Must be an e-mail address such as name@example.com"


class MobileNumber(Text):
    """A telephone number: an optional `+` and 4 to 15 digits. ITU-T E.164 allows no more than 15 digits.

    Spaces, dots, dashes and parentheses are allowed.
    """

    pattern = r"^\+?(?:[ .()-]*[0-9]){4,15}[ .()-]*$"
    error_type = "mobile_number"
    error_message = "Must be an optional + and 4 to 15 digits; spaces, dots, dashes and parentheses are allowed"
    description = "An optional + and 4 to 15 digits; spaces, dots, dashes and parentheses are kept as sent."


class Gender(StrEnum):
    """Administrative gender."""

    MALE = "Male"
    FEMALE = "Female"
    OTHER = "Other"
    UNKNOWN = "Unknown"


_GENDERS_BY_SPELLING = {spelling: gender.value for gender in Gender for spelling in (gender.lower(), gender[0].lower())}


def _parse_gender(text: str) -> str:
    gender = _GENDERS_BY_SPELLING.get(text.strip().lower())
    if gender is None:
        raise validation_error("gender", "Must be Male, Female, Other or Unknown (or M, F, O, U)")
    return gender


def _parse_optional_gender(value: object) -> object:
    if not isinstance(value, str):
        return value  # the type check decides
    return None if is_blank(value) else _parse_gender(value)


_GENDER_JSON_SCHEMA = {"$ref": "#/components/schemas/Gender"}
RequiredGender = Annotated[
    str,
    AfterValidator(_parse_gender),
    WithJsonSchema(_GENDER_JSON_SCHEMA),
]
"""Administrative gender, in the spellings that `OptionalGender` accepts. A value is required."""
OptionalGender = Annotated[
    str | None,
    BeforeValidator(_parse_optional_gender),
    WithJsonSchema(
        {
            "anyOf": [_GENDER_JSON_SCHEMA, {"type": "null"}],
            "description": "In upper or lower case; HL7's M, F, O, U are accepted too.",
        }
    ),
]
"""Administrative gender: a name from `Gender`, or a code from HL7 table 0001 (M, F, O or U), in upper or lower case. A
code is stored as the name."""


_DATE_PATTERN = re.compile(r"\s*([0-9]{4}-[0-9]{2}-[0-9]{2})\s*")


def _parse_date(value: object) -> date:
    if isinstance(value, str) and (match := _DATE_PATTERN.fullmatch(value)) is not None:
        try:
            day = date.fromisoformat(match[1])
        except ValueError:
            day = date.min
        # the driver sends date.min as -infinity, which is not a day in PostgreSQL
        if day != date.min:
            return day
    raise validation_error("date", "Must be a date written YYYY-MM-DD")


DateParameter = Annotated[date, BeforeValidator(_parse_date), WithJsonSchema({"type": "string", "format": "date"})]
"""A date in a query, written YYYY-MM-DD."""


def _parse_date_of_birth(value: object) -> date | None:
    if is_no_value(value):
        return None
    day = _parse_date(value)
    if day > (datetime.now(UTC) + timedelta(hours=14)).date():
        raise validation_error("date_in_future", "Must not be in the future")
    return day


DateOfBirth = Annotated[
    date | None,
    BeforeValidator(_parse_date_of_birth),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "format": "date"}, {"type": "null"}],
            "description": "YYYY-MM-DD, not in the future.",
        }
    ),
]
"""A date of birth. It must not be later than the current date in UTC+14, the time zone in which each day begins first.
A baby born in UTC+14 may have a date of birth that is still tomorrow in UTC."""


def _require_identifier(text: str) -> str:
    if not is_identifier(text):
        raise validation_error(
            "identifier", "Must be 1 to 64 letters, digits or . _ ~ : @ -, beginning with a letter or digit"
        )
    return text


Identifier = Annotated[
    str,
    AfterValidator(_require_identifier),
    WithJsonSchema({"type": "string", "maxLength": 64, "pattern": IDENTIFIER_PATTERN}),
]
"""The `unique_id` of a record. The rule is in `app.identifiers`."""

IdentifierSet = Annotated[list[Identifier], Field(max_length=1000)]
"""A set of record ids, at most 1000. Their order does not matter, and duplicates count once."""

Timestamp = Annotated[datetime, WithJsonSchema({"type": "string", "format": "date-time", "description": "In UTC."})]
"""A timestamp in a response: in UTC, in ISO 8601 with `Z`."""

_MIN_YEAR, _MAX_YEAR = 1900, 9000


def _parse_timestamp(value: Any) -> datetime:
    try:
        timestamp = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        timestamp = datetime.min.replace(tzinfo=UTC)
    if not _MIN_YEAR <= timestamp.year <= _MAX_YEAR:
        raise validation_error("moment", "Must be a date or a timestamp such as 2026-11-30 or 2026-11-30T12:00:00Z")
    return timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)


def timestamp_or_none(value: object) -> datetime | None:
    """Return the timestamp that `value` contains, or None if it contains anything else."""
    try:
        return _parse_timestamp(value)
    except PydanticCustomError:
        return None


TimestampParameter = Annotated[
    datetime,
    BeforeValidator(_parse_timestamp),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A timestamp in a query, in ISO 8601. A timestamp without an offset is in UTC. A date means 00:00 UTC on that day."""


def _parse_past_timestamp(value: object) -> datetime | None:
    if is_no_value(value):
        return None
    timestamp = _parse_timestamp(value)
    if timestamp > datetime.now(UTC):
        raise validation_error("moment_in_future", "Must not be in the future")
    return timestamp


PastTimestamp = Annotated[datetime | None, BeforeValidator(_parse_past_timestamp)]
"""A timestamp that an imported record has in another system, or None. It has the format of `TimestampParameter` and
must not be in the future."""
TIMESTAMP_FIELDS = ("date_created", "last_updated")
"""The fields of a record with a timestamp. Only imported records bring their own."""


class _BooleanParameter:
    """The type of a boolean parameter: `true` or `false`, as JSON in a body and as text in a query."""

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic hook: accept text in the lax mode, in which queries are validated, and no other spelling."""
        boolean = core_schema.bool_schema(strict=True)
        values = {"true": True, "false": False}
        text = core_schema.no_info_before_validator_function(
            lambda value: values.get(value, value) if isinstance(value, str) else value, boolean
        )
        return core_schema.lax_or_strict_schema(text, boolean)


BooleanParameter = Annotated[bool, _BooleanParameter(), WithJsonSchema({"type": "boolean"})]

MAX_FILTER_VALUES = 50
"""Maximum number of values for one filter, except the filter `unique_id`."""
MAX_FILTER_IDS = 100
"""Maximum number of values for the filter `unique_id`: as many as a page has records by default."""


def as_list(value: object) -> list[object]:
    """Return a list unchanged, and any other value as a list with this value."""
    return value if isinstance(value, list) else [value]


T = TypeVar("T")
# the length limits precede the validator, so that the list is counted before its items are validated
OneOrMany = Annotated[list[T], Field(min_length=1, max_length=MAX_FILTER_VALUES), BeforeValidator(as_list)]
"""The values of a filter. A record matches the filter if it matches at least one of the values. A query repeats the
parameter (`name=a&name=b`). A body contains a list or a single value."""
IdentifierFilter = Annotated[list[Identifier], Field(min_length=1, max_length=MAX_FILTER_IDS), BeforeValidator(as_list)]
"""The values of the filter `unique_id`, in the form of `OneOrMany`."""


def _integral_float_as_int(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


ACCEPT_INTEGRAL_FLOAT = BeforeValidator(_integral_float_as_int)
"""Makes an integer field accept numbers such as 1.0, because JSON does not distinguish 1.0 from 1."""
