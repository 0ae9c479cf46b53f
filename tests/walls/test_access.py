"""Who has seen or changed a patient: looks from the audit, changes from the journal, in plain words."""

import base64

import asyncpg
import httpx
import pytest
from fastapi.routing import iter_route_contexts

from app.audit import accesses
from app.audit.trail import COUNT
from app.auth.scopes import Scope, needed
from app.main import create_app
from app.settings import Settings
from tests.auth.support import PATIENTS, PROFILES
from tests.walls.conftest import AUDIT, Register


async def actions(client: httpx.AsyncClient, unique_id: str) -> list[tuple[str, str]]:
    """Who did what to a patient's record, newest first."""
    entries = (await client.get(f"{PATIENTS}{unique_id}/access/")).json()
    return [(entry["principal"].removeprefix("key:"), entry["description"]) for entry in entries]


async def test_access_in_plain_words(register: Register) -> None:
    """Who has seen or changed a record, newest first; and not who was refused."""
    await register.b.get(f"{PATIENTS}pat-a/")
    await register.a.get(f"{PATIENTS}pat-a/")
    await register.a.put(f"{PATIENTS}pat-a/", json={"patient_title": "Dr."})
    await register.a.get(PATIENTS)
    entries = (await register.a.get(f"{PATIENTS}pat-a/access/")).json()
    assert [(entry["principal"], entry["action"], entry["description"]) for entry in entries] == [
        ("key:a", "listed", "Saw the record in a list of patients"),
        ("key:a", "updated", "Changed the record"),
        ("key:a", "read", "Looked at the record"),
        ("key:free", "created", "Created the record"),
    ]
    walked, url = [], f"{PATIENTS}pat-a/access/?limit=1"
    while url:
        page = await register.free.get(url)
        walked += page.json()
        url = page.links.get("next", {}).get("url", "")
    assert [entry["action"] for entry in walked if entry["action"] != "read_report"] == [
        entry["action"] for entry in entries
    ]
    assert (await register.b.get(f"{PATIENTS}pat-a/access/")).status_code == 404
    assert (await register.free.get(f"{PATIENTS}never/access/")).status_code == 404
    gone = (await register.a.get(f"{PATIENTS}pat-gone/access/")).json()
    assert [entry["description"] for entry in gone] == ["Deleted the record", "Created the record"]


async def test_changes_past_the_routes_are_told_too(register: Register, connection: asyncpg.Connection) -> None:
    """What a command or a migration did is in the journal only, and so is what was done before there was an audit."""
    await connection.execute(
        "INSERT INTO journal (resource, unique_id, version, action, actor, record)"
        " VALUES ('patients', 'pat-a', 2, 'updated', 'import', '{}')"
    )
    entries = (await register.free.get(f"{PATIENTS}pat-a/access/")).json()
    assert [(entry["principal"], entry["action"]) for entry in entries] == [
        ("import", "updated"),
        ("key:free", "created"),
    ]


async def test_a_request_id_hides_nothing(register: Register) -> None:
    """Clients choose it; a change is told by the version that it made."""
    headers = {"X-Request-ID": "the-same"}
    for title in ("Dr.", "Dr.", "Prof."):
        await register.a.put(f"{PATIENTS}pat-a/", json={"patient_title": title}, headers=headers)
    assert (await actions(register.a, "pat-a"))[:3] == [
        ("a", "Changed the record"),
        ("a", "Was shown the record in answer to data that were sent"),
        ("a", "Changed the record"),
    ]


async def test_a_repeated_request_is_a_look(register: Register) -> None:
    """It changed nothing the second time."""
    body = {"patient_last_name": "New", "hospital_ids": ["hosA"]}
    made = [await register.a.post(PATIENTS, json=body, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert await actions(register.a, made[0].json()["unique_id"]) == [
        ("a", "Was shown the record in answer to data that were sent"),
        ("a", "Created the record"),
    ]


async def test_the_profile_is_a_part_of_the_record(register: Register) -> None:
    """Looks at it and changes of it are told for as long as the patient has it, whoever came to it and however."""
    await register.free.get(f"{PROFILES}prof-new/")
    nested = {"unique_id": "prof-shared", "first_name": "Ann"}
    await register.a.put(f"{PATIENTS}pat-shared/", json={"patient_profile": nested})
    await register.b.get(f"{PROFILES}prof-shared/")
    await register.b.get(PROFILES)
    await register.b.put(f"{PROFILES}prof-shared/", json={"first_name": "Eve"})
    await register.a.put(f"{PATIENTS}pat-shared/", json={"patient_profile": None})
    await register.free.get(f"{PROFILES}prof-shared/")
    assert await actions(register.a, "pat-shared") == [
        ("a", "Changed the record"),
        ("b", "Changed the profile"),
        ("b", "Saw the profile in a list of profiles"),
        ("b", "Looked at the profile"),
        ("a", "Was shown the record in answer to data that were sent"),
        ("a", "Changed the profile"),
        ("free", "Created the record"),
    ]


async def test_headers_alone_are_a_look(register: Register) -> None:
    """They tell whether there is such a record, and whether it has changed."""
    await register.a.head(f"{PATIENTS}pat-a/")
    await register.a.head(f"{PATIENTS}pat-a/history/1/")
    await register.a.head(PATIENTS)
    assert [what for _, what in await actions(register.a, "pat-a")] == [
        "Saw the record in a list of patients",
        "Looked at an earlier version of the record",
        "Looked at the record",
        "Created the record",
    ]


@pytest.mark.parametrize("cursor", ["1.1.99999999999999999999999", "1.-1.1", "1_0.1.1", "1.1", "x", "9" * 18 + ".1.1"])
async def test_cursor_of_no_access(register: Register, cursor: str) -> None:
    """A 422, whatever numbers are in it."""
    text = base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")
    for path in (f"{PATIENTS}pat-a/access/", AUDIT):
        answer = await register.free.get(f"{path}?cursor={text}")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["query", "cursor"]


def test_the_words_are_for_routes_that_there_are() -> None:
    """Every reading route of patients and profiles has its words, and no other."""
    app = create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"}))
    reads = {
        (method, str(route.path))
        for route in iter_route_contexts(app.routes)
        if str(route.path).startswith((PATIENTS, PROFILES))
        for method in route.methods or ()
        if (needed(route.openapi_extra) or Scope.ADMIN).reads
    }
    told = {(method, route) for method, route in accesses.LOOKS if method not in {"RUN", COUNT}}
    assert told == reads
    # whom a count tells of: of the lists that can be filtered
    assert {route for method, route in accesses.LOOKS if method == COUNT} == {PATIENTS, f"{PATIENTS}search/"}
