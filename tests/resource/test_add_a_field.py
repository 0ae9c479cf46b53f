"""Whoever adds a field touches the model, a migration, the schemas and the factory. This names what was forgotten."""

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
from app.patients.schemas import Patient, PatientCreate, PatientProfile, PatientUpdate
from app.profiles.schemas import Profile, ProfileCreate, ProfileUpdate, ProfileUpsert
from tests.support import EXAMPLE

READ_ONLY = {"unique_id", "date_created", "last_updated"}
"""Fields that the factory does not give, because the service makes them."""


@dataclass(frozen=True)
class Places:
    """Where the fields of a resource stand."""

    row: type[Resource]
    response: type[BaseModel]
    create: type[BaseModel]
    update: type[BaseModel]
    internal: frozenset[str] = frozenset({"version"})
    """Columns that no client sees. Add a column here only if it is not to be a field."""
    relations: Mapping[str, str] = field(default_factory=dict)
    """Fields of the response that are no column, and the field of requests by which a client sets them."""


PLACES = {
    "patients": Places(
        PatientRow,
        Patient,
        PatientCreate,
        PatientUpdate,
        frozenset(
            {"version", "profile_id", *(column.name for column in PatientRow.__table__.columns if column.computed)}
        ),
        {"patient_profile": "patient_profile", "patient_hospital": "hospital_ids", "patient_doctor": "doctor_ids"},
    ),
    "profiles": Places(ProfileRow, Profile, ProfileCreate, ProfileUpdate),
    "hospitals": Places(HospitalRow, Hospital, HospitalCreate, HospitalUpdate),
    "doctors": Places(DoctorRow, Doctor, DoctorCreate, DoctorUpdate),
}


def forgotten(fields_by_place: Mapping[str, set[str]]) -> list[str]:
    """One line for each field and place where it is missing, although another place has it."""
    known = set().union(*fields_by_place.values())
    return [
        f"{name} is missing in {place}" for place, fields in fields_by_place.items() for name in sorted(known - fields)
    ]


def fields(schema: type[BaseModel]) -> set[str]:
    return set(schema.model_fields)


async def migrated(connection: asyncpg.Connection, table: str) -> set[str]:
    query = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = $1"
    return {row[0] for row in await connection.fetch(query, table)}


def test_what_was_forgotten_is_named() -> None:
    """The comparison names the field and each place that lacks it, and nothing else."""
    assert forgotten({"the model": {"a", "b"}, "a migration": {"a"}, "the schema": {"a", "b"}}) == [
        "b is missing in a migration"
    ]
    assert forgotten({"the model": {"a"}, "the factory": {"a", "b"}}) == ["b is missing in the model"]
    assert forgotten({"the model": {"a"}, "the factory": {"a"}}) == []


@pytest.mark.parametrize("table", PLACES)
async def test_nothing_of_a_field_was_forgotten(table: str, connection: asyncpg.Connection) -> None:
    """Each column is in the model, a migration, the response, and the bodies of POST and PUT."""
    places = PLACES[table]
    folder = f"app/{table}/schemas.py"
    related = set(places.relations)
    missing = forgotten(
        {
            f"the model (app/models/{places.row.__name__.lower()}.py)": (
                set(places.row.__table__.columns.keys()) - places.internal | related
            ),
            "a migration (migrations/versions)": await migrated(connection, table) - places.internal | related,
            f"the response ({folder}, {places.response.__name__})": fields(places.response),
            f"the body of POST ({folder}, {places.create.__name__})": fields(places.create)
            - set(places.relations.values())
            | related,
            f"the body of PUT ({folder}, {places.update.__name__})": fields(places.update)
            - set(places.relations.values())
            | related,
        }
    )
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("table", PLACES)
async def test_internal_columns_exist(table: str, connection: asyncpg.Connection) -> None:
    """The exceptions above are columns, in the model and the database: none outlives its reason."""
    places = PLACES[table]
    assert places.internal <= set(places.row.__table__.columns.keys())
    assert places.internal <= await migrated(connection, table)
    assert not places.internal & fields(places.response)


@pytest.mark.parametrize("schema", [PatientCreate, PatientUpdate])
def test_relations_can_be_set(schema: type[BaseModel]) -> None:
    """Each relation of a patient's answer has the field of requests that sets it."""
    missing = sorted(set(PLACES["patients"].relations.values()) - fields(schema))
    assert not missing, f"{missing} missing in {schema.__name__}"


def test_the_factory_has_every_field() -> None:
    """The tests' example patient has each field that a client may give, so that each test of it covers new ones."""
    relations = PLACES["patients"].relations
    given = fields(PatientCreate) - READ_ONLY - (set(relations) - set(relations.values()))
    missing = forgotten({"the factory (tests/support.py, EXAMPLE)": set(EXAMPLE), "PatientCreate": given})
    assert not missing, "\n".join(missing)


def test_the_profile_inside_a_patient_has_every_field() -> None:
    """A profile's fields are the same by itself, inside a patient, in the upsert of a patient's, and in the factory."""
    missing = forgotten(
        {
            "the profile inside a patient (app/patients/schemas.py, PatientProfile)": fields(PatientProfile),
            "the upsert of a patient's (app/profiles/schemas.py, ProfileUpsert)": fields(ProfileUpsert)
            - {"date_created", "last_updated"},
            "the response (app/profiles/schemas.py, Profile)": fields(Profile) - {"date_created", "last_updated"},
            "the factory (tests/support.py, EXAMPLE)": set(EXAMPLE["patient_profile"]),
        }
    )
    assert not missing, "\n".join(missing)


@pytest.mark.usefixtures("directory")
async def test_every_field_comes_back(client: httpx.AsyncClient) -> None:
    """What the factory gives is stored and answered, field by field, by POST, PUT and GET."""
    created = (await client.post("/patients/patients/", json=EXAMPLE)).json()
    one = f"/patients/patients/{created['unique_id']}/"
    for answer in (created, (await client.get(one)).json(), (await client.put(one, json=EXAMPLE)).json()):
        assert answer.keys() == fields(Patient)
        assert [name for name, value in answer.items() if value in (None, [])] == []
        assert {name: answer[name] for name in EXAMPLE.keys() & answer.keys()} == {
            name: value for name, value in EXAMPLE.items() if name in answer
        }


@pytest.mark.usefixtures("directory")
async def test_every_field_can_be_cleared(client: httpx.AsyncClient) -> None:
    """Each optional field of the factory can be cleared by itself; the name that is left identifies the patient."""
    created = (await client.post("/patients/patients/", json=EXAMPLE)).json()
    one = f"/patients/patients/{created['unique_id']}/"
    optional = EXAMPLE.keys() - PLACES["patients"].relations.values() - {"patient_last_name"} | {"patient_profile"}
    for name in sorted(optional):
        changed = await client.patch(one, json={name: None})
        assert changed.status_code == 200, (name, changed.text)
        assert changed.json()[name] is None, name
