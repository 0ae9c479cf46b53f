"""A new field has to be in the model, a migration, the schemas and the example: these tests name the missing places."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import asyncpg
import httpx
import pytest
from pydantic import BaseModel

from app.db.base import Resource
from app.doctors.schemas import Doctor, DoctorCreate, DoctorUpdate
from app.hospitals.schemas import Hospital, HospitalCreate, HospitalUpdate
from app.models import Doctor as DoctorRow
from app.models import Hospital as HospitalRow
from app.models import Patient as PatientRow
from app.models import Profile as ProfileRow
from app.patients.schemas import Patient, PatientCreate, PatientProfile, PatientUpdate, PatientWithIdentifiers
from app.profiles.schemas import Profile, ProfileCreate, ProfileUpdate, ProfileUpsert
from tests.support import EXAMPLE_PATIENT

READ_ONLY_FIELDS = {"unique_id", "date_created", "last_updated"}
"""Fields that the example does not have, because the service generates them."""


@dataclass(frozen=True)
class FieldLocations:
    """The places that define the fields of a resource."""

    row_class: type[Resource]
    response: type[BaseModel]
    create: type[BaseModel]
    update: type[BaseModel]
    unpublished: frozenset[str] = frozenset({"version"})
    """Columns that no client sees. Add a column here only if it is not meant to be a field."""
    relations: Mapping[str, str] = field(default_factory=dict)
    """Response fields that are not columns, and the request field with which a client sets each."""

    @property
    def internal(self) -> frozenset[str]:
        """The unpublished columns, and those that PostgreSQL computes."""
        return self.unpublished | {column.name for column in self.row_class.__table__.columns if column.computed}


FIELD_LOCATIONS = {
    "patients": FieldLocations(
        PatientRow,
        PatientWithIdentifiers,
        PatientCreate,
        PatientUpdate,
        frozenset({"version", "profile_id"}),
        {"patient_profile": "patient_profile", "patient_hospital": "hospital_ids", "patient_doctor": "doctor_ids"},
    ),
    "profiles": FieldLocations(ProfileRow, Profile, ProfileCreate, ProfileUpdate),
    "hospitals": FieldLocations(HospitalRow, Hospital, HospitalCreate, HospitalUpdate),
    "doctors": FieldLocations(DoctorRow, Doctor, DoctorCreate, DoctorUpdate),
}


def missing_fields(fields_by_location: Mapping[str, set[str]]) -> list[str]:
    """Return a line for each field and each place that lacks it although another place has it."""
    all_fields = set().union(*fields_by_location.values())
    return [
        f"{name} is missing in {place}"
        for place, fields in fields_by_location.items()
        for name in sorted(all_fields - fields)
    ]


def field_names(schema: type[BaseModel]) -> set[str]:
    """Return the names of the fields of a record. `not_duplicates` is a decision about one, and not part of it."""
    return set(schema.model_fields) - {"not_duplicates"}


async def migrated_columns(connection: asyncpg.Connection, table: str) -> set[str]:
    query = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = $1"
    return {row[0] for row in await connection.fetch(query, table)}


def test_missing_fields_names_each_field_and_its_location() -> None:
    """The comparison names each field and each place that lacks it, and nothing else."""
    assert missing_fields({"the model": {"a", "b"}, "a migration": {"a"}, "the schema": {"a", "b"}}) == [
        "b is missing in a migration"
    ]
    assert missing_fields({"the model": {"a"}, "the example": {"a", "b"}}) == ["b is missing in the model"]
    assert missing_fields({"the model": {"a"}, "the example": {"a"}}) == []


@pytest.mark.parametrize("table", FIELD_LOCATIONS)
async def test_every_field_is_in_model_migration_and_schemas(table: str, connection: asyncpg.Connection) -> None:
    """Each column is in the model, a migration, the response, and the bodies of POST and PUT."""
    locations = FIELD_LOCATIONS[table]
    folder = f"app/{table}/schemas.py"
    related = set(locations.relations)
    missing = missing_fields(
        {
            f"the model (app/models/{locations.row_class.__name__.lower()}.py)": (
                set(locations.row_class.__table__.columns.keys()) - locations.internal | related
            ),
            "a migration (migrations/versions)": await migrated_columns(connection, table) - locations.internal
            | related,
            f"the response ({folder}, {locations.response.__name__})": field_names(locations.response),
            f"the body of POST ({folder}, {locations.create.__name__})": field_names(locations.create)
            - set(locations.relations.values())
            | related,
            f"the body of PUT ({folder}, {locations.update.__name__})": field_names(locations.update)
            - set(locations.relations.values())
            | related,
        }
    )
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("table", FIELD_LOCATIONS)
async def test_internal_columns_exist_and_are_not_published(table: str, connection: asyncpg.Connection) -> None:
    """The internal columns exist in model and database and are unpublished, so that no exception is obsolete."""
    locations = FIELD_LOCATIONS[table]
    assert locations.internal <= set(locations.row_class.__table__.columns.keys())
    assert locations.internal <= await migrated_columns(connection, table)
    assert not locations.internal & field_names(locations.response)


@pytest.mark.parametrize("schema", [PatientCreate, PatientUpdate])
def test_each_relation_can_be_set_in_requests(schema: type[BaseModel]) -> None:
    """Each relation in a patient's response has a request field that sets it."""
    missing = sorted(set(FIELD_LOCATIONS["patients"].relations.values()) - field_names(schema))
    assert not missing, f"{missing} missing in {schema.__name__}"


def test_example_patient_has_every_field() -> None:
    """The example patient has every field that a client may send, so that each test that uses it covers new fields."""
    relations = FIELD_LOCATIONS["patients"].relations
    settable_fields = field_names(PatientCreate) - READ_ONLY_FIELDS - (set(relations) - set(relations.values()))
    settable_fields -= {"patient_identifiers"}  # the contract has none; tests/patient_identifiers has examples
    missing = missing_fields(
        {"the example (tests/support.py, EXAMPLE_PATIENT)": set(EXAMPLE_PATIENT), "PatientCreate": settable_fields}
    )
    assert not missing, "\n".join(missing)


def test_nested_profile_has_every_profile_field() -> None:
    """A profile has the same fields on its own, inside a patient, in a patient's upsert, and in the example."""
    missing = missing_fields(
        {
            "the profile inside a patient (app/patients/schemas.py, PatientProfile)": field_names(PatientProfile),
            "the upsert of a patient's profile (app/profiles/schemas.py, ProfileUpsert)": field_names(ProfileUpsert)
            - {"date_created", "last_updated"},
            "the response (app/profiles/schemas.py, Profile)": field_names(Profile) - {"date_created", "last_updated"},
            "the example (tests/support.py, EXAMPLE_PATIENT)": set(EXAMPLE_PATIENT["patient_profile"]),
        }
    )
    assert not missing, "\n".join(missing)


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_every_field_is_stored_and_returned(client: httpx.AsyncClient) -> None:
    """POST, PUT and GET store and return every field of the example."""
    created = (await client.post("/patients/patients/", json=EXAMPLE_PATIENT)).json()
    one = f"/patients/patients/{created['unique_id']}/"
    for response in (created, (await client.get(one)).json(), (await client.put(one, json=EXAMPLE_PATIENT)).json()):
        assert response.keys() == field_names(Patient)
        assert [name for name, value in response.items() if value in (None, [])] == []
        assert {name: response[name] for name in EXAMPLE_PATIENT.keys() & response.keys()} == {
            name: value for name, value in EXAMPLE_PATIENT.items() if name in response
        }


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_every_optional_field_can_be_cleared(client: httpx.AsyncClient) -> None:
    """Each optional field of the example can be cleared on its own; the remaining name identifies the patient."""
    created = (await client.post("/patients/patients/", json=EXAMPLE_PATIENT)).json()
    one = f"/patients/patients/{created['unique_id']}/"
    optional = EXAMPLE_PATIENT.keys() - FIELD_LOCATIONS["patients"].relations.values() - {"patient_last_name"} | {
        "patient_profile"
    }
    for name in sorted(optional):
        changed = await client.patch(one, json={name: None})
        assert changed.status_code == 200, (name, changed.text)
        assert changed.json()[name] is None, name
