"""The planner statistics that the serving role can read contain nothing about an erased person."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from app.models import Patient
from app.records.erasure import PERSONAL_DATA_TABLES
from tests.journal import conftest as fixtures
from tests.journal.conftest import Command
from tests.support import EXAMPLE_PATIENT

command = fixtures.command
serving_url = fixtures.serving_url

PATIENTS = "/patients/patients/"
SELECT_STATISTICS = """
    SELECT tablename || '.' || attname, concat_ws(' ', most_common_vals, histogram_bounds, most_common_elems)
    FROM pg_stats WHERE schemaname = 'public'
"""
PERSON = {
    "unique_id": "marker-id-1",
    "patient_profile": {"unique_id": "marker-profile", "email": "marker@example.com", "last_name": "Marker-Account"},
    "patient_first_name": "Marker-First",
    "patient_last_name": "Marker-Last",
    "patient_email_address": "marker-own@example.com",
    "patient_mobile_number": "+27 82 123 4567",
    "patient_physical_address": "1 Marker Street",
    "patient_town": "Markertown",
    "patient_date_of_birth": "1981-02-03",
    "hospital_ids": ["hos123"],
}
MARKER_IDS = ("marker-id-1", "marker-id-2", "marker-id-3")
MARKERS = ("marker", "27821234567", "27 82 123", "1981-02-03")


@pytest.fixture
async def serving_connection(serving_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection as the serving role."""
    connection = await asyncpg.connect(serving_url)
    yield connection
    await connection.close()


async def columns_with_markers(connection: asyncpg.Connection) -> set[str]:
    """Return the columns with statistics that contain data of the person."""
    rows = await connection.fetch(SELECT_STATISTICS)
    return {column for column, values in rows if any(marker in values.lower() for marker in MARKERS)}


async def create_person(client: httpx.AsyncClient, *, others: int) -> None:
    """Create the person with stored responses, changes and audited reads, beside `others` other patients."""
    for number in range(others):
        person = {"patient_last_name": f"Other-{number}", "hospital_ids": ["hos456"]}
        assert (await client.post(PATIENTS, json=person)).status_code == 201
    body = {**EXAMPLE_PATIENT, **PERSON}
    for unique_id in MARKER_IDS:
        key = {"Idempotency-Key": f"{unique_id}-key"}
        response = await client.post(PATIENTS, json={**body, "unique_id": unique_id}, headers=key)
        assert response.status_code == 201, response.text
        one = f"{PATIENTS}{unique_id}/"
        assert (await client.get(one)).status_code == 200
        assert (await client.post(f"{one}restore/", json={"version": 1}, headers=key)).status_code == 200
    assert len((await client.get("/patients/duplicates/")).json()) == len(MARKER_IDS)


@pytest.mark.usefixtures("hospitals_and_doctors")
@pytest.mark.parametrize("others", [0, 5])
async def test_erasure_leaves_nothing_in_planner_statistics(
    client: httpx.AsyncClient,
    connection: asyncpg.Connection,
    command: Command,
    serving_connection: asyncpg.Connection,
    others: int,
) -> None:
    """Planner statistics contain the person's data only before the erasure, with or without other patients."""
    await create_person(client, others=others)
    await connection.execute("ANALYZE")
    before = await columns_with_markers(serving_connection)
    assert before >= {
        "patients.unique_id",
        "patients.patient_last_name_folded",
        "patients.patient_date_of_birth",
        "patients.patient_mobile_digits",
        "patient_hospitals.patient_id",
        "journal.unique_id",
        "audit.ids",
        "name_words.word",
        "duplicates.one_id",
        "duplicates.other_id",
    }
    for unique_id in MARKER_IDS:
        done = await command("erase", "patient", unique_id, "--reason", "asked", "--yes")
        assert (done.status, done.err) == (0, "")
        assert not any(marker in done.out.lower() for marker in MARKERS)
    assert await columns_with_markers(serving_connection) == set()
    kept = await connection.fetchval("SELECT count(*) FROM pg_stats WHERE tablename = 'patients'")
    assert (kept > 10) is bool(others)


async def test_only_filtered_and_sorted_columns_have_statistics(
    client: httpx.AsyncClient,
    hospitals_and_doctors: None,  # noqa: ARG001
    connection: asyncpg.Connection,
) -> None:
    """Only columns for filters, sorting and searches have statistics; text as entered, responses and reasons do not."""
    await create_person(client, others=20)
    await connection.execute("ANALYZE")
    rows = await connection.fetch(
        "SELECT attrelid::regclass::text AS table, attname AS column, attstattarget IS DISTINCT FROM 0 AS kept,"
        " (SELECT concat(most_common_vals, histogram_bounds) FROM pg_stats"
        "  WHERE tablename = attrelid::regclass::text AND pg_stats.attname = pg_attribute.attname) AS values"
        " FROM pg_attribute WHERE attrelid = ANY ($1::text[]::regclass[]) AND attnum > 0",
        PERSONAL_DATA_TABLES,
    )
    columns_with_statistics = {(row["table"], row["column"]) for row in rows if row["kept"]}
    columns_with_values = {(row["table"], row["column"]) for row in rows if row["values"]}
    assert {
        column.name for column in Patient.__table__.columns if ("patients", column.name) in columns_with_statistics
    } == {
        column.name
        for column in Patient.__table__.columns
        if "max_length" not in column.info
        and column.name not in {"patient_latitude", "patient_longitude", "patient_identifiers"}
    }
    assert not columns_with_statistics & {
        ("profiles", "email"),
        ("audit", "reason"),
        ("journal", "reason"),
        ("idempotency_keys", "document"),
        ("duplicates", "reason"),
    }
    assert columns_with_values <= columns_with_statistics
    assert not columns_with_values & {("journal", "record"), ("journal", "erasure")}, "JSON never has statistics"


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_erasing_former_profiles_has_to_be_decided(
    client: httpx.AsyncClient, connection: asyncpg.Connection, command: Command
) -> None:
    """Erasing or keeping former profiles must be decided in advance, and no output names them."""
    counts = "SELECT (SELECT count(*) FROM patients), array(SELECT unique_id FROM profiles ORDER BY 1)"
    for unique_id in ("one", "two"):
        for profile in ("a@marker.org", "b@marker.org", "c@marker.org"):
            body = {"patient_last_name": "Doe", "patient_profile": {"unique_id": f"{unique_id}-{profile}"}}
            path = f"{PATIENTS}{unique_id}/"
            response = await client.put(path, json=body)
            if response.status_code == 404:
                response = await client.post(PATIENTS, json={"unique_id": unique_id, **body})
            assert response.is_success
    before = await connection.fetchrow(counts)
    refused = await command("erase", "patient", "one", "--reason", "asked", "--yes")
    assert (refused.status, "2 other profiles that no patient has now" in refused.err) == (1, True)
    assert await connection.fetchrow(counts) == before
    kept = await command("erase", "patient", "one", "--reason", "asked", "--yes", "--former-profiles", "keep")
    assert (kept.status, "Kept 2 profiles that the patient had earlier." in kept.out) == (0, True)
    erased = await command("erase", "patient", "two", "--reason", "asked", "--yes", "--former-profiles", "erase")
    assert (erased.status, erased.out.count("Removed the profile")) == (0, 3)
    assert tuple(await connection.fetchrow(counts)) == (0, ["one-a@marker.org", "one-b@marker.org"])
    assert "marker" not in refused.out + refused.err + kept.out + kept.err + erased.out + erased.err
    assert (await command("journal", "verify")).status == 0
