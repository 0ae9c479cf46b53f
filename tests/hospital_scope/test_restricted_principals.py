"""Restricted principals see and change the patients of their hospitals, and no others."""

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest

from tests.auth.support import HOSPITALS, PATIENTS, PROFILES
from tests.hospital_scope.conftest import ScopedClients, patient_body
from tests.processes import wait_until_blocked
from tests.support import dump_tables


async def list_ids(client: httpx.AsyncClient, path: str) -> list[str]:
    """Return the ids of a list."""
    return [record["unique_id"] for record in (await client.get(path)).json()]


def hospital_ids_of(response: httpx.Response) -> list[str]:
    """Return the ids of the hospitals in a patient's response."""
    return [hospital["unique_id"] for hospital in response.json()["patient_hospital"]]


async def test_lists_counts_and_pages_hold_only_visible_records(scoped_clients: ScopedClients) -> None:
    """Lists, counts and pages have only visible records; a profile is visible if a visible patient has it."""
    assert await list_ids(scoped_clients.a, PATIENTS) == ["pat-a", "pat-shared"]
    assert await list_ids(scoped_clients.b, PATIENTS) == ["pat-b", "pat-shared"]
    assert await list_ids(scoped_clients.both, PATIENTS) == ["pat-a", "pat-b", "pat-shared"]
    assert await list_ids(scoped_clients.free, PATIENTS) == ["pat-a", "pat-b", "pat-none", "pat-shared"]
    assert await list_ids(scoped_clients.a, PROFILES) == ["prof-a", "prof-shared"]
    assert len(await list_ids(scoped_clients.free, PROFILES)) == 6
    for client, patients, profiles in (
        (scoped_clients.a, "2", "2"),
        (scoped_clients.both, "3", "3"),
        (scoped_clients.free, "4", "6"),
    ):
        for path, count in ((PATIENTS, patients), (PROFILES, profiles)):
            assert (await client.get(f"{path}?limit=1&count=exact")).headers["X-Total-Count"] == count
    page = await scoped_clients.a.get(f"{PATIENTS}?limit=1")
    assert [record["unique_id"] for record in page.json()] == ["pat-a"]
    following = await scoped_clients.a.get(page.links["next"]["url"])
    assert [record["unique_id"] for record in following.json()] == ["pat-shared"]
    assert "next" not in following.links


async def test_all_hospitals_of_a_visible_patient_are_shown(scoped_clients: ScopedClients) -> None:
    """A visible patient shows all its hospitals, because those treating it have to know who else does."""
    assert hospital_ids_of(await scoped_clients.a.get(f"{PATIENTS}pat-shared/")) == ["hosA", "hosB", "hosC"]


async def test_replacing_links_keeps_hospitals_outside_the_scope(scoped_clients: ScopedClients) -> None:
    """Replacing links adds and removes only hospitals in the scope."""
    path = f"{PATIENTS}pat-shared/"
    response = await scoped_clients.both.put(path, json={"hospital_ids": ["hosA"]})
    assert (response.status_code, hospital_ids_of(response)) == (200, ["hosA", "hosC"])
    response = await scoped_clients.both.put(path, json={"hospital_ids": ["hosB", "hosC"]})
    assert (response.status_code, hospital_ids_of(response)) == (200, ["hosB", "hosC"])
    assert (await scoped_clients.a.get(path)).status_code == 404
    response = await scoped_clients.free.put(path, json={"hospital_ids": ["hosA"]})
    assert hospital_ids_of(response) == ["hosA"]


async def test_putting_back_a_read_patient_writes_nothing(
    scoped_clients: ScopedClients, connection: asyncpg.Connection
) -> None:
    """Putting back a patient as read, with its hospitals outside the scope, writes nothing."""
    record = (await scoped_clients.a.get(f"{PATIENTS}pat-shared/")).json()
    before = await dump_tables(connection)
    body = {**record, "hospital_ids": ["hosA", "hosB", "hosC"]}
    assert (await scoped_clients.a.put(f"{PATIENTS}pat-shared/", json=body)).json() == record
    assert await dump_tables(connection) == before


async def test_hospitals_outside_the_scope_cannot_be_linked(
    scoped_clients: ScopedClients, connection: asyncpg.Connection
) -> None:
    """A hospital outside the scope, existing or not, is an error at its position, and nothing is stored."""
    before = await dump_tables(connection)
    for method, path in (("PUT", f"{PATIENTS}pat-a/"), ("POST", PATIENTS)):
        body = {"patient_first_name": "New", "hospital_ids": ["hosB", "hosA", "hosX"]}
        response = await scoped_clients.a.request(method, path, json=body)
        assert response.status_code == 422
        assert response.json()["errors"] == [
            {
                "loc": ["body", "hospital_ids", place],
                "msg": f"There is no hospital with the unique_id {unique_id}, or you may not link it",
                "type": "unknown_hospital",
            }
            for place, unique_id in ((0, "hosB"), (2, "hosX"))
        ]
    assert await dump_tables(connection) == before


@pytest.mark.parametrize("hospital_ids", [[], ["hosB"], ["hosB", "hosC"]])
async def test_last_hospital_in_scope_cannot_be_removed(scoped_clients: ScopedClients, hospital_ids: list[str]) -> None:
    """Removing the last hospital in the scope, which the principal could not undo, is a 409 that says why."""
    response = await scoped_clients.a.put(f"{PATIENTS}pat-shared/", json={"hospital_ids": hospital_ids})
    assert response.status_code == 409
    assert "restricted to" in response.json()["detail"]
    assert hospital_ids_of(await scoped_clients.a.get(f"{PATIENTS}pat-shared/")) == ["hosA", "hosB", "hosC"]


@pytest.mark.parametrize("links", [{}, {"hospital_ids": []}, {"hospital_ids": ["hosX"]}])
async def test_new_patient_needs_a_hospital_in_scope(scoped_clients: ScopedClients, links: dict[str, Any]) -> None:
    """A new patient needs a hospital in the scope, because its creator could not see it otherwise."""
    response = await scoped_clients.a.post(PATIENTS, json={"patient_last_name": "New", **links})
    assert response.status_code == 422
    assert response.json()["errors"][-1]["type"] == "own_hospital_missing"
    response = await scoped_clients.a.post(PATIENTS, json={"patient_last_name": "New", "hospital_ids": ["hosA"]})
    assert (response.status_code, hospital_ids_of(response)) == (201, ["hosA"])


@pytest.mark.parametrize("unique_id", ["pat-b", "pat-gone", "pat-new"])
async def test_restricted_principal_cannot_choose_a_patient_id(scoped_clients: ScopedClients, unique_id: str) -> None:
    """Choosing an id is the same 403 whether the id is taken, retired or free."""
    body = patient_body("x", "hosA", unique_id=unique_id)
    response = await scoped_clients.a.post(PATIENTS, json=body, headers={"If-None-Match": "*"})
    assert response.status_code == 403
    assert response.json()["detail"].endswith("Omit it, and one is generated.")
    assert "scope=" not in response.headers["WWW-Authenticate"]


@pytest.mark.parametrize("profile", ["prof-b", "prof-free", "prof-gone", "prof-retired"])
async def test_hidden_profile_cannot_be_linked(scoped_clients: ScopedClients, profile: str) -> None:
    """A hidden profile is the same 422 whatever its state, and whether its data are guessed right or wrong."""
    assert (await scoped_clients.free.post(PROFILES, json={"unique_id": "prof-retired"})).status_code == 201
    assert (await scoped_clients.free.delete(f"{PROFILES}prof-retired/")).status_code == 204
    responses = []
    for email in ("b@example.com", "wrong@example.com", None):
        nested = {"unique_id": profile} if email is None else {"unique_id": profile, "email": email}
        responses += [
            await scoped_clients.a.put(f"{PATIENTS}pat-a/", json={"patient_profile": nested}),
            await scoped_clients.a.post(
                PATIENTS, json={"patient_last_name": "New", "hospital_ids": ["hosA"], "patient_profile": nested}
            ),
        ]
    assert {response.status_code for response in responses} == {422}
    assert [response.json()["errors"] for response in responses] == [
        [
            {
                "loc": ["body", "patient_profile", "unique_id"],
                "msg": "Is not available to you: omit the profile, or choose another unique_id to create a new one",
                "type": "profile_unavailable",
            }
        ]
    ] * len(responses)


async def test_visible_or_new_nested_profile_is_written(scoped_clients: ScopedClients) -> None:
    """A visible or new profile is written inside a patient, but cannot be created on its own."""
    nested = {"unique_id": "prof-shared", "first_name": "Ann"}
    response = await scoped_clients.a.put(f"{PATIENTS}pat-a/", json={"patient_profile": nested})
    assert (response.status_code, response.json()["patient_profile"]["first_name"]) == (200, "Ann")
    nested = {"unique_id": "prof-new", "first_name": "Eve"}
    response = await scoped_clients.a.put(f"{PATIENTS}pat-a/", json={"patient_profile": nested})
    assert (response.status_code, response.json()["patient_profile"]["first_name"]) == (200, "Eve")
    assert (await scoped_clients.a.post(PROFILES, json={"unique_id": "prof-own"})).status_code == 403
    assert (await scoped_clients.a.put(f"{PROFILES}prof-new/", json={"first_name": "Eva"})).status_code == 200


async def test_in_use_errors_hide_counts_from_restricted_principals(scoped_clients: ScopedClients) -> None:
    """A record in use cannot be deleted, and only unrestricted principals learn by how many it is used."""
    for path in (f"{HOSPITALS}hosA/", f"{PROFILES}prof-shared/"):
        limited, free = await scoped_clients.a.delete(path), await scoped_clients.free.delete(path)
        assert limited.status_code == free.status_code == 409
        assert limited.json()["detail"].startswith("One or more patients are linked")
        assert free.json()["detail"][0].isdecimal()


async def test_deleted_patient_stays_in_the_scope_of_its_hospitals(scoped_clients: ScopedClients) -> None:
    """A deleted patient's history stays visible, and it can be restored with its profile and all its hospitals."""
    assert (await scoped_clients.both.delete(f"{PATIENTS}pat-shared/")).status_code == 204
    for name in ("pat-gone", "pat-shared"):
        assert (await scoped_clients.a.get(f"{PATIENTS}{name}/history/")).status_code == 200
        assert (await scoped_clients.a.get(f"{PATIENTS}{name}/history/1/")).status_code == 200
    assert (await scoped_clients.b.get(f"{PATIENTS}pat-gone/history/")).status_code == 404
    assert (await scoped_clients.b.post(f"{PATIENTS}pat-gone/restore/", json={"version": 1})).status_code == 404
    response = await scoped_clients.b.post(f"{PATIENTS}pat-shared/restore/", json={"version": 1})
    assert (response.status_code, hospital_ids_of(response)) == (200, ["hosA", "hosB", "hosC"])
    assert response.json()["patient_profile"]["unique_id"] == "prof-shared"


async def test_restore_keeps_hospitals_outside_the_scope(scoped_clients: ScopedClients) -> None:
    """Restoring a version brings back only hospitals in the scope, and is a 409 if the version has none of them."""
    path = f"{PATIENTS}pat-shared/"
    assert hospital_ids_of(await scoped_clients.free.put(path, json={"hospital_ids": ["hosB"]})) == ["hosB"]
    assert hospital_ids_of(await scoped_clients.both.put(path, json={"hospital_ids": ["hosA"]})) == ["hosA"]
    response = await scoped_clients.b.post(f"{path}restore/", json={"version": 1})
    assert response.status_code == 404
    response = await scoped_clients.a.post(f"{path}restore/", json={"version": 1})
    assert (response.status_code, hospital_ids_of(response)) == (200, ["hosA"])
    response = await scoped_clients.a.post(f"{path}restore/", json={"version": 2})
    assert response.status_code == 409
    assert "restricted to" in response.json()["detail"]
    assert hospital_ids_of(await scoped_clients.both.post(f"{path}restore/", json={"version": 2})) == ["hosB"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
async def test_scope_is_checked_again_after_waiting_for_a_lock(
    scoped_clients: ScopedClients, connection: asyncpg.Connection, method: str
) -> None:
    """A change that waited for a patient's lock checks the scope again: the patient may have been moved meanwhile."""
    path = f"{PATIENTS}pat-a/"
    body = {"version": 1} if method == "POST" else {"patient_last_name": "Changed"}
    async with connection.transaction():
        await connection.execute("UPDATE patients SET version = version + 1 WHERE unique_id = 'pat-a'")
        change = scoped_clients.a.request(method, f"{path}restore/" if method == "POST" else path, json=body)
        waiting = asyncio.create_task(change)
        await wait_until_blocked(connection)
        await connection.execute("UPDATE patient_hospitals SET hospital_id = 'hosB' WHERE patient_id = 'pat-a'")
    assert (await waiting).status_code == 404
    assert (await scoped_clients.b.get(path)).json()["patient_last_name"] == "a"
