from typing import Annotated

from app import contract
from app.fields.schemas import CreateBody, Representation, UpdateBody
from app.fields.types import Identifier, Text, Timestamp
from app.models import Doctor as DoctorRow

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
