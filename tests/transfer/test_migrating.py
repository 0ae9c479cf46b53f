"""The former service's data, imported by means of the documented statements."""

import re
from datetime import datetime
from pathlib import Path

import asyncpg
import httpx

from tests.support import EXAMPLE_PATIENT
from tests.transfer.support import get_patient, run_cli_on, run_import

GUIDE_PATH = Path(__file__).parents[2] / "docs" / "migrating.md"
PATIENT_FIELDS = (
    "patient_email_address",
    "patient_mobile_number",
    "patient_title",
    "patient_first_name",
    "patient_initials",
    "patient_last_name",
    "patient_date_of_birth",
    "patient_gender",
    "patient_race",
    "patient_physical_address",
    "patient_address_line_1",
    "patient_town",
    "patient_region",
    "patient_province",
    "patient_country",
    "patient_postal_code",
    "patient_latitude",
    "patient_longitude",
    "patient_access_medical_care",
)
"""The fields of the former service, which never change."""
PROFILE_FIELDS = ("unique_id", "email", "first_name", "last_name")
DATE_COLUMNS = "date_created timestamptz, last_updated timestamptz"
TEXT_COLUMNS = ", ".join(f"{name} text" for name in PATIENT_FIELDS)
CREATE_FORMER_TABLES = f"""
CREATE TABLE hospitals_hospital (id int, unique_id text, hospital_name text, {DATE_COLUMNS});
CREATE TABLE doctors_doctor (id int, unique_id text, doctor_first_name text, doctor_last_name text, {DATE_COLUMNS});
CREATE TABLE profiles_profile (id int, unique_id text, email text, first_name text, last_name text, {DATE_COLUMNS});
CREATE TABLE patients_patient (id int, unique_id text, patient_profile_id int, {TEXT_COLUMNS}, {DATE_COLUMNS});
CREATE TABLE patients_patient_patient_hospital (id int, patient_id int, hospital_id int);
CREATE TABLE patients_patient_patient_doctor (id int, patient_id int, doctor_id int);
"""
"""The tables that Django creates for the former models; dates and numbers are text here, which COPY writes alike."""
TIMESTAMPS = (
    datetime.fromisoformat("2019-05-06T07:08:09.101112+02:00"),
    datetime.fromisoformat("2020-05-06T07:08:09+00:00"),
)


async def fill_former_tables(connection: asyncpg.Connection) -> None:
    """Insert the contract's example into the former tables."""
    await connection.execute(CREATE_FORMER_TABLES)
    profile = EXAMPLE_PATIENT["patient_profile"]
    hospitals = list(enumerate(EXAMPLE_PATIENT["hospital_ids"], start=7))
    rows: dict[str, list[tuple[object, ...]]] = {
        "hospitals_hospital": [(key, unique_id, "General", *TIMESTAMPS) for key, unique_id in hospitals],
        "doctors_doctor": [(3, "doc123", "Dr. Smith", "", *TIMESTAMPS)],
        "profiles_profile": [(5, *(profile[name] for name in PROFILE_FIELDS), *TIMESTAMPS)],
        "patients_patient": [(1, "pat1", 5, *(EXAMPLE_PATIENT[name] for name in PATIENT_FIELDS), *TIMESTAMPS)],
        "patients_patient_patient_hospital": [(number, 1, key) for number, (key, _) in enumerate(hospitals)],
        "patients_patient_patient_doctor": [(1, 1, 3)],
    }
    for table, records in rows.items():
        await connection.copy_records_to_table(table, records=records)


async def test_documented_statements_bring_over_the_former_data(
    database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """The files that the documented statements write are imported with the same ids, dates and links."""
    await fill_former_tables(connection)
    statements = re.findall(r"`(\w+\.csv)`\n\n```sql\n(.*?)```", GUIDE_PATH.read_text(encoding="utf-8"), re.DOTALL)
    assert [name for name, _ in statements] == ["hospitals.csv", "doctors.csv", "profiles.csv", "patients.csv"]
    for name, statement in statements:
        await connection.copy_from_query(statement, output=tmp_path / name, format="csv", header=True)
    await run_import(database_url, tmp_path)
    imported_patient = await get_patient(client, "pat1")
    assert {name: imported_patient[name] for name in PATIENT_FIELDS} == {
        name: EXAMPLE_PATIENT[name] for name in PATIENT_FIELDS
    }
    assert imported_patient["patient_profile"] == EXAMPLE_PATIENT["patient_profile"]
    assert [one["unique_id"] for one in imported_patient["patient_hospital"]] == EXAMPLE_PATIENT["hospital_ids"]
    assert [one["unique_id"] for one in imported_patient["patient_doctor"]] == EXAMPLE_PATIENT["doctor_ids"]
    assert imported_patient["date_created"] == "2019-05-06T05:08:09.101112Z"
    assert imported_patient["last_updated"] == "2020-05-06T07:08:09Z"
    doctor = (await client.get("/doctors/doctors/doc123/")).json()
    assert doctor["doctor_last_name"] is None
    assert doctor["date_created"] == imported_patient["date_created"]
    assert (await run_cli_on(database_url, "journal", "verify")).returncode == 0
