from typing import Annotated, ClassVar, Literal

from typing_extensions import TypeAliasType

from app import contract
from app.fields.schemas import CreateBody, Representation, UpdateBody
from app.fields.selection import FieldsOf
from app.fields.types import Identifier, OneOrMany, Text, Timestamp
from app.models import Hospital as HospitalRow
from app.search.parameters import NameListParameters

columns = HospitalRow.__table__.c


class Hospital(Representation):
    """A hospital."""

    example = contract.HOSPITAL

    unique_id: Identifier
    hospital_name: str
    date_created: Timestamp
    last_updated: Timestamp


class HospitalCreate(CreateBody):
    """A new hospital."""

    example = contract.HOSPITAL_FIELDS

    hospital_name: Annotated[str, Text(columns.hospital_name)]


class HospitalUpdate(UpdateBody):
    """The changes to a hospital. Absent fields are left unchanged."""

    example = contract.HOSPITAL_FIELDS

    hospital_name: Annotated[str, Text(columns.hospital_name)] = ""


HospitalOrdering = TypeAliasType(
    "HospitalOrdering",
    Literal["unique_id", "-unique_id", "hospital_name", "-hospital_name"],
)
"""The field that a list of hospitals is sorted by, with a leading `-` for descending order."""


class HospitalParameters(NameListParameters):
    """The parameters that select and sort the hospitals of a list. A hospital must meet all conditions."""

    search_column: ClassVar = "hospital_search"

    fields: Annotated[list[str] | None, FieldsOf(Hospital)] = None
    ordering: HospitalOrdering | None = None
    """The field to sort the list by. Hospitals with equal names are sorted by `unique_id`. A leading `-` means
    descending order."""
    hospital_name: OneOrMany[Annotated[str, Text(columns.hospital_name)]] | None = None
    """Hospitals with this name. The whole value must match. Case and accents are ignored."""
    hospital_name__startswith: OneOrMany[Annotated[str, Text(columns.hospital_name)]] | None = None
    """Hospitals with a name that starts with this text. Case and accents are ignored."""
