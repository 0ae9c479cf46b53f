from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from app import contract
from app.models import Patient as Row
from app.profiles.schemas import ProfileUpsert
from app.resource.schemas import CreateBody, ReadOnly, Representation, RequestBody, UpdateBody
from app.resource.values import (
    AnyGender,
    DateOfBirth,
    Degrees,
    Email,
    Gender,
    Identifier,
    IdentifierSet,
    Latitude,
    Longitude,
    Mobile,
    Text,
    Timestamp,
    refuse,
)

columns = Row.__table__.c


class PatientProfile(Representation):
    """The profile of a patient; several patients may share one."""

    unique_id: Identifier
    email: str | None
    first_name: str | None
    last_name: str | None


class PatientHospital(Representation):
    """A hospital of a patient."""

    unique_id: Identifier
    hospital_name: str


class PatientDoctor(Representation):
    """A doctor of a patient."""

    unique_id: Identifier
    doctor_first_name: str


class Patient(Representation):
    """A patient. The keys and their order are the contract's; what is not known is `null`."""

    example = contract.PATIENT

    unique_id: Identifier
    patient_profile: PatientProfile | None
    """The account that the patient is linked to."""
    patient_email_address: str | None
    patient_mobile_number: str | None
    patient_title: str | None
    patient_first_name: str | None
    patient_initials: str | None
    patient_last_name: str | None
    patient_date_of_birth: Annotated[str, Field(json_schema_extra={"format": "date"})] | None
    patient_gender: Gender | None
    patient_race: str | None
    patient_physical_address: str | None
    patient_address_line_1: str | None
    patient_town: str | None
    patient_region: str | None
    patient_province: str | None
    patient_country: str | None
    patient_postal_code: str | None
    patient_latitude: Degrees | None
    """Degrees north, with six decimals."""
    patient_longitude: Degrees | None
    """Degrees east, with six decimals."""
    patient_access_medical_care: str | None
    patient_hospital: list[PatientHospital]
    """In the order of their ids; requests say `hospital_ids`."""
    patient_doctor: list[PatientDoctor]
    """In the order of their ids; requests say `doctor_ids`."""
    date_created: Timestamp
    last_updated: Timestamp


class PatientFields(RequestBody):
    """What a client may set of a patient."""

    patient_profile: ProfileUpsert | None = None
    """The account to link the patient to; `null` unlinks, the profile itself stays."""
    patient_email_address: Annotated[str | None, Email(columns.patient_email_address)] = None
    patient_mobile_number: Annotated[str | None, Mobile(columns.patient_mobile_number)] = None
    patient_title: Annotated[str | None, Text(columns.patient_title)] = None
    patient_first_name: Annotated[str | None, Text(columns.patient_first_name)] = None
    patient_initials: Annotated[str | None, Text(columns.patient_initials)] = None
    patient_last_name: Annotated[str | None, Text(columns.patient_last_name)] = None
    patient_date_of_birth: DateOfBirth = None
    patient_gender: AnyGender = None
    patient_race: Annotated[str | None, Text(columns.patient_race)] = None
    patient_physical_address: Annotated[str | None, Text(columns.patient_physical_address)] = None
    patient_address_line_1: Annotated[str | None, Text(columns.patient_address_line_1)] = None
    patient_town: Annotated[str | None, Text(columns.patient_town)] = None
    patient_region: Annotated[str | None, Text(columns.patient_region)] = None
    patient_province: Annotated[str | None, Text(columns.patient_province)] = None
    patient_country: Annotated[str | None, Text(columns.patient_country)] = None
    patient_postal_code: Annotated[str | None, Text(columns.patient_postal_code)] = None
    patient_latitude: Latitude = None
    patient_longitude: Longitude = None
    patient_access_medical_care: Annotated[str | None, Text(columns.patient_access_medical_care)] = None
    hospital_ids: IdentifierSet = Field(default_factory=list)
    """All hospitals of the patient, which must exist; `[]` is none."""
    doctor_ids: IdentifierSet = Field(default_factory=list)
    """All doctors of the patient, who must exist; `[]` is none."""
    patient_hospital: ReadOnly = None
    patient_doctor: ReadOnly = None


class PatientCreate(CreateBody, PatientFields):
    """A new patient: a first or a last name, and whatever else is known. Blank text is `null`."""

    example = contract.CREATE

    # validated even where absent, and as a field, so that its error stands among those of the others
    patient_last_name: Annotated[str | None, Text(columns.patient_last_name), Field(validate_default=True)] = None

    @field_validator("patient_last_name")
    @classmethod
    def _named(cls, last_name: str | None, others: ValidationInfo) -> str | None:
        if last_name is None and others.data.get("patient_first_name", "") is None:
            raise refuse("name_missing", NAME_MISSING)
        return last_name


class PatientUpdate(UpdateBody, PatientFields):
    """What to change of a patient: absent stays, `null` or blank clears, ids replace the whole set."""

    example = contract.UPDATE


NAME_MISSING = "Give patient_first_name or patient_last_name: a patient has at least one of them"
