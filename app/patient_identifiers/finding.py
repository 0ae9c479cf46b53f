"""Finds patients by their identifiers in lists and searches."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema
from sqlalchemy import ColumnElement, and_, any_, func, literal_column, or_, select

from app.fields.schemas import RequestBody
from app.models import patient_identifiers
from app.patient_identifiers.checkers import normalize
from app.patient_identifiers.schemas import MAX_VALUE_LENGTH, CountryCode, IdentifierValue, TypeName

MAX_SPAN_TOKENS = 5
"""Maximum number of blank-separated parts of an identifier that a search text contains."""
MAX_SPANNED_TOKENS = 20
"""Number of parts of a search text, from its beginning, in which identifiers are recognized."""
MIN_SPAN_CHARACTERS = 2
_SEPARATOR = "/"
"""Separates the parts of a filter value. No part contains it."""


class IdentifierFilter(RequestBody):
    """An identifier of the patients to find. Only the value is required."""

    value: Annotated[str, IdentifierValue()]
    type: TypeName | None = None
    country: CountryCode = None


class _TextAsValue:
    """Makes a value alone, as text, stand for an identifier of any type."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic hook: turn text into an object."""
        return core_schema.no_info_before_validator_function(
            lambda value: {"value": value} if isinstance(value, str) else value, handler(source)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Pydantic hook: publish that text is accepted, too."""
        return {"anyOf": [{"type": "string", "minLength": 1, "maxLength": MAX_VALUE_LENGTH}, handler(schema)]}


IdentifierOrValue = Annotated[IdentifierFilter, _TextAsValue()]
"""An identifier of the patients to find, or its value alone, as text."""


def filter_value(identifier: IdentifierFilter) -> str:
    """Return the parameter of `has_identifier` for an identifier."""
    return _SEPARATOR.join((identifier.type or "", identifier.country or "", normalize(identifier.value)))


def has_identifier(patient_id: ColumnElement[str], values: Sequence[ColumnElement[str]]) -> ColumnElement[bool]:
    """Return the condition that a patient has one of the identifiers, each the result of `filter_value`."""
    columns = patient_identifiers.c
    conditions = []
    for value in values:
        identifier_type, country, normalized = (
            func.split_part(value, literal_column(f"'{_SEPARATOR}'"), literal_column(str(index))) for index in (1, 2, 3)
        )
        conditions.append(
            and_(
                columns.value == normalized,
                columns.type == func.coalesce(func.nullif(identifier_type, literal_column("''")), columns.type),
                columns.country == func.coalesce(func.nullif(country, literal_column("''")), columns.country),
            )
        )
    # looked up first: without statistics of the values, the planner expects many patients
    ids = select(columns.patient_id).where(or_(*conditions)).scalar_subquery()
    return patient_id == any_(func.array(ids))


def has_value(patient_id: ColumnElement[str], value: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that a patient has an identifier with a normalized value, of any type."""
    ids = select(patient_identifiers.c.patient_id).where(patient_identifiers.c.value == value)
    return patient_id == any_(func.array(ids.correlate_except(patient_identifiers).scalar_subquery()))


def spans(text: str) -> Iterator[str]:
    """Yield the normalized values that a search text may contain: one or several adjacent parts with a digit."""
    tokens = [normalize(token) for token in text.split()[:MAX_SPANNED_TOKENS]]
    has_digit = [any(character.isdecimal() for character in token) for token in tokens]
    for start in range(len(tokens) if any(has_digit) else 0):  # most texts consist of words
        for end in range(start + 1, min(start + MAX_SPAN_TOKENS, len(tokens)) + 1):
            value = "".join(tokens[start:end])
            is_value = len(value) >= MIN_SPAN_CHARACTERS and any(has_digit[start:end])
            if is_value and tokens[start] and tokens[end - 1]:
                yield value
