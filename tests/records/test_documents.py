"""The documents that PostgreSQL builds: their schemas, their formats, and the number of statements they cost."""

from collections.abc import Iterator
from typing import Any

import asyncpg
import httpx
import pytest
from pydantic import BaseModel

from app.doctors.schemas import Doctor
from app.hospitals.schemas import Hospital
from app.patients.schemas import Patient, PatientDoctor, PatientHospital, PatientProfile
from app.profiles.schemas import Profile
from tests.support import EXAMPLE_PATIENT, SentStatement, recorded_statements

PATIENTS = "/patients/patients/"
RESPONSE_SCHEMAS: dict[str, type[BaseModel]] = {
    PATIENTS: Patient,
    "/profiles/profiles/": Profile,
    "/hospitals/hospitals/": Hospital,
    "/doctors/doctors/": Doctor,
}
NESTED_SCHEMAS: dict[str, type[BaseModel]] = {
    "patient_profile": PatientProfile,
    "patient_hospital": PatientHospital,
    "patient_doctor": PatientDoctor,
}


def validate_document(document: dict[str, Any], schema: type[BaseModel]) -> None:
    """Check that a document has the schema's fields, in its order, with values of their types."""
    schema.model_validate(document)
    assert list(document) == list(schema.model_fields)
    for key, nested in NESTED_SCHEMAS.items():
        inner = document.get(key) or []
        for item in inner if isinstance(inner, list) else [inner]:
            nested.model_validate(item)
            assert list(item) == list(nested.model_fields)


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_documents_match_their_response_schemas(client: httpx.AsyncClient) -> None:
    """Every response with a record (create, get, change, list, page) matches the schema that declares it."""
    bodies: dict[str, list[dict[str, Any]]] = {
        PATIENTS: [
            EXAMPLE_PATIENT,
            {"patient_last_name": "Doe"},
            {"patient_first_name": 'J"\\/\n\u2028', "doctor_ids": []},
        ],
        "/profiles/profiles/": [{}, {"email": "a@b.c", "first_name": "Zoë", "last_name": "😀"}],
        "/hospitals/hospitals/": [{"hospital_name": "Groote Schuur"}],
        "/doctors/doctors/": [{"doctor_first_name": "Ann"}, {"doctor_first_name": "A", "doctor_last_name": "B"}],
    }
    for path, schema in RESPONSE_SCHEMAS.items():
        for body in bodies[path]:
            created = (await client.post(path, json=body)).json()
            validate_document(created, schema)
            one = f"{path}{created['unique_id']}/"
            for method in ("PUT", "PATCH"):
                validate_document((await client.request(method, one, json=body)).json(), schema)
            assert (await client.get(one)).json() == created
        listed = (await client.get(path)).json()
        assert len(listed) >= len(bodies[path])
        for document in [*listed, *(await client.get(path, params={"limit": 1000})).json()]:
            validate_document(document, schema)


@pytest.mark.parametrize("path", RESPONSE_SCHEMAS)
async def test_timestamps_are_utc_with_z_in_any_time_zone(
    client: httpx.AsyncClient, connection: asyncpg.Connection, path: str
) -> None:
    """Timestamps are UTC with Z, without a fraction if it is zero and else with six digits, in any server time zone."""
    await connection.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone TO ''Asia/Kathmandu''', current_database()); END $$"
    )
    names = {"patient_last_name": "Doe", "hospital_name": "General", "doctor_first_name": "Ann"}
    body = {key: value for key, value in names.items() if key in RESPONSE_SCHEMAS[path].model_fields}
    one = (await client.post(path, json=body)).headers["location"]
    for written, answered in {
        "2023-01-01 12:00:00+00": "2023-01-01T12:00:00Z",
        "2023-01-01 12:00:00.5+00": "2023-01-01T12:00:00.500000Z",
        "2023-01-01 12:00:00.123450+00": "2023-01-01T12:00:00.123450Z",
        "2023-01-01 12:00:00.000001+00": "2023-01-01T12:00:00.000001Z",
        "2023-01-01 01:00:00+14": "2022-12-31T11:00:00Z",
        "1969-12-31 23:59:59.999999+00": "1969-12-31T23:59:59.999999Z",
        "0800-01-01 00:00:00.5+00": "0800-01-01T00:00:00.500000Z",
    }.items():
        table = path.split("/")[1]
        update = f"UPDATE {table} SET date_created = $1::text::timestamptz, last_updated = $1::text::timestamptz"  # noqa: S608
        await connection.execute(update, written)
        document = (await client.get(one)).json()
        assert (document["date_created"], document["last_updated"]) == (answered, answered)


async def test_degrees_are_strings_with_six_decimals(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Degrees are strings with six decimals, whatever is stored."""
    one = (await client.post(PATIENTS, json={"patient_last_name": "Doe"})).headers["location"]
    for stored, answered in {
        "0": "0.000000",
        "-0.5": "-0.500000",
        "0.000001": "0.000001",
        "90": "90.000000",
        "-12.34567": "-12.345670",
    }.items():
        update = "UPDATE patients SET patient_latitude = $1::text::numeric, patient_longitude = -$1::text::numeric * 2"
        await connection.execute(update, stored)
        document = (await client.get(one)).json()
        assert document["patient_latitude"] == answered
        assert float(document["patient_longitude"]) == -2 * float(answered)
        validate_document(document, Patient)


async def test_nested_hospitals_and_doctors_are_sorted_by_id(client: httpx.AsyncClient) -> None:
    """Hospitals and doctors in a patient are sorted by the bytes of their unique_id."""
    ids = ["b", "a1", "B", "a", "A", "a-", "0"]
    for unique_id in ids:
        await client.post("/hospitals/hospitals/", json={"unique_id": unique_id, "hospital_name": f"H {unique_id}"})
        await client.post("/doctors/doctors/", json={"unique_id": unique_id, "doctor_first_name": f"D {unique_id}"})
    body = {"patient_last_name": "Doe", "hospital_ids": ids, "doctor_ids": ids}
    patient = (await client.post(PATIENTS, json=body)).json()
    expected = sorted(ids, key=str.encode)
    assert patient["patient_hospital"] == [{"unique_id": i, "hospital_name": f"H {i}"} for i in expected]
    assert patient["patient_doctor"] == [{"unique_id": i, "doctor_first_name": f"D {i}"} for i in expected]


@pytest.fixture
async def _linked_records(connection: asyncpg.Connection) -> None:
    """Insert 300 hospitals, doctors and patients, and link the first patient to all hospitals and doctors."""
    await connection.execute("""
        INSERT INTO hospitals (unique_id, hospital_name) SELECT 'h' || n, 'Hospital' FROM generate_series(1, 300) n;
        INSERT INTO doctors (unique_id, doctor_first_name) SELECT 'd' || n, 'Doctor' FROM generate_series(1, 300) n;
        INSERT INTO profiles (unique_id) VALUES ('known');
        INSERT INTO patients (unique_id, patient_last_name, profile_id)
        SELECT 'p' || n, 'Doe', 'known' FROM generate_series(1, 300) n;
        INSERT INTO patient_hospitals SELECT 'p1', unique_id FROM hospitals;
        INSERT INTO patient_doctors SELECT 'p1', unique_id FROM doctors;
    """)


@pytest.fixture
def sent_statements() -> Iterator[list[SentStatement]]:
    """Yield the statements sent to PostgreSQL so far, including BEGIN and COMMIT of transactions."""
    with recorded_statements() as sent:
        yield sent


@pytest.mark.usefixtures("_linked_records")
async def test_reads_are_one_statement(client: httpx.AsyncClient, sent_statements: list[SentStatement]) -> None:
    """A patient, with no links or with 600, and a page of any size cost one statement each.

    A whole list costs another one, for the cursor from which the change feed continues it.
    """
    await client.get(f"{PATIENTS}?limit=1")  # reads the key of cursors, once per process
    for path in ("p1/", "p2/", "?limit=1", "?limit=50", "?limit=300", "?limit=1000", ""):
        sent_statements.clear()
        assert (await client.get(f"{PATIENTS}{path}")).status_code == 200
        assert len(sent_statements) == (1 if path else 2), path


@pytest.mark.usefixtures("_linked_records")
@pytest.mark.parametrize("profile", ["known", "new"])
@pytest.mark.parametrize("links", [1, 300])
async def test_writes_are_few_statements(
    client: httpx.AsyncClient, sent_statements: list[SentStatement], profile: str, links: int
) -> None:
    """Creating or changing a patient with its profile is one statement; with many links, it is at most eight.

    BEGIN and COMMIT count, too.
    """
    body = {
        "patient_last_name": "Roe",
        "hospital_ids": [f"h{number}" for number in range(1, links + 1)],
        "doctor_ids": [f"d{number}" for number in range(1, links + 1)],
    }
    counts: dict[str, int] = {}
    for method, path, own in (("POST", "", {}), ("POST", "", {"unique_id": "own"}), ("PUT", "p2/", {})):
        nested_profile = {
            "unique_id": profile if profile == "known" else f"new-{len(counts)}",
            "first_name": f"{len(counts)}",
        }
        sent_statements.clear()
        response = await client.request(
            method, f"{PATIENTS}{path}", json={**body, **own, "patient_profile": nested_profile}
        )
        assert response.status_code in {200, 201}
        assert len(response.json()["patient_hospital"]) == links
        expected = len(sent_statements) == 1 or (sent_statements[0].text, sent_statements[-1].text) == (
            "BEGIN",
            "COMMIT",
        )
        assert expected, sent_statements
        counts[f"{method} {own}"] = len(sent_statements)
    assert max(counts.values()) <= (1 if links == 1 else 8), counts
