from typing import Annotated

from app import contract
from app.fields.schemas import CreateBody, Representation, UpdateBody
from app.fields.types import Identifier, Text, Timestamp
from app.models import Hospital as HospitalRow

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
