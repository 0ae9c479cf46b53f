from typing import Annotated

from app.models import Hospital as Row
from app.resource.schemas import CreateBody, Representation, UpdateBody
from app.resource.values import Identifier, Text, Timestamp

columns = Row.__table__.c


class Hospital(Representation):
    """A hospital."""

    unique_id: Identifier
    hospital_name: str
    date_created: Timestamp
    last_updated: Timestamp


class HospitalCreate(CreateBody):
    """A new hospital."""

    hospital_name: Annotated[str, Text(columns.hospital_name)]


class HospitalUpdate(UpdateBody):
    """What to change of a hospital; what is absent stays."""

    hospital_name: Annotated[str, Text(columns.hospital_name)] = ""
