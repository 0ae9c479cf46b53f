"""Records of each resource, and the ids in a list."""

import asyncpg
import httpx

PATIENTS = "/patients/patients/"
LIST_PATHS = [PATIENTS, "/profiles/profiles/", "/hospitals/hospitals/", "/doctors/doctors/"]


async def insert_records(connection: asyncpg.Connection, count: int) -> list[str]:
    """Insert `count` records of each resource and return their ids in order."""
    await connection.execute(f"""
        CREATE TEMPORARY TABLE ids AS SELECT 'id' || lpad(n::text, 5, '0') AS id FROM generate_series(1, {count}) n;
        INSERT INTO patients (unique_id, patient_last_name) SELECT id, 'Doe' FROM ids;
        INSERT INTO profiles (unique_id) SELECT id FROM ids;
        INSERT INTO hospitals (unique_id, hospital_name) SELECT id, 'General' FROM ids;
        INSERT INTO doctors (unique_id, doctor_first_name) SELECT id, 'Ann' FROM ids;
    """)  # noqa: S608
    return [f"id{number:05}" for number in range(1, count + 1)]


def listed_ids(response: httpx.Response) -> list[str]:
    """Return the ids of a list, which is a bare array."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return [record["unique_id"] for record in response.json()]
