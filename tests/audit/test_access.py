"""The access report of a patient: reads from the audit and changes from the journal, in plain words."""

import base64

import asyncpg
import httpx
import pytest
from fastapi.routing import iter_route_contexts

from app.audit import disclosures
from app.audit.recorder import COUNT_METHOD
from app.auth.scopes import Scope, required_scope
from app.changes.cursors import FEED_PATH
from app.main import create_app
from app.paths import DUPLICATES_PREFIX, FHIR_PREFIX
from app.settings import Settings
from tests.auth.support import PATIENTS, PROFILES
from tests.hospital_scope.conftest import AUDIT_PATH, ScopedClients


async def access_actions(client: httpx.AsyncClient, unique_id: str) -> list[tuple[str, str]]:
    """Return who did what to a patient's record, newest first."""
    entries = (await client.get(f"{PATIENTS}{unique_id}/access/")).json()
    return [(entry["principal"].removeprefix("key:"), entry["description"]) for entry in entries]


async def test_access_report_lists_reads_and_changes_newest_first(scoped_clients: ScopedClients) -> None:
    """The report lists the principals that read or changed a record, newest first, and no refused requests."""
    await scoped_clients.b.get(f"{PATIENTS}pat-a/")
    await scoped_clients.a.get(f"{PATIENTS}pat-a/")
    await scoped_clients.a.put(f"{PATIENTS}pat-a/", json={"patient_title": "Dr."})
    await scoped_clients.a.get(PATIENTS)
    entries = (await scoped_clients.a.get(f"{PATIENTS}pat-a/access/")).json()
    assert [(entry["principal"], entry["action"], entry["description"]) for entry in entries] == [
        ("key:a", "listed", "Saw the record in a list of patients"),
        ("key:a", "updated", "Changed the record"),
        ("key:a", "read", "Viewed the record"),
        ("key:free", "created", "Created the record"),
    ]
    walked, url = [], f"{PATIENTS}pat-a/access/?limit=1"
    while url:
        page = await scoped_clients.free.get(url)
        walked += page.json()
        url = page.links.get("next", {}).get("url", "")
    assert [entry["action"] for entry in walked if entry["action"] != "read_report"] == [
        entry["action"] for entry in entries
    ]
    assert (await scoped_clients.b.get(f"{PATIENTS}pat-a/access/")).status_code == 404
    assert (await scoped_clients.free.get(f"{PATIENTS}never/access/")).status_code == 404
    gone = (await scoped_clients.a.get(f"{PATIENTS}pat-gone/access/")).json()
    assert [entry["description"] for entry in gone] == ["Deleted the record", "Created the record"]


async def test_changes_made_outside_the_api_are_reported(
    scoped_clients: ScopedClients, connection: asyncpg.Connection
) -> None:
    """Changes by commands or migrations, and those from before the audit existed, are reported from the journal."""
    await connection.execute(
        "INSERT INTO journal (resource, unique_id, version, action, actor, record)"
        " VALUES ('patients', 'pat-a', 2, 'updated', 'import', '{}')"
    )
    entries = (await scoped_clients.free.get(f"{PATIENTS}pat-a/access/")).json()
    assert [(entry["principal"], entry["action"]) for entry in entries] == [
        ("import", "updated"),
        ("key:free", "created"),
    ]


async def test_reused_request_id_hides_no_access(scoped_clients: ScopedClients) -> None:
    """A request id that a client reuses hides no access: a change is identified by the version that it made."""
    headers = {"X-Request-ID": "the-same"}
    for title in ("Dr.", "Dr.", "Prof."):
        await scoped_clients.a.put(f"{PATIENTS}pat-a/", json={"patient_title": title}, headers=headers)
    assert (await access_actions(scoped_clients.a, "pat-a"))[:3] == [
        ("a", "Changed the record"),
        ("a", "Was shown the record after sending data that changed nothing"),
        ("a", "Changed the record"),
    ]


async def test_idempotent_replay_is_reported_as_a_read(scoped_clients: ScopedClients) -> None:
    """A replay is reported as a read, because it changes nothing."""
    body = {"patient_last_name": "New", "hospital_ids": ["hosA"]}
    made = [await scoped_clients.a.post(PATIENTS, json=body, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert await access_actions(scoped_clients.a, made[0].json()["unique_id"]) == [
        ("a", "Was shown the record after sending data that changed nothing"),
        ("a", "Created the record"),
    ]


async def test_profile_accesses_are_reported_while_it_is_linked(scoped_clients: ScopedClients) -> None:
    """Reads and changes of a profile are reported as long as the patient has it, for any principal and any route."""
    await scoped_clients.free.get(f"{PROFILES}prof-new/")
    nested = {"unique_id": "prof-shared", "first_name": "Ann"}
    await scoped_clients.a.put(f"{PATIENTS}pat-shared/", json={"patient_profile": nested})
    await scoped_clients.b.get(f"{PROFILES}prof-shared/")
    await scoped_clients.b.get(PROFILES)
    await scoped_clients.b.put(f"{PROFILES}prof-shared/", json={"first_name": "Eve"})
    await scoped_clients.a.put(f"{PATIENTS}pat-shared/", json={"patient_profile": None})
    await scoped_clients.free.get(f"{PROFILES}prof-shared/")
    assert await access_actions(scoped_clients.a, "pat-shared") == [
        ("a", "Changed the record"),
        ("b", "Changed the profile"),
        ("b", "Saw the profile in a list of profiles"),
        ("b", "Viewed the profile"),
        ("a", "Was shown the record after sending data that changed nothing"),
        ("a", "Changed the profile"),
        ("free", "Created the record"),
    ]


async def test_head_requests_are_reported_as_reads(scoped_clients: ScopedClients) -> None:
    """HEAD is reported as a read, because it reveals whether a record exists and whether it has changed."""
    await scoped_clients.a.head(f"{PATIENTS}pat-a/")
    await scoped_clients.a.head(f"{PATIENTS}pat-a/history/1/")
    await scoped_clients.a.head(PATIENTS)
    assert [what for _, what in await access_actions(scoped_clients.a, "pat-a")] == [
        "Saw the record in a list of patients",
        "Viewed an earlier version of the record",
        "Viewed the record",
        "Created the record",
    ]


@pytest.mark.parametrize("cursor", ["1.1.99999999999999999999999", "1.-1.1", "1_0.1.1", "1.1", "x", "9" * 18 + ".1.1"])
async def test_invalid_access_and_audit_cursors_are_refused(scoped_clients: ScopedClients, cursor: str) -> None:
    """An invalid cursor is a 422, whatever numbers it contains."""
    text = base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")
    for path in (f"{PATIENTS}pat-a/access/", AUDIT_PATH):
        response = await scoped_clients.free.get(f"{path}?cursor={text}")
        assert response.status_code == 422
        assert response.json()["errors"][0]["loc"] == ["query", "cursor"]


DUPLICATES = f"{DUPLICATES_PREFIX}/"
FHIR_PATIENTS = f"{FHIR_PREFIX}/Patient"


def test_every_read_route_has_a_description() -> None:
    """Exactly the read routes of patients and profiles have a description."""
    app = create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"}))
    reads = {
        (method, str(route.path))
        for route in iter_route_contexts(app.routes)
        if str(route.path).startswith((PATIENTS, PROFILES, FEED_PATH, DUPLICATES, FHIR_PATIENTS))
        for method in route.methods or ()
        if (required_scope(route.openapi_extra) or Scope.ADMIN).is_read_only
    }
    described_routes = {
        (method, route) for method, route in disclosures.READ_DESCRIPTIONS if method not in {"RUN", COUNT_METHOD}
    }
    # the queue's decisions show both patients, too
    assert described_routes == reads | {("POST", f"{DUPLICATES}{{unique_id}}/dismiss/")}
    # counts reveal records only for lists that can be filtered
    assert {route for method, route in disclosures.READ_DESCRIPTIONS if method == COUNT_METHOD} == {
        PATIENTS,
        f"{PATIENTS}search/",
        PROFILES,
        f"{PROFILES}search/",
        FHIR_PATIENTS,
        f"{FHIR_PATIENTS}/_search",
    }
