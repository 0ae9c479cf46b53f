"""Imports into empty tables, which are filled without indexes, and then replaced."""

import asyncio
import json
import signal
import subprocess
from pathlib import Path

import asyncpg
import httpx
import pytest

from app.db.connection import Connection
from app.db.database import Database
from app.matching import pending
from app.models import Patient, patient_doctors, patient_hospitals
from app.staging import table_build
from app.staging.table_build import TableBuild, TablesInUseError
from tests.support import dump_tables
from tests.transfer.support import (
    PATIENTS,
    cli_process,
    list_patients,
    ndjson,
    patient_bodies,
    reading_transaction,
    run_cli_on,
    run_import,
)

pytestmark = pytest.mark.usefixtures("hospitals_and_doctors")

RECORD_COUNT = 5_000
BODIES = patient_bodies(
    RECORD_COUNT, hospital_ids=["hos123"], doctor_ids=["doc123"], patient_profile={"unique_id": "parent"}
)
ALTERATIONS = (
    "GRANT SELECT, INSERT ON patients TO PUBLIC",
    "GRANT UPDATE (patient_town) ON patients TO PUBLIC",
    "ALTER TABLE patients ALTER patient_town SET STATISTICS 7",
    "ALTER TABLE patient_doctors DROP CONSTRAINT fk_patient_doctors_doctor_id",
    "ALTER TABLE patient_doctors ADD CONSTRAINT of_mine FOREIGN KEY (doctor_id) REFERENCES doctors DEFERRABLE",
    "CREATE UNIQUE INDEX of_mine ON patients (lower(patient_title || ':x')) WHERE patient_region > 'a'",
    "COMMENT ON COLUMN patients.patient_town IS 'a town'",
)
"""Changes by an operator that an import must keep."""
DESCRIBE_TABLES = """
    SELECT format('%s %s %s', relname, relowner, relacl) FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT format(
        '%s.%s %s %s %s %s %s %s %s %s', attrelid::regclass, attname, atttypid, attcollation, attnotnull, attgenerated,
        attstattarget, attacl, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)
    ) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0
    UNION ALL
    SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
    UNION ALL
    SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'
    ORDER BY 1
"""
SELECT_TABLE_ID = "SELECT 'patients'::regclass::oid"


async def describe_tables(connection: asyncpg.Connection) -> list[str]:
    return [line for (line,) in await connection.fetch(DESCRIBE_TABLES)]


async def wait_until_import_writes(connection: asyncpg.Connection) -> None:
    """Wait until an import has written some journal entries, which are in the table before the import ends."""
    async with asyncio.timeout(60):
        while not await connection.fetchval("SELECT pg_relation_size('journal') > 100000"):
            await connection.execute("SELECT pg_sleep(0.02)")


async def wait_until_import_locks(connection: asyncpg.Connection) -> None:
    """Wait until an import has tried to lock the tables, in order to replace them."""
    async with asyncio.timeout(60):
        while not await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
            " AND query ~ 'ACCESS EXCLUSIVE|ROLLBACK TO' AND pid <> pg_backend_pid())"
        ):
            await connection.execute("SELECT pg_sleep(0.02)")


@pytest.fixture
def patients_file(tmp_path: Path) -> Path:
    file = tmp_path / "patients.ndjson"
    file.write_text(ndjson(BODIES))
    return file


async def test_tables_are_replaced_by_equal_ones(
    database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection, patients_file: Path
) -> None:
    """A first import leaves the schema as it was, with an operator's changes, and the service goes on with it."""
    for statement in ALTERATIONS:
        await connection.execute(statement)
    before, table_id = await describe_tables(connection), await connection.fetchval(SELECT_TABLE_ID)
    assert await list_patients(client) == []
    run = await run_import(database_url, patients_file)
    assert run.stdout.splitlines()[1:] == ["Stored."]
    assert await connection.fetchval(SELECT_TABLE_ID) != table_id, "the tables were not replaced"
    assert await describe_tables(connection) == before
    assert len(await list_patients(client)) == RECORD_COUNT
    assert (await client.put(f"{PATIENTS}pat7/", json={"patient_last_name": "Quetzal"})).status_code == 200
    assert (await client.delete(f"{PATIENTS}pat8/")).status_code == 204
    found = await client.post(f"{PATIENTS}search/", json={"search": "quetzla"})
    assert [one["unique_id"] for one in found.json()] == ["pat7"]
    assert (await client.delete("/hospitals/hospitals/hos123/")).status_code == 409
    verification = await run_cli_on(database_url, "journal", "verify")
    assert verification.returncode == 0, verification.stdout
    assert await connection.fetchval("SELECT count(*) = count(DISTINCT salt) FROM journal WHERE record IS NOT NULL")
    # the tables are not empty now, so that they stay
    table_id = await connection.fetchval(SELECT_TABLE_ID)
    await run_import(database_url, "-", stdin=ndjson([{"patient_last_name": "Another"}]))
    assert await connection.fetchval(SELECT_TABLE_ID) == table_id


async def test_requests_succeed_while_the_tables_are_filled_and_replaced(
    database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection, patients_file: Path
) -> None:
    """Nobody is blocked by a first import, also while it waits for a backup; patients created meanwhile are kept."""
    responses: list[int] = []
    created: set[str] = set()
    stop = asyncio.Event()

    async def read() -> None:
        while not stop.is_set():
            responses.append((await client.get(PATIENTS, params={"limit": "2"})).status_code)

    async def create() -> None:
        while not stop.is_set():
            body = {"patient_last_name": "Meanwhile", "hospital_ids": ["hos456"]}
            response = await client.post(PATIENTS, json=body)
            if response.status_code == 201:
                created.add(response.json()["unique_id"])

    requests = [asyncio.create_task(read()) for _ in range(2)]
    try:
        async with reading_transaction(database_url):
            importing = asyncio.create_task(run_import(database_url, patients_file))
            await wait_until_import_writes(connection)
            requests.append(asyncio.create_task(create()))
            await wait_until_import_locks(connection)
            assert not importing.done()
        await importing
    finally:
        stop.set()
        await asyncio.gather(*requests)
    assert set(responses) == {200}
    assert created
    listed = await list_patients(client)
    assert len(listed) == RECORD_COUNT + len(created)
    assert {one["unique_id"] for one in listed if one["patient_last_name"] == "Meanwhile"} == created
    assert (await run_cli_on(database_url, "journal", "verify")).returncode == 0


async def test_an_import_that_is_killed_before_the_end_leaves_the_tables(
    database_url: str, connection: asyncpg.Connection, patients_file: Path
) -> None:
    """If an import is killed when all rows and indexes are there, the tables are as they were."""
    before, rows_before = await describe_tables(connection), await dump_tables(connection)
    async with reading_transaction(database_url):
        with cli_process("import", str(patients_file), url=database_url, stderr=subprocess.PIPE) as process:
            await wait_until_import_locks(connection)
            process.send_signal(signal.SIGKILL)
            assert await asyncio.to_thread(process.wait, 30) == -signal.SIGKILL
    assert await describe_tables(connection) == before
    assert await dump_tables(connection) == rows_before


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("CREATE VIEW names AS SELECT patient_last_name FROM patients", "names"),
        ("CREATE PUBLICATION of_mine FOR TABLES IN SCHEMA public", "patients"),
    ],
    ids=["view", "publication"],
)
async def test_altered_tables_keep_their_indexes(
    statement: str, table: str, database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """Tables that others refer to are not replaced, and the import says so."""
    await connection.execute(statement)
    table_id = await connection.fetchval(SELECT_TABLE_ID)
    run = await run_import(database_url, "-", stdin=ndjson(patient_bodies(3)))
    assert run.stdout.splitlines()[1].startswith("-: the indexes could not be built after the rows")
    assert await connection.fetchval(SELECT_TABLE_ID) == table_id
    assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 3  # noqa: S608
    assert len(await list_patients(client)) == 3


@pytest.mark.parametrize(
    "body",
    [{"unique_id": "pat4999"}, {"patient_profile": {"unique_id": "guardian", "first_name": "Mine"}}],
    ids=["patient", "profile"],
)
async def test_a_record_created_meanwhile_is_not_replaced(
    database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection, body: dict[str, object]
) -> None:
    """If a request creates a record that a later line of the file contains, the import stores nothing and says so."""
    with cli_process("import", "-", url=database_url, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(ndjson(BODIES[:3000]).encode())
        process.stdin.flush()
        await wait_until_import_writes(connection)
        response = await client.post(PATIENTS, json={**body, "patient_last_name": "Mine"})
        assert response.status_code == 201
        rest = [*BODIES[3000:], {"patient_last_name": "Last", "patient_profile": {"unique_id": "guardian"}}]
        _, stderr = await asyncio.to_thread(process.communicate, ndjson(rest).encode(), 30)
    assert process.returncode == 1
    assert stderr.startswith(b"Other transactions changed the same records. Nothing was stored: run the import again.")
    assert [one["patient_last_name"] for one in await list_patients(client)] == ["Mine"]


async def test_words_and_profiles_that_are_there_are_kept(
    database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection, patients_file: Path
) -> None:
    """A first import adds to the vocabulary and to the profiles if these are not empty, unlike the patients."""
    created = await client.post("/profiles/profiles/", json={"unique_id": "parent", "first_name": "Thandi"})
    assert created.status_code == 201, created.text
    await connection.execute("INSERT INTO name_words (word) VALUES ('leftover')")
    run = await run_import(database_url, patients_file)
    assert run.stdout.splitlines()[1:] == ["Stored."]
    words = {word for (word,) in await connection.fetch("SELECT word FROM name_words")}
    assert "leftover" in words
    assert await connection.fetchval(
        "SELECT bool_and(tsvector_to_array(patient_search) <@ $1::text[]) FROM patients", sorted(words)
    )
    assert (await client.get("/profiles/profiles/parent/")).json()["first_name"] == "Thandi"


async def test_words_of_patients_created_meanwhile_are_kept(
    database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection, patients_file: Path
) -> None:
    """If a request adds a word to the vocabulary during a first import, also one that the file has, the word stays."""
    async with reading_transaction(database_url):
        importing = asyncio.create_task(run_import(database_url, patients_file))
        await wait_until_import_writes(connection)
        for name in ("Quetzal", BODIES[0]["patient_last_name"]):
            body = {"patient_last_name": name, "hospital_ids": ["hos123"]}
            assert (await client.post(PATIENTS, json=body)).status_code == 201
        await wait_until_import_locks(connection)
    assert (await importing).stdout.splitlines()[1:] == ["Stored."]
    for table in ("name_words", "hospital_words"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table} WHERE word = 'quetzal'") == 1  # noqa: S608
    assert len(await list_patients(client)) == RECORD_COUNT + 2


async def test_entries_have_the_sorted_ids_of_links(database_url: str, connection: asyncpg.Connection) -> None:
    """The journal entry of an imported patient has each id of its links once, sorted, in whatever order a line has."""
    hospitals = [
        [],
        ["hos123"],
        ["hos123", "hos456"],
        ["hos456", "hos123"],
        ["hos123", "hos123"],
        ["hos789", "hos456", "hos123"],
        ["hos123", "hos789", "hos456"],
    ]
    bodies = [{**body, "hospital_ids": hospitals[place]} for place, body in enumerate(patient_bodies(len(hospitals)))]
    await run_import(database_url, "-", stdin=ndjson([*bodies, {"unique_id": "without", "patient_last_name": "Doe"}]))
    entries = await connection.fetch(
        "SELECT record ->> 'hospital_ids' FROM journal WHERE resource = 'patients' ORDER BY unique_id"
    )
    assert [json.loads(ids) for (ids,) in entries] == [*(sorted({*ids}) for ids in hospitals), []]


async def test_patients_wait_for_their_comparison_beside_others(
    database_url: str, connection: asyncpg.Connection, patients_file: Path
) -> None:
    """After a first import, each patient waits once for its comparison, and so does who has come to wait meanwhile."""
    await connection.execute(f"SELECT pg_advisory_lock({pending._LOCK_KEY})")  # noqa: SLF001  # so that all wait
    async with reading_transaction(database_url):
        importing = asyncio.create_task(run_import(database_url, patients_file))
        await wait_until_import_writes(connection)
        await connection.execute("INSERT INTO pending_comparisons VALUES ('meanwhile')")
        await wait_until_import_locks(connection)
    assert (await importing).stdout.splitlines()[1:] == ["Stored."]
    waiting = [one for (one,) in await connection.fetch("SELECT patient_id FROM pending_comparisons")]
    assert sorted(waiting) == sorted([*(f"pat{number}" for number in range(RECORD_COUNT)), "meanwhile"])


async def test_an_import_that_stores_nothing_does_not_replace_the_tables(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """A trial, and an import without valid lines, lock no table, so that a backup does not make them fail."""
    table_id = await connection.fetchval(SELECT_TABLE_ID)
    async with reading_transaction(database_url):
        trial = await run_import(database_url, "-", "--dry-run", stdin=ndjson(patient_bodies(3)))
        assert "3 would be created" in trial.stdout
        rejected = await run_cli_on(database_url, "import", "-", "--on-error", "skip", stdin="{}\n")
        assert "1 rejected\nStored, except" in rejected.stdout
    assert await connection.fetchval(SELECT_TABLE_ID) == table_id
    assert "patients_import" not in await describe_tables(connection)


async def test_a_transaction_that_uses_the_tables_for_too_long_makes_an_import_fail(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import does not wait forever for a transaction that has read the tables and does not end."""
    monkeypatch.setattr(table_build, "MAX_REPLACE_ATTEMPTS", 2)
    monkeypatch.setattr(table_build, "REPLACE_RETRY_SECONDS", 0.01)

    async def replace(own_connection: Connection) -> None:
        build = await TableBuild.create(own_connection, [Patient.__table__, patient_hospitals, patient_doctors])
        assert build is not None
        await build.build_indexes([Patient.__table__])
        await build.replace_tables()

    async with Database(database_url, pool_size=1, with_timeouts=False) as database, reading_transaction(database_url):
        with pytest.raises(TablesInUseError, match="has used the tables for a minute"):
            await database.transaction(replace, max_attempts=1)
