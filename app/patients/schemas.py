from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator

from app import contract
from app.fields.phones import equivalent_numbers
from app.fields.schemas import CreateBody, ReadOnly, Representation, RequestBody, Schema, UpdateBody, tidy_json_schema
from app.fields.types import (
    DateOfBirth,
    DateParameter,
    DegreesText,
    Email,
    Gender,
    Identifier,
    IdentifierSet,
    Latitude,
    Longitude,
    MobileNumber,
    OneOrMany,
    OptionalGender,
    RequiredGender,
    Text,
    Timestamp,
    TimestampParameter,
    validation_error,
)
from app.listing.pagination import ListParameters
from app.listing.query import ListQuery
from app.models import Patient as PatientRow
from app.profiles.schemas import ProfileUpsert
from app.search.parser import MAX_SEARCH_CHARACTERS, MAX_TERMS_PER_KIND, parse_search

columns = PatientRow.__table__.c


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
    patient_latitude: DegreesText | None
    """Degrees north, with six decimals."""
    patient_longitude: DegreesText | None
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
    """All hospitals of the patient, which must exist; `[]` is none."""
    doctor_ids: IdentifierSet = Field(default_factory=list)
    """All doctors of the patient, who must exist; `[]` is none."""
    patient_hospital: ReadOnly = None
    patient_doctor: ReadOnly = None


class PatientCreate(CreateBody, PatientFields):
    """A new patient: a first or a last name, and whatever else is known. Blank text is `null`."""

    example = contract.CREATE_BODY

    # validated even where absent, and as a field, so that its error stands among those of the others
    patient_last_name: Annotated[str | None, Text(columns.patient_last_name), Field(validate_default=True)] = None

    @field_validator("patient_last_name")
    @classmethod
    def _require_name(cls, last_name: str | None, info: ValidationInfo) -> str | None:
        if last_name is None and info.data.get("patient_first_name", "") is None:
            raise validation_error("name_missing", NAME_MISSING_MESSAGE)
        return last_name


class PatientUpdate(UpdateBody, PatientFields):
    """What to change of a patient: absent stays, `null` or blank clears, ids replace the whole set."""

    example = contract.UPDATE_BODY


def _check_word_count(text: str) -> str:
    if any(parsed.largest_kind_size > MAX_TERMS_PER_KIND for parsed in parse_search(text)):
        raise validation_error("search_words", f"Must have at most {MAX_TERMS_PER_KIND} words")
    return text


NAME_MISSING_MESSAGE = "Give patient_first_name or patient_last_name: a patient has at least one of them"


class PatientParameters(ListParameters):
    """Which patients are wanted, and in what order; all conditions have to hold.

    Each filter is a column, Django's way with or without a comparison behind it (`app.listing.keyset`).
    """

    # the length first: what comes after takes longer than the text is long
    search: Annotated[str, Field(max_length=MAX_SEARCH_CHARACTERS), AfterValidator(_check_word_count)] | None = None
    """What somebody knows of a patient, in any order: names or parts of them, a date of birth, a mobile number, an
    e-mail address, a `unique_id`. Best match first; without `limit`, the best 100."""
    ordering: (
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
        ]
        | None
    ) = None
    """By what the list is sorted, then by `unique_id`; `-` for descending. What is not known comes last both ways."""
    hospital_id: OneOrMany[Identifier] | None = None
    """Patients of this hospital; any of these, where it is given several times, as for all filters."""
    doctor_id: OneOrMany[Identifier] | None = None
    """Patients of this doctor."""
    profile_id: OneOrMany[Identifier] | None = None
    """Patients that are linked to this profile."""
    patient_first_name: OneOrMany[Annotated[str, Text(columns.patient_first_name)]] | None = None
    """All of it, without regard to case and accents, as for all texts."""
    patient_last_name: OneOrMany[Annotated[str, Text(columns.patient_last_name)]] | None = None
    """All of it."""
    patient_last_name__startswith: OneOrMany[Annotated[str, Text(columns.patient_last_name)]] | None = None
    """With what it begins."""
    patient_town: OneOrMany[Annotated[str, Text(columns.patient_town)]] | None = None
    """All of it."""
    patient_region: OneOrMany[Annotated[str, Text(columns.patient_region)]] | None = None
    """All of it."""
    patient_province: OneOrMany[Annotated[str, Text(columns.patient_province)]] | None = None
    """All of it."""
    patient_country: OneOrMany[Annotated[str, Text(columns.patient_country)]] | None = None
    """All of it."""
    patient_race: OneOrMany[Annotated[str, Text(columns.patient_race)]] | None = None
    """All of it."""
    patient_access_medical_care: OneOrMany[Annotated[str, Text(columns.patient_access_medical_care)]] | None = None
    """All of it."""
    patient_gender: OneOrMany[RequiredGender] | None = None
    """Male, Female, Other or Unknown, or M, F, O, U."""
    patient_postal_code: OneOrMany[Annotated[str, Text(columns.patient_postal_code)]] | None = None
    """Without regard to case."""
    patient_email_address: OneOrMany[Annotated[str, Email(columns.patient_email_address)]] | None = None
    """Without regard to case."""
    patient_mobile_number: OneOrMany[Annotated[str, MobileNumber(columns.patient_mobile_number)]] | None = None
    """In any spelling of the same number."""
    patient_date_of_birth: OneOrMany[DateParameter] | None = None
    """Born on this day."""
    patient_date_of_birth__gte: OneOrMany[DateParameter] | None = None
    """Born on this day or later."""
    patient_date_of_birth__lte: OneOrMany[DateParameter] | None = None
    """Born on this day or before."""
    date_created__gte: OneOrMany[TimestampParameter] | None = None
    """Created at this moment or later; a date is its first moment, in UTC."""
    date_created__lt: OneOrMany[TimestampParameter] | None = None
    """Created before this moment."""
    last_updated__gte: OneOrMany[TimestampParameter] | None = None
    """Changed, or created, at this moment or later."""
    last_updated__lt: OneOrMany[TimestampParameter] | None = None
    """Changed, or created, for the last time before this moment."""

    @property
    def is_paged_by_default(self) -> bool:
        """Who searches wants the best."""
        return self.search is not None

    def to_query(self, phone_region: str) -> ListQuery:
        """What of the list is wanted; telephone numbers without a country's code are of `phone_region`."""
        filters = {name: value for name, value in self if isinstance(value, list)}
        if numbers := filters.pop("patient_mobile_number", None):
            equivalents = {digits for number in numbers for digits in equivalent_numbers(number, phone_region)}
            filters["patient_mobile_digits"] = sorted(equivalents)
        return ListQuery(filters, self.ordering, parse_search(self.search or "", phone_region) or None)


def _tidy_search_json_schema(schema: dict[str, Any]) -> None:
    """Say that one value needs no list around it."""
    for field in schema["properties"].values():
        for branch in list(field.get("anyOf", ())):
            if branch.get("type") == "array":
                field["anyOf"].insert(0, branch["items"])
    tidy_json_schema(schema)


class PatientSearch(PatientParameters, Schema):
    """The same as `list_patients` takes in its query, for what must not stand in a URL: names, numbers, dates of birth.

    A filter's value may be a list, of which one has to match.
    """

    model_config = ConfigDict(strict=True, hide_input_in_errors=True, json_schema_extra=_tidy_search_json_schema)

    example: ClassVar = {"search": "dlamini 1984-02-17", "limit": 20}
