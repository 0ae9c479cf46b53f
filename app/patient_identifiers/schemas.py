"""The identifiers in the bodies of requests and responses."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from typing_extensions import TypeAliasType

from app.fields.schemas import Representation, RequestBody
from app.fields.types import Identifier, Text, validation_error
from app.models.identifier import TYPE_NAME_PATTERN

MAX_IDENTIFIERS = 100
"""Maximum number of identifiers of a patient."""
MAX_VALUE_LENGTH = 100
MAX_TYPE_LENGTH = 40
BUILT_IN_TYPES = ("za_id", "passport", "asylum", "medical_aid", "birth_certificate", "folder", "other")
"""The names of the types that every register has."""
EXAMPLE: dict[str, Any] = {
    "type": "za_id",
    "value": "800101 5009 087",
    "country": "ZA",
    "use": "official",
    "hospital_id": None,
}


IdentifierUse = TypeAliasType("IdentifierUse", Literal["usual", "official", "temp", "secondary", "old"])
"""What an identifier is used for, as in FHIR."""


class IdentifierValue(Text):
    """The type of the values: text that is stored as it was sent, apart from blanks at its ends."""

    def __init__(self) -> None:
        self.max_length = MAX_VALUE_LENGTH


def _parse_country(value: object) -> object:
    if not isinstance(value, str):
        return value
    code = value.strip().upper()
    if not code:
        return None
    if len(code) != 2 or not (code.isascii() and code.isalpha()):  # noqa: PLR2004  # the length of a code
        raise validation_error("country_code", "Must be a country code of two letters, such as ZA")
    return code


CountryCode = Annotated[
    str | None,
    BeforeValidator(_parse_country),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": r"^\s*(?:[A-Za-z]{2})?\s*$"}, {"type": "null"}],
            "description": "The country that issued the identifier: two letters (ISO 3166-1), in upper or lower case.",
        }
    ),
]


TypeName = Annotated[str, Field(max_length=MAX_TYPE_LENGTH, pattern=TYPE_NAME_PATTERN)]
"""The name of a type of identifiers."""


class PatientIdentifier(Representation):
    """An identifier of a patient, such as an identity number."""

    example: ClassVar = EXAMPLE

    type: str
    value: str
    country: str | None
    use: IdentifierUse | None
    hospital_id: Identifier | None
    """The hospital that gave the identifier, if its type is one that hospitals give, such as `folder`."""


class StoredIdentifier(Representation):
    """An identifier of a patient in a history. Fields that are `null` are omitted."""

    type: str
    value: str
    normalized: str
    """The value as it is compared: its letters and digits, in upper case."""
    country: str = ""
    use: IdentifierUse = "usual"
    hospital_id: Identifier = ""


class PatientIdentifierInput(RequestBody):
    """An identifier of a patient in a request. It is compared without case, spaces and punctuation."""

    example: ClassVar = EXAMPLE

    type: TypeName
    """`za_id`, `passport`, `asylum`, `medical_aid`, `birth_certificate`, `folder`, `other`, or a type that the operator
    has added."""
    value: Annotated[str, IdentifierValue()]
    country: CountryCode = None
    use: IdentifierUse | None = None
    hospital_id: Identifier | None = None
    """The hospital that gave the identifier. Only types such as `folder` have one; the default is the patient's only
    hospital."""


IdentifierInputs = Annotated[list[PatientIdentifierInput], Field(max_length=MAX_IDENTIFIERS)]
