"""The types of latitudes and longitudes."""

import re
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from app.fields.types import is_no_value, or_blank_pattern, validation_error

_FRACTION_PATTERN = r"(?:\.[0-9]{0,30})?"
_DEGREES_PATTERNS = {
    90: rf"^[+-]?(?:0?90(?:\.0{{0,30}})?|0{{0,2}}[0-9]{_FRACTION_PATTERN}|0?[1-8][0-9]{_FRACTION_PATTERN})$",
    180: rf"^[+-]?(?:180(?:\.0{{0,30}})?|0{{0,2}}[0-9]{_FRACTION_PATTERN}"
    rf"|0?[1-9][0-9]{_FRACTION_PATTERN}|1[0-7][0-9]{_FRACTION_PATTERN})$",
}
_DEGREES_PRECISION = Decimal("0.000001")


class _DegreesField:
    """The type of a field for degrees from `-max_degrees` to `max_degrees`, as a number or as text.

    The value is rounded to six decimals. Blank text is `null`.
    """

    def __init__(self, max_degrees: int) -> None:
        self.max_degrees = max_degrees
        self._matches = re.compile(_DEGREES_PATTERNS[max_degrees]).fullmatch

    def _check(self, value: object) -> Decimal | None:
        if is_no_value(value):
            return None
        number = self._parse_text(value) if isinstance(value, str) else self._parse_number(value)
        if number is None:
            raise validation_error(
                "degrees",
                f"Must be a number from -{self.max_degrees} to {self.max_degrees}, or a string that contains one",
            )
        return number.quantize(_DEGREES_PRECISION, ROUND_HALF_UP)

    def _parse_text(self, text: str) -> Decimal | None:
        text = text.strip()
        return Decimal(text) if self._matches(text) is not None else None

    def _parse_number(self, value: object) -> Decimal | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        number = Decimal(str(value))
        return number if number.is_finite() and abs(number) <= self.max_degrees else None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic hook: replace the type check with the check of this class."""
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Pydantic hook: publish that the field may be text or a number."""
        number = {"type": "number", "minimum": -self.max_degrees, "maximum": self.max_degrees}
        text = {"type": "string", "pattern": or_blank_pattern(_DEGREES_PATTERNS[self.max_degrees])}
        description = (
            f"Degrees from -{self.max_degrees} to {self.max_degrees} as text or a number, rounded to six decimals."
        )
        return {"anyOf": [text, number, {"type": "null"}], "description": description}


Latitude = Annotated[Decimal | None, _DegreesField(90)]
"""Latitude: degrees north, from -90 to 90."""
Longitude = Annotated[Decimal | None, _DegreesField(180)]
"""Longitude: degrees east, from -180 to 180."""

DegreesText = Annotated[str, Field(pattern=r"^-?[0-9]{1,3}\.[0-9]{6}$")]
"""Latitude or longitude in a response: text with six decimals, as Django REST framework writes a DecimalField."""
