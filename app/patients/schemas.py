"""Request and response bodies of patients, and the parameters that filter, search and sort their list."""

from datetime import datetime, timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from typing_extensions import TypeAliasType

from app import contract
from app.fields.degrees import DegreesText, Latitude, Longitude
from app.fields.phones import equivalent_numbers
from app.fields.schemas import (
    CreateBody,
    LinkedRecord,
    ReadOnlyLinks,
    ReadOnlyTimestamp,
    Representation,
    RequestBody,
    SearchBody,
    UpdateBody,
)
from app.fields.selection import FieldsOf, include_type
from app.fields.types import (
    DateOfBirth,
    DateParameter,
    Email,
    Gender,
    Identifier,
    IdentifierSet,
    MobileNumber,
    OneOrMany,
    OptionalGender,
    RequiredGender,
    Text,
    Timestamp,
    TimestampParameter,
    validation_error,
)
from app.listing.pagination import MergeableListParameters
from app.listing.query import ListQuery
from app.locality import Locality
from app.matching.weights import Grade
from app.models import Patient as PatientRow
from app.patient_identifiers.finding import IdentifierOrValue, filter_value
from app.patient_identifiers.schemas import EXAMPLE as IDENTIFIER_EXAMPLE
from app.patient_identifiers.schemas import IdentifierInputs, PatientIdentifier
from app.profiles.schemas import ProfileUpsert
from app.search_text.parser import MAX_SEARCH_CHARACTERS, parse_search

columns = PatientRow.__table__.c


class PatientProfile(Representation):
    """The profile of a patient. Several patients may have the same profile."""

    unique_id: Identifier
    email: str | None
    first_name: str | None
    last_name: str | None


class PatientHospital(Representation):
    """A hospital that a patient is linked to."""

    unique_id: Identifier
    hospital_name: str


class PatientDoctor(Representation):
    """A doctor that a patient is linked to."""

    unique_id: Identifier
    doctor_first_name: str


class Patient(Representation):
    """A patient. The API contract defines the keys and their order. Unknown values are `null`."""

    example = contract.PATIENT

    unique_id: Identifier
    patient_profile: PatientProfile | None
    """The profile that the patient is linked to. A profile is an account."""
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
    patient_latitude: DegreesText | None
    """Degrees north, with six decimals."""
    patient_longitude: DegreesText | None
    """Degrees east, with six decimals."""
    patient_access_medical_care: str | None
    patient_hospital: list[PatientHospital]
    """The patient's hospitals, sorted by `unique_id`. Requests set them with `hospital_ids`."""
    patient_doctor: list[PatientDoctor]
    """The patient's doctors, sorted by `unique_id`. Requests set them with `doctor_ids`."""
    date_created: Timestamp
    last_updated: Timestamp


class PatientWithIdentifiers(Patient):
    """A patient with its identifiers, as `include=identifiers` asks for it."""

    example: ClassVar = {**contract.PATIENT, "patient_identifiers": [IDENTIFIER_EXAMPLE]}

    patient_identifiers: list[PatientIdentifier]
    """The patient's identifiers, sorted by type, country and value."""


class PatientFields(RequestBody):
    """The fields of a patient that clients can set."""

    patient_profile: ProfileUpsert | None = None
    """The profile to link the patient to. A profile is an account. `null` removes the link but does not delete the
    profile."""
    patient_email_address: Annotated[str | None, Email(columns.patient_email_address)] = None
    patient_mobile_number: Annotated[str | None, MobileNumber(columns.patient_mobile_number)] = None
    patient_title: Annotated[str | None, Text(columns.patient_title)] = None
    patient_first_name: Annotated[str | None, Text(columns.patient_first_name)] = None
    patient_initials: Annotated[str | None, Text(columns.patient_initials)] = None
    patient_last_name: Annotated[str | None, Text(columns.patient_last_name)] = None
    patient_date_of_birth: DateOfBirth = None
    patient_gender: OptionalGender = None
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
    """The ids of all hospitals of the patient. The hospitals must exist. An empty list means no hospitals."""
    doctor_ids: IdentifierSet = Field(default_factory=list)
    """The ids of all doctors of the patient. The doctors must exist. An empty list means no doctors."""
    patient_identifiers: IdentifierInputs | None = None
    """All identifiers of the patient. `null` or an empty list means none."""
    patient_hospital: ReadOnlyLinks = None
    """Read-only: `hospital_ids` changes the hospitals. You can send the hospitals back as you read them."""
    patient_doctor: ReadOnlyLinks = None
    """Read-only: `doctor_ids` changes the doctors. You can send the doctors back as you read them."""

    def read_only_link_ids(self) -> dict[str, frozenset[str]]:
        """Return the ids of the linked records that the client sent back.

        They are grouped by the field that contains them, such as `patient_hospital`.
        """
        linked_by_field = {field: getattr(self, field) for field in LINK_ID_FIELDS}
        return {field: _ids(linked) for field, linked in linked_by_field.items() if linked is not None}


LINK_ID_FIELDS = {"patient_hospital": "hospital_ids", "patient_doctor": "doctor_ids"}
"""Maps each read-only field that contains linked records to the field that sets the links."""


def read_only_links_message(field: str) -> str:
    """Return the message for a request in which a key of `LINK_ID_FIELDS` has other ids than those of the links."""
    return f"Is read-only: to change these links, send {LINK_ID_FIELDS[field]}"


def _ids(linked: list[LinkedRecord]) -> frozenset[str]:
    return frozenset(one.unique_id for one in linked)


class PatientCreate(CreateBody, PatientFields):
    """A new patient.

    A first name or a last name is required; all other fields are optional. Blank text means `null`.
    """

    example = contract.CREATE_BODY

    not_duplicates: Annotated[IdentifierSet, Field(exclude=True)] = Field(default_factory=list)
    """The ids of patients that resemble the new patient but are other persons. The decision is stored."""
    # validated as a field, even if absent, so that a missing name is reported together with the errors of other fields
    patient_last_name: Annotated[str | None, Text(columns.patient_last_name), Field(validate_default=True)] = None

    @field_validator("patient_last_name")
    @classmethod
    def _require_name(cls, last_name: str | None, info: ValidationInfo) -> str | None:
        if last_name is None and info.data.get("patient_first_name", "") is None:
            raise validation_error("name_missing", NAME_MISSING_MESSAGE)
        return last_name

    @field_validator(*LINK_ID_FIELDS)
    @classmethod
    def _require_requested_links(
        cls, linked: list[LinkedRecord] | None, info: ValidationInfo
    ) -> list[LinkedRecord] | None:
        requested_ids = info.data.get(LINK_ID_FIELDS[str(info.field_name)])
        if linked and requested_ids is not None and _ids(linked) != frozenset(requested_ids):
            raise validation_error("read_only_links", read_only_links_message(str(info.field_name)))
        return linked


class PatientMatch(CreateBody, PatientFields):
    """What is known about a person: any part of the body that would create the patient."""

    example: ClassVar = {
        "patient_first_name": "John",
        "patient_last_name": "Doe",
        "patient_date_of_birth": "1980-01-01",
        "only_certain": False,
    }

    unique_id: Identifier = ""
    """The id of the patient, if the person is registered: this patient is left out."""
    only_certain: Annotated[bool, Field(exclude=True, strict=True)] = False
    """Whether to return a patient only if it is the only one that is certainly the person."""


class MatchCandidate(Representation):
    """A patient who may be the given person."""

    example: ClassVar = {
        "patient": contract.PATIENT,
        "score": 24.5,
        "grade": "certain",
        "agrees": ["patient_first_name", "patient_last_name", "patient_date_of_birth"],
        "differs": ["patient_mobile_number"],
    }

    patient: Patient
    score: float
    """The sum of the weights of the compared fields, in bits."""
    grade: Grade
    """How likely it is that the patient is the person."""
    agrees: list[str]
    """The names of the fields that speak for it."""
    differs: list[str]
    """The names of the fields that speak against it."""


class PatientUpdate(UpdateBody, PatientFields):
    """The changes to a patient. Absent fields are left unchanged, and `null` or blank text clears a field.

    `hospital_ids` and `doctor_ids` each replace the whole set of links, and `patient_identifiers` replaces all
    identifiers.
    """

    example = contract.UPDATE_BODY

    last_updated: ReadOnlyTimestamp = None
    """Ignored; accepted so that a record can be sent back as it was read. If it is older than the stored one,
    `patient_hospital` and `patient_doctor` are ignored too."""

    def is_based_on(self, last_updated: datetime) -> bool:
        """Return whether the client may have read the record as it was last updated at this time.

        The result is false only if the body contains an older `last_updated`. Milliseconds are compared, because
        JavaScript's `Date` has no microseconds.
        """
        return self.last_updated is None or last_updated - self.last_updated < timedelta(milliseconds=1)


NAME_MISSING_MESSAGE = "Give a first name or a last name: a patient has at least one of them"


PatientOrdering = TypeAliasType(
    "PatientOrdering",
    Literal[
        "unique_id",
        "-unique_id",
        "date_created",
        "-date_created",
        "last_updated",
        "-last_updated",
        "patient_last_name",
        "-patient_last_name",
        "patient_first_name",
        "-patient_first_name",
        "patient_date_of_birth",
        "-patient_date_of_birth",
    ],
)
"""The fields by which a list of patients can be sorted. A leading `-` means descending order."""


INCLUDABLE = ("identifiers",)
"""The values of the parameter `include`."""


class PatientParameters(MergeableListParameters):
    """The parameters that select and sort the patients of a list. A patient must meet all conditions."""

    search: Annotated[str, Field(max_length=MAX_SEARCH_CHARACTERS)] | None = None
    """Words that describe a patient, in any order: names or parts of names, a date of birth, a mobile number, an e-mail
    address, a `unique_id`, a town. The best matches come first. If fewer than ten patients agree with everything, up to
    ten others follow. Without `limit`, the response contains the best 100."""
    fields: Annotated[list[str] | None, FieldsOf(Patient)] = None
    include: include_type(INCLUDABLE) = None  # type: ignore[valid-type]
    ordering: PatientOrdering | None = None
    """The field to sort the list by. Patients with equal values are sorted by `unique_id`. A leading `-` means
    descending order. Patients without a value come last in either order."""
    hospital_id: OneOrMany[Identifier] | None = None
    """Patients of the hospital with this id. You can give this filter, like every other filter, several times. Patients
    then need to match only one of the values."""
    doctor_id: OneOrMany[Identifier] | None = None
    """Patients of the doctor with this id."""
    profile_id: OneOrMany[Identifier] | None = None
    """Patients that are linked to the profile with this id."""
    patient_first_name: OneOrMany[Annotated[str, Text(columns.patient_first_name)]] | None = None
    """Patients with this first name. The whole value must match. Case and accents are ignored, as in every text
    filter."""
    patient_last_name: OneOrMany[Annotated[str, Text(columns.patient_last_name)]] | None = None
    """Patients with this last name. The whole value must match."""
    patient_last_name__startswith: OneOrMany[Annotated[str, Text(columns.patient_last_name)]] | None = None
    """Patients with a last name that starts with this text."""
    patient_town: OneOrMany[Annotated[str, Text(columns.patient_town)]] | None = None
    """Patients with this town. The whole value must match."""
    patient_region: OneOrMany[Annotated[str, Text(columns.patient_region)]] | None = None
    """Patients with this region. The whole value must match."""
    patient_province: OneOrMany[Annotated[str, Text(columns.patient_province)]] | None = None
    """Patients with this province. The whole value must match."""
    patient_country: OneOrMany[Annotated[str, Text(columns.patient_country)]] | None = None
    """Patients with this country. The whole value must match."""
    patient_race: OneOrMany[Annotated[str, Text(columns.patient_race)]] | None = None
    """Patients with this race. The whole value must match."""
    patient_access_medical_care: OneOrMany[Annotated[str, Text(columns.patient_access_medical_care)]] | None = None
    """Patients with this access to medical care. The whole value must match."""
    patient_gender: OneOrMany[RequiredGender] | None = None
    """Patients with this gender: Male, Female, Other or Unknown, or the codes M, F, O or U."""
    patient_postal_code: OneOrMany[Annotated[str, Text(columns.patient_postal_code)]] | None = None
    """Patients with this postal code. The whole value must match. Case is ignored."""
    patient_email_address: OneOrMany[Annotated[str, Email(columns.patient_email_address)]] | None = None
    """Patients with this e-mail address. The whole value must match. Case is ignored."""
    patient_mobile_number: OneOrMany[Annotated[str, MobileNumber(columns.patient_mobile_number)]] | None = None
    """Patients with this mobile number. Different spellings of the same number match."""
    patient_date_of_birth: OneOrMany[DateParameter] | None = None
    """Patients born on this day."""
    patient_date_of_birth__gte: OneOrMany[DateParameter] | None = None
    """Patients born on or after this day."""
    patient_date_of_birth__lte: OneOrMany[DateParameter] | None = None
    """Patients born on or before this day."""
    date_created__gte: OneOrMany[TimestampParameter] | None = None
    """Patients created at or after this time. A date means 00:00 UTC on that day."""
    date_created__lt: OneOrMany[TimestampParameter] | None = None
    """Patients created before this time. A date means 00:00 UTC on that day."""
    last_updated__gte: OneOrMany[TimestampParameter] | None = None
    """Patients last changed at or after this time. Creation counts as a change."""
    last_updated__lt: OneOrMany[TimestampParameter] | None = None
    """Patients last changed before this time. Creation counts as a change."""

    @property
    def is_paged_by_default(self) -> bool:
        """Whether a request without `limit` returns one page of the list instead of the whole list.

        A search returns one page, because a client that searches asks only for the best matches.
        """
        return self.search is not None

    def to_query(self, locality: Locality) -> ListQuery:
        """Return the list query that these parameters ask for."""
        query = super().to_query(locality)
        filters = dict(query.filters)
        if numbers := filters.pop("patient_mobile_number", None):
            equivalents = {digits for number in numbers for digits in equivalent_numbers(number, locality.phone_region)}
            filters["patient_mobile_digits"] = sorted(equivalents)
        return query._replace(filters=filters, search=parse_search(self.search or "", locality))


class PatientSearch(PatientParameters, SearchBody):
    """The parameters of `GET /patients/patients/`, in the body so that no personal data appear in a URL.

    The value of a filter may be a list. A patient then needs to match only one of its values.
    """

    example: ClassVar = {"search": "doe 1980-01-01", "limit": 20}

    patient_identifier: OneOrMany[IdentifierOrValue] | None = None
    """Patients with this identifier: an object with `value` and, if they matter, `type` and `country`, or the value
    alone. Case, spaces and punctuation are ignored."""

    def to_query(self, locality: Locality) -> ListQuery:
        """Return the list query that these parameters ask for."""
        query = super().to_query(locality)
        if identifiers := query.filters.get("patient_identifier"):
            query = query._replace(filters={**query.filters, "patient_identifier": [*map(filter_value, identifiers)]})
        return query
