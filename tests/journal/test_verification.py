"""`patients-api journal verify`: each record must equal its newest entry, and no version may be missing."""

import asyncio
import re
import secrets
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.doc_commands import postgres_bin_directory
from tests.journal.conftest import Command
from tests.processes import run_cli
from tests.support import EXAMPLE_PATIENT, RESOURCE_EXAMPLES, database_url_for

PATIENTS = "/patients/patients/"
SUCCESS_MESSAGE = "Every record matches its newest entry."
FAILURE_MESSAGE = "The journal does not match the records, or is inconsistent."
DISABLE_TRIGGER = "ALTER TABLE journal DISABLE TRIGGER append_only;"
"""Only the owner can disable the trigger."""
ENABLE_TRIGGER = "ALTER TABLE journal ENABLE TRIGGER append_only"


@pytest.fixture
async def _workload(client: httpx.AsyncClient, hospitals_and_doctors: None, command: Command) -> None:  # noqa: ARG001
    """Create, change, link, share, delete, restore and erase records of all resources."""

    async def send(method: str, path: str, body: object = None, status: int = 200) -> None:
        response = await client.request(method, path, json=body)
        assert response.status_code == status, response.text

    for kind in RESOURCE_EXAMPLES:
        for number in range(3):
            one = f"{kind.path}own-{number}/"
            await send("POST", kind.path, {**kind.minimal_body, "unique_id": f"own-{number}"}, 201)
            await send("PUT", one, kind.update_body)
            if number:
                await send("DELETE", one, status=204)
            if number == 1:
                await send("POST", f"{one}restore/", {"version": 1})
    for number in range(5):
        one = f"{PATIENTS}pat-{number}/"
        await send("POST", PATIENTS, {**EXAMPLE_PATIENT, "unique_id": f"pat-{number}"}, 201)
        await send("PUT", one, {"patient_latitude": number / 3, "hospital_ids": ["hos789", "hos123"]})
        await send("PATCH", one, {"patient_profile": {"unique_id": "shared", "email": f"mail{number}@b.c"}})
        await send(
            "PUT", one, dict.fromkeys(EXAMPLE_PATIENT.keys() - {"patient_last_name", "hospital_ids", "doctor_ids"})
        )
        await send("POST", f"{one}restore/", {"version": number % 4 + 1})
    await send("PUT", "/hospitals/hospitals/hos789/", {"hospital_name": "Renamed"})
    await asyncio.gather(*(send("PUT", f"{PATIENTS}pat-0/", {"patient_title": f"Title {n}"}) for n in range(9)))
    await send("DELETE", f"{PATIENTS}pat-2/", status=204)
    for unique_id in ("pat-2", "pat-3", "own-1"):
        assert (await command("erase", "patient", unique_id, "--reason", "asked", "--yes")).status == 0


@pytest.mark.usefixtures("_workload")
async def test_every_record_agrees_after_a_mixed_workload(command: Command, connection: asyncpg.Connection) -> None:
    """After any mix of requests and commands every record agrees: exit status 0, and the counts of each resource."""
    done = await command("journal", "verify")
    assert (done.status, done.err) == (0, "")
    assert SUCCESS_MESSAGE in done.out
    for table in ("patients", "profiles", "hospitals", "doctors"):
        records = await connection.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608  # a table name
        entries = await connection.fetchval("SELECT count(*) FROM journal WHERE resource = $1", table)
        assert f"{table}: {records} records, {entries} entries" in done.out
        assert records > 1


async def test_an_empty_database_verifies(command: Command) -> None:
    """An empty database verifies."""
    done = await command("journal", "verify")
    assert (done.status, SUCCESS_MESSAGE in done.out) == (0, True)


NEWEST_ENTRY_CONDITION = "unique_id = '{0}' AND version = (SELECT max(version) FROM journal WHERE unique_id = '{0}')"
SELECT_NEXT_VERSION = "SELECT 'patients', '{0}', max(version) + 1, 'deleted', 'me' FROM journal WHERE unique_id = '{0}'"
TAMPERING = (
    ("UPDATE patients SET patient_title = 'X' WHERE unique_id = '{0}'", "differs from its newest entry"),
    ("UPDATE patients SET patient_gender = NULL WHERE unique_id = '{0}'", "differs from its newest entry"),
    ("UPDATE patients SET profile_id = 'other' WHERE unique_id = '{0}'", "differs from its newest entry"),
    (
        "UPDATE patients SET last_updated = last_updated + interval '1 microsecond' WHERE unique_id = '{0}'",
        "differs from its newest entry",
    ),
    ("INSERT INTO patient_hospitals VALUES ('{0}', 'hos789')", "differs from its newest entry"),
    ("DELETE FROM patient_doctors WHERE patient_id = '{0}'", "differs from its newest entry"),
    (
        "UPDATE journal SET record = '{{}}' WHERE {newest}",
        "differs from its newest entry",
        "has a version 3 that was altered",
    ),
    (
        "UPDATE patients SET version = version + 1 WHERE unique_id = '{0}'",
        "has a different version than its newest entry",
    ),
    ("DELETE FROM journal WHERE {newest}", "has a different version than its newest entry"),
    ("DELETE FROM patients WHERE unique_id = '{0}'", "exists only in the journal"),
    ("INSERT INTO patients (unique_id, patient_last_name) VALUES ('{0}-new', 'Doe')", "is not in the journal"),
    ("DELETE FROM journal WHERE unique_id = '{0}'", "is not in the journal"),
    (
        f"INSERT INTO journal (resource, unique_id, version, action, actor) {SELECT_NEXT_VERSION}",
        "was deleted according to the journal",
    ),
    ("DELETE FROM journal WHERE unique_id = '{0}' AND version = 2", "lacks the version before 3"),
    ("UPDATE profiles SET email = NULL WHERE unique_id = '{0}'", "differs from its newest entry"),
    ("DELETE FROM hospitals WHERE unique_id = '{0}'", "exists only in the journal"),
    ("INSERT INTO doctors (unique_id, doctor_first_name) VALUES ('{0}-new', 'Ann')", "is not in the journal"),
)
"""Changes of the record `{0}` or its journal that bypass the service, and how they are reported."""


async def test_changes_by_sql_are_found(
    client: httpx.AsyncClient,
    hospitals_and_doctors: None,  # noqa: ARG001
    connection: asyncpg.Connection,
    command: Command,
) -> None:
    """Each change by SQL of a record, a link or the journal is reported with the record's id, with exit status 1."""
    await client.post("/profiles/profiles/", json={"unique_id": "other"})
    expected: set[str] = set()
    for number, (statement, *flaws) in enumerate(TAMPERING):
        unique_id = f"pat-{number}"
        profile = {"unique_id": unique_id, "email": "a@b.c"}
        if "hospitals WHERE" in statement:
            await client.post("/hospitals/hospitals/", json={"unique_id": unique_id, "hospital_name": "General"})
        body = {**EXAMPLE_PATIENT, "patient_profile": profile, "unique_id": unique_id}
        assert (await client.post(PATIENTS, json=body)).status_code == 201
        for title in ("Dr.", "Prof."):
            assert (await client.put(f"{PATIENTS}{unique_id}/", json={"patient_title": title})).status_code == 200
        change = statement.format(unique_id, newest=NEWEST_ENTRY_CONDITION.format(unique_id))
        if "journal" in change:
            # the patient's entries, not those of its profile, which has the same id
            change = change.replace("WHERE unique_id", "WHERE resource = 'patients' AND unique_id")
        await connection.execute(f"{DISABLE_TRIGGER} {change}; {ENABLE_TRIGGER}")
        expected |= {f"{unique_id}{'-new' * ('-new' in statement)} {flaw}" for flaw in flaws}
        done = await command("journal", "verify")
        assert (done.status, FAILURE_MESSAGE in done.out, SUCCESS_MESSAGE in done.out) == (1, True, False), statement
        assert {line.strip() for line in done.out.splitlines() if line.startswith("  ")} == expected


async def test_only_the_first_twenty_discrepancies_are_listed(connection: asyncpg.Connection, command: Command) -> None:
    """The first 20 discrepancies of each resource are listed, followed by the number of the others."""
    await connection.execute("INSERT INTO profiles (unique_id) SELECT 'prof' || n FROM generate_series(1, 1000) n")
    done = await command("journal", "verify")
    assert done.status == 1
    assert len(re.findall("^  prof[0-9]+ is not in the journal$", done.out, re.MULTILINE)) == 20
    assert "profiles: 1,000 records, 0 entries" in done.out
    assert done.out.count("  … and 980 more\n") == done.out.count("…") == 1


async def test_verify_runs_in_a_process_of_its_own(database_url: str, connection: asyncpg.Connection) -> None:
    """`journal verify` works in a separate process."""
    await connection.execute("INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hos', 'General')")
    wrong = await asyncio.to_thread(run_cli, "journal", "verify", DATABASE_URL=database_url)
    assert (wrong.returncode, "hos is not in the journal" in wrong.stdout, wrong.stderr) == (1, True, "")


async def test_an_unmigrated_database_is_explained(connection: asyncpg.Connection, command: Command) -> None:
    """A database that lacks migrations is exit status 1 and one sentence."""
    await connection.execute("DELETE FROM alembic_version")
    done = await command("journal", "verify")
    assert done.status == 1
    assert "run `patients-api migrate`" in done.err


@pytest.fixture
async def restored_url(postgres_url: str) -> AsyncIterator[str]:
    """Return the URL of an empty database to restore a backup into."""
    name = f"copy_{secrets.token_hex(4)}"
    connection = await asyncpg.connect(database_url_for(postgres_url, "postgres"))
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    yield database_url_for(postgres_url, name)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


def run_program(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.usefixtures("_workload")
async def test_a_restored_backup_verifies_like_the_original(
    database_url: str, restored_url: str, connection: asyncpg.Connection, command: Command, tmp_path: Path
) -> None:
    """A database restored from `pg_dump` verifies like the original, and its journal is append-only too."""
    file = tmp_path / "patients.dump"
    commands: list[list[str | Path]] = [
        [postgres_bin_directory() / "pg_dump", "--format=custom", f"--file={file}", database_url],
        [postgres_bin_directory() / "pg_restore", "--exit-on-error", f"--dbname={restored_url}", file],
    ]
    for words in commands:
        ran = await asyncio.to_thread(run_program, *words)
        assert ran.returncode == 0, ran.stderr
    original = await command("journal", "verify")
    done = await command("journal", "verify", url=restored_url)
    assert done == original
    assert done.status == 0
    copy = await asyncpg.connect(restored_url)
    try:
        entries = (
            "SELECT resource, unique_id, version, action, time, actor, request_id, reason, record::text FROM journal"
        )
        in_order = f"{entries} ORDER BY 1, 2, 3"
        assert await copy.fetch(in_order) == await connection.fetch(in_order)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await copy.execute("DELETE FROM journal")
        await copy.execute("UPDATE hospitals SET hospital_name = 'X' WHERE unique_id = 'hos456'")
    finally:
        await copy.close()
    done = await command("journal", "verify", url=restored_url)
    assert (done.status, "hos456 differs from" in done.out) == (1, True)
