from typing import Annotated, ClassVar, Literal

from typing_extensions import TypeAliasType

from app import contract
from app.fields.schemas import CreateBody, Representation, UpdateBody
from app.fields.selection import FieldsOf
from app.fields.types import Identifier, OneOrMany, Text, Timestamp
from app.models import Doctor as DoctorRow
from app.search.parameters import NameListParameters

columns = DoctorRow.__table__.c


class Doctor(Representation):
    """A doctor."""

    example = contract.DOCTOR

    unique_id: Identifier
    doctor_first_name: str
    doctor_last_name: str | None
    date_created: Timestamp
    last_updated: Timestamp


class DoctorCreate(CreateBody):
    """A new doctor."""

    example = contract.DOCTOR_FIELDS

    doctor_first_name: Annotated[str, Text(columns.doctor_first_name)]
    doctor_last_name: Annotated[str | None, Text(columns.doctor_last_name)] = None


class DoctorUpdate(UpdateBody):
    """The changes to a doctor. Absent fields are left unchanged."""

    example = contract.DOCTOR_FIELDS

    doctor_first_name: Annotated[str, Text(columns.doctor_first_name)] = ""
    doctor_last_name: Annotated[str | None, Text(columns.doctor_last_name)] = None


DoctorOrdering = TypeAliasType(
    "DoctorOrdering",
    Literal[
        "unique_id", "-unique_id", "doctor_first_name", "-doctor_first_name", "doctor_last_name", "-doctor_last_name"
    ],
)
"""The field that a list of doctors is sorted by, with a leading `-` for descending order."""


class DoctorParameters(NameListParameters):
    """The parameters that select and sort the doctors of a list. A doctor must meet all conditions."""

    search_column: ClassVar = "doctor_search"

    fields: Annotated[list[str] | None, FieldsOf(Doctor)] = None
    ordering: DoctorOrdering | None = None
    """The field to sort the list by. Doctors with equal values are sorted by `unique_id`. A leading `-` means
    descending order. Doctors without a value come last in either order."""
    doctor_first_name: OneOrMany[Annotated[str, Text(columns.doctor_first_name)]] | None = None
    """Doctors with this first name. The whole value must match. Case and accents are ignored."""
    doctor_first_name__startswith: OneOrMany[Annotated[str, Text(columns.doctor_first_name)]] | None = None
    """Doctors with a first name that starts with this text. Case and accents are ignored."""
    doctor_last_name: OneOrMany[Annotated[str, Text(columns.doctor_last_name)]] | None = None
    """Doctors with this last name. The whole value must match. Case and accents are ignored."""
    doctor_last_name__startswith: OneOrMany[Annotated[str, Text(columns.doctor_last_name)]] | None = None
    """Doctors with a last name that starts with this text. Case and accents are ignored."""
