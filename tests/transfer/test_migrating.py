"""The former service's data, brought over by the statements of the documentation."""

import re
from datetime import datetime
from pathlib import Path

import asyncpg
import httpx

from tests.support import EXAMPLE
from tests.transfer.support import command, imported, patient

DOCUMENT = Path(__file__).parents[2] / "docs" / "migrating.md"
FIELDS = [name for name in EXAMPLE if name not in {"patient_profile", "hospital_ids", "doctor_ids"}]
PROFILE = ("unique_id", "email", "first_name", "last_name")
DATES = "date_created timestamptz, last_updated timestamptz"
TEXTS = ", ".join(f"{name} text" for name in FIELDS)
FORMER = f"""
CREATE TABLE hospitals_hospital (id int, unique_id text, hospital_name text, {DATES});
CREATE TABLE doctors_doctor (id int, unique_id text, doctor_first_name text, doctor_last_name text, {DATES});
CREATE TABLE profiles_profile (id int, unique_id text, email text, first_name text, last_name text, {DATES});
CREATE TABLE patients_patient (id int, unique_id text, patient_profile_id int, {TEXTS}, {DATES});
CREATE TABLE patients_patient_patient_hospital (id int, patient_id int, hospital_id int);
CREATE TABLE patients_patient_patient_doctor (id int, patient_id int, doctor_id int);
"""
"""The tables that Django makes of the former models; a date, a number, are text here, which COPY writes alike."""
MOMENTS = (
    datetime.fromisoformat("2019-05-06T07:08:09.101112+02:00"),
    datetime.fromisoformat("2020-05-06T07:08:09+00:00"),
)


async def fill(connection: asyncpg.Connection) -> None:
    """Put the contract's example into the former tables."""
    await connection.execute(FORMER)
    profile = EXAMPLE["patient_profile"]
    hospitals = list(enumerate(EXAMPLE["hospital_ids"], start=7))
    rows: dict[str, list[tuple[object, ...]]] = {
        "hospitals_hospital": [(key, unique_id, "General", *MOMENTS) for key, unique_id in hospitals],
        "doctors_doctor": [(3, "doc123", "Dr. Smith", "", *MOMENTS)],
        "profiles_profile": [(5, *(profile[name] for name in PROFILE), *MOMENTS)],
        "patients_patient": [(1, "pat1", 5, *(EXAMPLE[name] for name in FIELDS), *MOMENTS)],
        "patients_patient_patient_hospital": [(number, 1, key) for number, (key, _) in enumerate(hospitals)],
        "patients_patient_patient_doctor": [(1, 1, 3)],
    }
    for table, records in rows.items():
        await connection.copy_records_to_table(table, records=records)


async def test_the_statements_of_the_documentation(
    database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """What they write is imported as it is: ids, dates, links."""
    await fill(connection)
    statements = re.findall(r"`(\w+\.csv)`\n\n```sql\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert [name for name, _ in statements] == ["hospitals.csv", "doctors.csv", "profiles.csv", "patients.csv"]
    for name, statement in statements:
        await connection.copy_from_query(statement, output=tmp_path / name, format="csv", header=True)
    await imported(database_url, tmp_path)
    brought = await patient(client, "pat1")
    assert {name: brought[name] for name in FIELDS} == {name: EXAMPLE[name] for name in FIELDS}
    assert brought["patient_profile"] == EXAMPLE["patient_profile"]
    assert [one["unique_id"] for one in brought["patient_hospital"]] == EXAMPLE["hospital_ids"]
    assert [one["unique_id"] for one in brought["patient_doctor"]] == EXAMPLE["doctor_ids"]
    assert brought["date_created"] == "2019-05-06T05:08:09.101112Z"
    assert brought["last_updated"] == "2020-05-06T07:08:09Z"
    doctor = (await client.get("/doctors/doctors/doc123/")).json()
    assert doctor["doctor_last_name"] is None
    assert doctor["date_created"] == brought["date_created"]
    assert (await command(database_url, "journal", "verify")).returncode == 0
