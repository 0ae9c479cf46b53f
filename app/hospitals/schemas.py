from typing import Annotated

from app import contract
from app.models import Hospital as Row
from app.resource.schemas import CreateBody, Representation, UpdateBody
from app.resource.values import Identifier, Text, Timestamp

columns = Row.__table__.c


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
    """What to change of a hospital; what is absent stays."""

    example = contract.HOSPITAL_FIELDS

    hospital_name: Annotated[str, Text(columns.hospital_name)] = ""
