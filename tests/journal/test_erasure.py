"""`patients-api erase`: a person's data are removed everywhere, and one entry records that they were and why."""

import asyncio
import os
import pty
import re
import subprocess
from typing import Any

import asyncpg
import httpx
import pytest

from app.records.erasure import PERSONAL_DATA_TABLES
from tests.doc_commands import REPOSITORY_ROOT
from tests.fork_server import start_command
from tests.journal.conftest import Command, CommandResult
from tests.processes import run_cli
from tests.support import EXAMPLE_PATIENT, dump_tables

PATIENTS = "/patients/patients/"
PROFILES = "/profiles/profiles/"
PATIENT_PATH = f"{PATIENTS}8001015009087/"
"""The path of a patient with an identity number as its id, as some clients choose."""
OTHER_PATIENT = {"unique_id": "other", "patient_last_name": "Roe"}
PERSON: dict[str, Any] = {
    **EXAMPLE_PATIENT,
    "unique_id": "8001015009087",
    "patient_profile": {"unique_id": "account-of-8001015009087", "email": "marker-email@example.com"},
    "patient_first_name": "Marker-First",
    "patient_last_name": "Marker-Last",
    "patient_email_address": "marker-own@example.com",
    "patient_mobile_number": "+27 82 123 4567",
    "patient_physical_address": "1 Marker Street",
    "patient_date_of_birth": "1980-01-02",
    "patient_latitude": "-33.925839",
}
MARKERS = ("8001015009087", "marker", "27 82 123", "27821234567", "1980-01-02", "33.925839", "caucasian", "account-of")
IDEMPOTENCY_HEADERS = {"Idempotency-Key": "key"}
ERASURE_REASON = "asked for it on 3 May"


async def database_text(connection: asyncpg.Connection) -> str:
    """Return everything in the database as lowercase text."""
    tables = await dump_tables(connection)
    assert tables.keys() >= {"patients", "profiles", "journal", "idempotency_keys"}
    # clients need the id to erase their copies: in the change that reports the erasure, and in those that took the
    # patient away from a hospital
    changes = await connection.fetch(
        "SELECT row(c)::text FROM changes c WHERE action <> 'erased' AND NOT EXISTS"
        " (SELECT FROM hospital_changes h WHERE h.position = c.position AND before AND after IS NOT TRUE)"
        " UNION ALL SELECT row(p)::text FROM changes_pending p WHERE erased_id IS NULL"
        " UNION ALL SELECT row(h)::text FROM hospital_changes h"
    )
    return f"{tables} {changes}".lower()


async def remaining_markers(connection: asyncpg.Connection) -> list[str]:
    """Return the markers of the person that are still anywhere in the database."""
    text = await database_text(connection)
    return [marker for marker in MARKERS if marker in text]


async def erasure_entries(connection: asyncpg.Connection, resource: str) -> list[asyncpg.Record]:
    """Return the entries left of erased records, and check that each has a token as its id and no record."""
    entries = await connection.fetch("SELECT * FROM journal WHERE action = 'erased' AND resource = $1", resource)
    for entry in entries:
        assert re.fullmatch("erased_[0-9a-hjkmnp-tv-z]{26}", entry["unique_id"])
        assert entry["record"] is None
        assert entry["actor"] == "erase"
    return list(entries)


async def get_history(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    response = await client.get(f"{path}history/")
    assert response.status_code == 200
    entries: list[dict[str, Any]] = response.json()
    return entries


@pytest.fixture
async def _person(client: httpx.AsyncClient, connection: asyncpg.Connection, hospitals_and_doctors: None) -> None:  # noqa: ARG001
    """Create a patient with a profile, a history with a deletion and a restore, and stored responses."""
    assert (await client.post(PATIENTS, json=OTHER_PATIENT)).status_code == 201
    assert (await client.post(PATIENTS, json=PERSON, headers=IDEMPOTENCY_HEADERS)).status_code == 201
    assert (
        await client.put(PATIENT_PATH, json={"patient_last_name": "Marker-Later", "hospital_ids": []})
    ).status_code == 200
    profile = {"last_name": "Marker-Profile"}
    assert (await client.put(f"{PROFILES}account-of-8001015009087/", json=profile)).status_code == 200
    assert (await client.delete(PATIENT_PATH)).status_code == 204
    assert (
        await client.post(f"{PATIENT_PATH}restore/", json={"version": 2}, headers=IDEMPOTENCY_HEADERS)
    ).status_code == 200
    assert await remaining_markers(connection) == list(MARKERS)


@pytest.fixture
async def other_histories(client: httpx.AsyncClient, _person: None) -> dict[str, bytes]:
    """Return the histories of other records."""
    paths = (f"{PATIENTS}other/", "/hospitals/hospitals/hos123/", "/doctors/doctors/doc123/")
    return {path: (await client.get(f"{path}history/")).content for path in paths}


async def test_erasing_a_patient_leaves_no_personal_data(
    client: httpx.AsyncClient, connection: asyncpg.Connection, command: Command, other_histories: dict[str, bytes]
) -> None:
    """No table keeps the person's or the profile's id or data; one entry of each remains, with reason and token."""
    done = await command("erase", "patient", "8001015009087", "--reason", ERASURE_REASON, "--yes")
    assert (done.status, done.err) == (0, "")
    assert "Removed the patient and its history of 4 versions." in done.out
    assert "Removed the profile and its history of 2 versions." in done.out
    assert "backups" in done.out
    assert await remaining_markers(connection) == []
    for resource, version in (("patients", 5), ("profiles", 3)):
        (entry,) = await erasure_entries(connection, resource)
        assert (entry["reason"], entry["version"]) == (ERASURE_REASON, version)
    for path in (
        PATIENT_PATH,
        f"{PATIENT_PATH}history/",
        f"{PATIENT_PATH}history/1/",
        f"{PROFILES}account-of-8001015009087/history/",
    ):
        assert (await client.get(path)).status_code == 404
    assert (await client.post(f"{PATIENT_PATH}restore/", json={"version": 1})).status_code == 404
    for path, history in other_histories.items():
        assert (await client.get(f"{path}history/")).content == history
        assert (await client.get(path)).status_code == 200
    assert (await command("journal", "verify")).status == 0


@pytest.mark.usefixtures("_person")
async def test_repeated_requests_after_erasure_recreate_nothing(
    client: httpx.AsyncClient, connection: asyncpg.Connection, command: Command
) -> None:
    """A POST repeated with its key after the erasure finds no stored response and creates nothing."""
    assert (await command("erase", "patient", "8001015009087", "--reason", ERASURE_REASON, "--yes")).status == 0
    before = await dump_tables(connection)
    assert (await client.post(PATIENTS, json=PERSON, headers=IDEMPOTENCY_HEADERS)).status_code == 409
    assert (
        await client.post(f"{PATIENT_PATH}restore/", json={"version": 2}, headers=IDEMPOTENCY_HEADERS)
    ).status_code == 404
    assert await dump_tables(connection) == before


async def test_a_repeated_creation_after_erasure_is_409(
    client: httpx.AsyncClient, connection: asyncpg.Connection, command: Command
) -> None:
    """After the erasure, a repeated creation with a generated id is a 409, and other responses are replayed."""
    person = {"patient_last_name": "Marker"}
    first = await client.post(PATIENTS, json=person, headers=IDEMPOTENCY_HEADERS)
    other = await client.post(PATIENTS, json=OTHER_PATIENT, headers={"Idempotency-Key": "other"})
    profile = await client.post(PROFILES, json={"first_name": "Marker"}, headers=IDEMPOTENCY_HEADERS)
    unique_id = first.json()["unique_id"]
    await client.put(f"{PATIENTS}{unique_id}/", json={"patient_profile": {"unique_id": profile.json()["unique_id"]}})
    assert (await command("erase", "patient", unique_id, "--reason", ERASURE_REASON, "--yes")).status == 0
    before = await dump_tables(connection)
    for path, body in ((PATIENTS, person), (PROFILES, {"first_name": "Marker"})):
        assert (await client.post(path, json=body, headers=IDEMPOTENCY_HEADERS)).status_code == 409
    again = await client.post(PATIENTS, json=OTHER_PATIENT, headers={"Idempotency-Key": "other"})
    assert (again.content, again.headers["Idempotency-Replayed"]) == (other.content, "true")
    assert await dump_tables(connection) == before


@pytest.mark.usefixtures("_person")
async def test_a_deleted_patient_can_be_erased(
    client: httpx.AsyncClient, connection: asyncpg.Connection, command: Command
) -> None:
    """A deleted patient can be erased like any other, with its profile, whether that is deleted or not."""
    await client.delete(PATIENT_PATH)
    assert (await command("erase", "patient", "8001015009087", "--reason", ERASURE_REASON, "--yes")).status == 0
    assert await remaining_markers(connection) == []
    assert (await client.post(PATIENTS, json=PERSON)).status_code == 201
    await client.delete(PATIENT_PATH)
    await client.delete(f"{PROFILES}account-of-8001015009087/")
    assert (await command("erase", "patient", "8001015009087", "--reason", ERASURE_REASON, "--yes")).status == 0
    assert await remaining_markers(connection) == []
    assert [len(await erasure_entries(connection, resource)) for resource in ("patients", "profiles")] == [2, 2]
    assert (await command("journal", "verify")).status == 0


@pytest.mark.usefixtures("_person")
async def test_a_profile_shared_with_another_patient_is_kept(
    client: httpx.AsyncClient, connection: asyncpg.Connection, command: Command
) -> None:
    """A profile that is linked to another patient is kept with its history, and the person's own data are removed."""
    shared = {"patient_profile": {"unique_id": "account-of-8001015009087"}}
    child = (await client.put(f"{PATIENTS}other/", json=shared)).json()
    profile = f"{PROFILES}account-of-8001015009087/"
    before = (await client.get(f"{profile}history/")).content
    done = await command("erase", "patient", "8001015009087", "--reason", ERASURE_REASON, "--yes")
    assert done.status == 0
    assert "profile" not in done.out
    assert (await client.get(f"{PATIENTS}other/")).json() == child
    assert (await client.get(f"{profile}history/")).content == before
    assert await erasure_entries(connection, "profiles") == []
    assert not {"marker-own", "marker-first", "marker street", "1980-01-02"} & set(await remaining_markers(connection))
    assert (await client.get(f"{PATIENT_PATH}history/")).status_code == 404
    refused = await command("erase", "profile", "account-of-8001015009087", "--reason", ERASURE_REASON, "--yes")
    assert refused.status == 1
    assert "1 patient is linked" in refused.err
    assert (await client.get(f"{profile}history/")).content == before


@pytest.mark.usefixtures("_person")
async def test_an_erased_profile_is_pseudonymized_in_other_histories(
    client: httpx.AsyncClient, connection: asyncpg.Connection, command: Command
) -> None:
    """In histories of other patients, a token replaces the id of the erased profile and nothing else changes."""
    other = f"{PATIENTS}other/"
    shared = {"patient_profile": {"unique_id": "account-of-8001015009087"}, "patient_title": "Dr."}
    await client.put(other, json=shared)
    await client.post(f"{other}restore/", json={"version": 1})
    with_it = await client.post(f"{other}restore/", json={"version": 2}, headers={"Idempotency-Key": "restore"})
    child = await client.post(
        PATIENTS, json={**shared, "patient_last_name": "Roe"}, headers={"Idempotency-Key": "child"}
    )
    for response in (with_it, child):
        assert "marker-email" in response.text, "the stored response must contain the profile"
    await client.put(child.headers["Location"], json={"patient_profile": None})
    await client.put(other, json={"patient_profile": None})
    before = await get_history(client, other)
    assert (await command("erase", "patient", "8001015009087", "--reason", ERASURE_REASON, "--yes")).status == 0
    assert await remaining_markers(connection) == []
    (entry,) = await erasure_entries(connection, "profiles")
    token = entry["unique_id"]
    assert await get_history(client, other) == with_token(before, token)
    response = await client.post(f"{other}restore/", json={"version": 2})
    assert response.status_code == 422
    assert token in response.text
    restored = await client.post(f"{other}restore/", json={"version": 2, "skip_missing": True})
    assert (restored.json()["patient_profile"], restored.json()["patient_title"]) == (None, "Dr.")
    assert (await command("journal", "verify")).status == 0


def with_token(value: Any, token: str) -> Any:
    """Return `value` with the token in place of the profile's id."""
    match value:
        case dict():
            return {name: with_token(item, token) for name, item in value.items()}
        case list():
            return [with_token(item, token) for item in value]
        case "account-of-8001015009087":
            return token
    return value


async def test_an_unlinked_profile_can_be_erased(
    client: httpx.AsyncClient, connection: asyncpg.Connection, command: Command
) -> None:
    """A profile without a patient can be erased, with its stored response."""
    body = {"unique_id": "8001015009087", "email": "marker@example.com"}
    assert (await client.post(PROFILES, json=body, headers=IDEMPOTENCY_HEADERS)).status_code == 201
    assert (await command("erase", "profile", "8001015009087", "--reason", ERASURE_REASON, "--yes")).status == 0
    assert await remaining_markers(connection) == []
    assert len(await erasure_entries(connection, "profiles")) == 1


@pytest.mark.usefixtures("_person")
async def test_erasure_takes_ids_literally_not_as_patterns(
    client: httpx.AsyncClient, connection: asyncpg.Connection, command: Command
) -> None:
    """Erasing `a_b` removes neither the history nor the stored responses of `axb` or `a_b~c`."""
    ids = ("a_b", "axb", "a_b~c", "a_")
    for unique_id in ids:
        body = {"unique_id": unique_id, "patient_last_name": "Doe"}
        key = {"Idempotency-Key": unique_id}
        assert (await client.post(PATIENTS, json=body, headers=key)).status_code == 201
        assert (await client.post(f"{PATIENTS}{unique_id}/restore/", json={"version": 1}, headers=key)).is_success
    others = "SELECT * FROM idempotency_keys WHERE key <> 'a_b' ORDER BY path, key"
    before = await connection.fetch(others)
    assert (await command("erase", "patient", "a_b", "--reason", ERASURE_REASON, "--yes")).status == 0
    assert await connection.fetch(others) == before
    for unique_id in ids[1:]:
        assert len(await get_history(client, f"{PATIENTS}{unique_id}/")) == 1


@pytest.mark.usefixtures("_person")
async def test_erasing_an_unknown_id_is_refused(connection: asyncpg.Connection, command: Command) -> None:
    """An unknown id is exit status 1 and one sentence, and nothing is removed."""
    before = await dump_tables(connection)
    for what, unique_id in (("patient", "none"), ("patient", "a b"), ("profile", "8001015009087"), ("patient", "%")):
        done = await command("erase", what, unique_id, "--reason", ERASURE_REASON, "--yes")
        assert done.status == 1
        assert f"There is no {what} with this unique_id." in done.err
        assert "Traceback" not in done.err
    assert await dump_tables(connection) == before


@pytest.mark.usefixtures("_person")
async def test_serving_role_may_not_erase(connection: asyncpg.Connection, command: Command, serving_url: str) -> None:
    """As the serving role, `erase` is exit status 1 and one sentence, and nothing is removed."""
    before = await dump_tables(connection)
    done = await command("erase", "patient", "8001015009087", "--reason", ERASURE_REASON, "--yes", url=serving_url)
    assert done.status == 1
    assert "The database role lacks the privilege" in done.err
    assert "Traceback" not in done.err
    assert await dump_tables(connection) == before


def erase_on_a_terminal(url: str, typed: str) -> CommandResult:
    """Erase the person on a pseudo-terminal with typed input."""
    terminal, end = pty.openpty()
    try:
        process = start_command(
            "erase",
            "patient",
            "8001015009087",
            "--reason",
            ERASURE_REASON,
            env={"DATABASE_URL": url},
            stdin=end,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.write(terminal, typed.encode())
        out, err = process.communicate(timeout=30)
    finally:
        os.close(terminal)
        os.close(end)
    return CommandResult(process.returncode, out, err)


@pytest.mark.usefixtures("_person")
async def test_erasure_needs_the_id_typed_on_a_terminal(connection: asyncpg.Connection, database_url: str) -> None:
    """`erase` needs the id typed on a terminal; other input, or no terminal, removes nothing."""
    before = await dump_tables(connection)
    wrong, alone = await asyncio.gather(
        asyncio.to_thread(erase_on_a_terminal, database_url, "yes\n"),
        asyncio.to_thread(
            run_cli, "erase", "patient", "8001015009087", "--reason", ERASURE_REASON, DATABASE_URL=database_url
        ),
    )
    assert (wrong.status, alone.returncode) == (1, 1)
    assert "Nothing was removed." in wrong.err
    assert "--yes" in alone.stderr
    assert await dump_tables(connection) == before
    done = await asyncio.to_thread(erase_on_a_terminal, database_url, "8001015009087\n")
    assert (done.status, done.err) == (0, "")
    assert "This cannot be undone" in done.out
    assert await remaining_markers(connection) == []


def test_the_guide_vacuums_all_tables_with_personal_data() -> None:
    """The statement in the guide that removes dead rows names every table with personal data."""
    vacuum = re.search(r"VACUUM (.*?);", (REPOSITORY_ROOT / "docs" / "journal.md").read_text(), re.DOTALL)
    assert vacuum is not None
    assert set(PERSONAL_DATA_TABLES) <= set(re.findall(r"\w+", vacuum[1]))
