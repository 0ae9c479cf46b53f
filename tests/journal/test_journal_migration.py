"""Records older than the journal: the migration adds their entries, and they then behave like any other record."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from alembic import command as alembic
from alembic.config import Config

import migrations
from app.fields.history import HistoryEntry
from tests.journal.conftest import Command
from tests.support import RESOURCE_EXAMPLES

REVISION_BEFORE = "20261122_01"
"""The revision before the journal."""
TABLES = ("patients", "profiles", "hospitals", "doctors", "patient_hospitals", "patient_doctors")
SELECT_COLUMN_NAMES = """
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
"""
INSERT_RECORDS = """
    INSERT INTO hospitals (unique_id, version, hospital_name, date_created, last_updated)
        SELECT 'own' || n, n % 5 + 1, 'Hospital "' || n || '"', now() - n * interval '1.000001 hour', now() FROM {0} n;
    INSERT INTO doctors (unique_id, version, doctor_first_name, doctor_last_name)
        SELECT 'own' || n, n % 5 + 1, 'Zoë ' || n, nullif(n % 3, 0) FROM {0} n;
    INSERT INTO profiles (unique_id, version, email, first_name)
        SELECT 'own' || n, n % 5 + 1, n || '@example.com', nullif(n % 7, 0) FROM {0} n;
    INSERT INTO patients (unique_id, version, profile_id, patient_first_name, patient_last_name, patient_mobile_number,
            patient_gender, patient_date_of_birth, patient_latitude, patient_longitude, date_created, last_updated)
        SELECT 'own' || n, n % 5 + 1, CASE WHEN n % 2 = 0 THEN 'own' || n % 5 + 1 END, 'Ünï ' || n,
            CASE WHEN n % 3 > 0 THEN E'\\\\ back "quoted"\\t' || n END, '+27 82 ' || 1000 + n,
            (ARRAY['Male', 'Female', 'Other', NULL])[n % 4 + 1], date '1900-01-01' + n, n / 200.0, -n / 300.0,
            CASE WHEN n % 2 = 0 THEN timestamptz '2020-01-01' ELSE now() - n * interval '1.000001 day' END,
            now() + n * interval '1 microsecond'
        FROM {0} n;
    INSERT INTO patient_hospitals SELECT 'own' || n, 'own' || m FROM {0} n, generate_series(1, n % 4) m;
    INSERT INTO patient_doctors SELECT 'own' || n, 'own' || m FROM {0} n, generate_series(1, n % 3) m;
    INSERT INTO retired_ids SELECT resource, 'gone'
        FROM unnest(ARRAY['patients', 'profiles', 'hospitals', 'doctors']) resource;
"""


async def migrate_to(alembic_command: Callable[[Config, str], None], url: str, revision: str) -> None:
    """Bring the schema to a revision, in a thread, because migrations start an event loop."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["url"] = url
    await asyncio.to_thread(alembic_command, config, revision)


async def insert_older_records(url: str, connection: asyncpg.Connection, count: int) -> dict[str, str]:
    """Insert `count` records of each resource into the schema before the journal, and return the columns by table."""
    await migrate_to(alembic.downgrade, url, REVISION_BEFORE)
    await connection.execute(INSERT_RECORDS.format(f"generate_series(1, {count})"))
    return {table: await connection.fetchval(SELECT_COLUMN_NAMES, table) for table in TABLES}


async def checksums(connection: asyncpg.Connection, columns: dict[str, str]) -> dict[str, str]:
    """Return a hash of these columns of all rows of each table."""
    whole = """
        SELECT md5(string_agg(row::text, E'\\n' ORDER BY row))
        FROM (SELECT to_jsonb(selected) FROM (SELECT {} FROM {}) AS selected) AS rows (row)
    """
    return {table: await connection.fetchval(whole.format(names, table)) for table, names in columns.items()}


@pytest.fixture
async def _older_records(database_url: str, connection: asyncpg.Connection) -> None:
    """Create ten records of each resource that are older than the journal, at versions 1 to 5."""
    await insert_older_records(database_url, connection, 10)
    await migrate_to(alembic.upgrade, database_url, "head")


async def test_upgrade_and_downgrade_keep_10_000_records(
    database_url: str, connection: asyncpg.Connection, command: Command
) -> None:
    """Upgrading, downgrading and upgrading again keeps 10,000 records, and the journal agrees with each."""
    columns = await insert_older_records(database_url, connection, 2500)
    before = await checksums(connection, columns)
    assert len(set(before.values())) == len(TABLES)
    await migrate_to(alembic.upgrade, database_url, "head")
    first = await command("journal", "verify")
    assert first.status == 0, first.out
    for table in ("patients", "profiles", "hospitals", "doctors"):
        assert f"{table}: 2,500 records, 2,501 entries" in first.out
    assert await checksums(connection, columns) == before
    await migrate_to(alembic.downgrade, database_url, REVISION_BEFORE)
    assert await checksums(connection, columns) == before
    assert {row["unique_id"] for row in await connection.fetch("SELECT * FROM retired_ids")} == {"gone"}
    await migrate_to(alembic.upgrade, database_url, "head")
    assert await checksums(connection, columns) == before
    assert await command("journal", "verify") == first


async def test_downgrade_keeps_deleted_ids_retired(
    database_url: str, connection: asyncpg.Connection, client: httpx.AsyncClient
) -> None:
    """A downgrade retires the ids of records deleted with the journal, but not of restored ones."""
    for kind in RESOURCE_EXAMPLES:
        for unique_id, restored in (("gone", False), ("back", True)):
            one = f"{kind.path}{unique_id}/"
            assert (await client.post(kind.path, json={**kind.minimal_body, "unique_id": unique_id})).status_code == 201
            assert (await client.delete(one)).status_code == 204
            if restored:
                assert (await client.post(f"{one}restore/", json={"version": 1})).status_code == 200
    await migrate_to(alembic.downgrade, database_url, REVISION_BEFORE)
    retired = {tuple(row) for row in await connection.fetch("SELECT resource, unique_id FROM retired_ids")}
    assert retired == {(kind.table, "gone") for kind in RESOURCE_EXAMPLES}


@pytest.mark.usefixtures("_older_records")
async def test_older_records_get_a_first_entry(client: httpx.AsyncClient, command: Command) -> None:
    """An older record's first entry has its state and version at the migration, and later entries follow."""
    for kind in RESOURCE_EXAMPLES:
        for number in range(1, 11):
            one = f"{kind.path}own{number}/"
            (entry,) = [HistoryEntry.model_validate(entry) for entry in (await client.get(f"{one}history/")).json()]
            assert (entry.version, entry.action, entry.actor) == (number % 5 + 1, "created", "migration")
            assert entry.request_id is None
            before = (await client.get(one)).json()
            assert (await client.put(one, json=kind.update_body)).status_code == 200
            newest = HistoryEntry.model_validate((await client.get(f"{one}history/")).json()[0])
            assert (newest.version, newest.changes.keys()) == (entry.version + 1, kind.update_body.keys())
            assert (await client.delete(one)).status_code in {204, 409}, "only linked records may be a 409"
            response = await client.post(f"{one}restore/", json={"version": entry.version})
            after: dict[str, Any] = response.json()
            assert (response.status_code, after) == (200, {**before, "last_updated": after["last_updated"]})
    assert (await command("journal", "verify")).status == 0


@pytest.mark.usefixtures("_older_records")
async def test_a_deleted_older_record_can_be_restored_as_the_409_says(client: httpx.AsyncClient) -> None:
    """A POST with a deleted older record's id is a 409 that names the version to restore, and restoring it works."""
    for kind in RESOURCE_EXAMPLES:
        for number in range(6, 11):
            unique_id = f"own{number}"
            one = f"{kind.path}{unique_id}/"
            before = (await client.get(one)).json()
            assert (await client.delete(one)).status_code == 204
            response = await client.post(kind.path, json={**kind.minimal_body, "unique_id": unique_id})
            assert response.status_code == 409
            version = number % 5 + 1
            assert f'POST {{"version": {version}}} to its restore/ path' in response.json()["detail"]
            after = (await client.post(f"{one}restore/", json={"version": version})).json()
            assert after == {**before, "last_updated": after["last_updated"]}


@pytest.mark.usefixtures("_older_records")
async def test_an_older_profile_is_changed_and_retired_as_any_other(client: httpx.AsyncClient) -> None:
    """An older profile changes with its patient like any other, and its id is retired when it is deleted."""
    one = "/profiles/profiles/own10/"
    body = {"patient_last_name": "Doe", "patient_profile": {"unique_id": "own10", "email": "new@b.c"}}
    patient = (await client.post("/patients/patients/", json=body)).headers["Location"]
    assert [entry["version"] for entry in (await client.get(f"{one}history/")).json()] == [2, 1]
    await client.delete(patient)
    assert (await client.delete(one)).status_code == 204
    response = await client.post("/patients/patients/", json=body)
    assert (response.status_code, '{"version": 2}' in response.json()["detail"]) == (409, True)


@pytest.mark.usefixtures("_older_records")
async def test_ids_deleted_before_the_journal_stay_retired(client: httpx.AsyncClient) -> None:
    """The id of a record that was deleted before the journal stays retired, and its data are unknown."""
    for kind in RESOURCE_EXAMPLES:
        for restored in (False, True):
            response = await client.post(kind.path, json={**kind.minimal_body, "unique_id": "gone"})
            assert response.status_code == 409, restored
            assert "restore/" not in response.json()["detail"]
            response = await client.post(f"{kind.path}gone/restore/", json={"version": 1})
            assert response.status_code == 422
        (entry,) = (await client.get(f"{kind.path}gone/history/")).json()
        assert (entry["action"], entry["record"]) == ("deleted", None)
