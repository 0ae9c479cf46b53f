"""Lists of deleted records: what is in them, in which order, and that restoring needs nothing else."""

from typing import Any

import asyncpg
import httpx
import pytest

from app.auth.scopes import Scope
from tests.auth.support import client_for, make_key, secured_app
from tests.journal.conftest import Command
from tests.listing.support import explain_page
from tests.support import EXAMPLE_PATIENT, RESOURCE_EXAMPLES, ResourceExample

PATIENTS = "/patients/patients/"
SEARCH = f"{PATIENTS}search/"


async def deleted_ids(client: httpx.AsyncClient, query: str = "") -> list[str]:
    """Return the ids of the deleted patients, by following the links from page to page."""
    found, url = [], f"{PATIENTS}?deleted=true{query}"
    while url:
        response = await client.get(url)
        assert response.status_code == 200, response.text
        found += [record["unique_id"] for record in response.json()]
        url = response.links.get("next", {}).get("url", "")
    return found


@pytest.mark.parametrize("example", RESOURCE_EXAMPLES, ids=lambda example: example.name)
async def test_deleted_records_are_listed_until_they_are_restored(
    client: httpx.AsyncClient, example: ResourceExample
) -> None:
    """A deleted record is listed in its last state, with the version that brings it back, and not once it is back."""
    path = example.path
    assert (await client.get(path, params={"deleted": "true"})).json() == []
    await client.post(path, json={"unique_id": "one", **example.minimal_body})
    last_state = (await client.put(f"{path}one/", json=example.update_body)).json()
    await client.post(path, json={"unique_id": "two", **example.minimal_body})
    assert (await client.delete(f"{path}one/")).status_code == 204
    (listed,) = (await client.get(path, params={"deleted": "true"})).json()
    entry = (await client.get(f"{path}one/history/")).json()[0]
    assert listed == {**last_state, "version": 2, "date_deleted": entry["time"]}
    assert list(listed) == [*last_state, "version", "date_deleted"]
    restored = await client.post(f"{path}one/restore/", json={"version": listed["version"]})
    assert restored.status_code == 200
    assert (await client.get(path, params={"deleted": "true"})).json() == []
    assert [record["unique_id"] for record in (await client.get(f"{path}?deleted=false")).json()] == ["one", "two"]


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_a_deleted_patient_is_shown_with_its_links_as_far_as_they_exist(client: httpx.AsyncClient) -> None:
    """A deleted patient has the profile, hospitals and doctors of its last state, except those that are gone since."""
    body = {**EXAMPLE_PATIENT, "unique_id": "one", "hospital_ids": ["hos123", "hos456"], "patient_latitude": "-33.5"}
    last_state = (await client.post(PATIENTS, json=body)).json()
    await client.delete(f"{PATIENTS}one/")
    for response in (
        await client.get(PATIENTS, params={"deleted": "true"}),
        await client.post(SEARCH, json={"deleted": True}),
    ):
        (listed,) = response.json()
        assert listed == {**last_state, "version": 1, "date_deleted": listed["date_deleted"]}
    assert (await client.delete("/hospitals/hospitals/hos456/")).status_code == 204
    (listed,) = (await client.get(PATIENTS, params={"deleted": "true"})).json()
    assert [hospital["unique_id"] for hospital in listed["patient_hospital"]] == ["hos123"]


async def test_deleted_patients_are_paged_newest_deletion_first(client: httpx.AsyncClient, command: Command) -> None:
    """Pages have the newest deletion first, each patient once, and no erased or restored one."""
    for unique_id in "abcdefg":
        await client.post(PATIENTS, json={"unique_id": unique_id, "patient_last_name": "Doe"})
    for unique_id in "cafgbd":
        await client.delete(f"{PATIENTS}{unique_id}/")
    for unique_id in "af":
        await client.post(f"{PATIENTS}{unique_id}/restore/", json={"version": 1})
    await client.delete(f"{PATIENTS}a/")
    assert (await command("erase", "patient", "g", "--reason", "requested", "--yes")).status == 0
    expected = ["a", "d", "b", "c"]
    for limit in ("", "&limit=1", "&limit=3", "&limit=4"):
        assert await deleted_ids(client, limit) == expected
    counted = await client.get(f"{PATIENTS}?deleted=true&count=exact&limit=2")
    assert counted.headers["X-Total-Count"] == "4"
    assert [record["version"] for record in counted.json()] == [3, 1]
    lines = await client.get(f"{PATIENTS}?deleted=true", headers={"Accept": "application/x-ndjson"})
    assert lines.text.count("\n") == 4


@pytest.mark.parametrize(
    "parameters",
    [
        {"deleted": True, "search": "doe"},
        {"deleted": True, "unique_id": ["one"]},
        {"deleted": True, "ordering": "unique_id"},
        {"deleted": "yes"},
        {"deleted": 1},
    ],
    ids=str,
)
async def test_deleted_is_a_boolean_and_stands_alone(client: httpx.AsyncClient, parameters: dict[str, Any]) -> None:
    """`deleted` is `true` or `false`, and with a filter, a search or an ordering it is a 422 that names `deleted`."""
    query = {name: str(value).lower() if value is True else value for name, value in parameters.items()}
    for place, response in {
        "query": await client.get(PATIENTS, params=query),
        "body": await client.post(SEARCH, json=parameters),
    }.items():
        assert response.status_code == 422
        assert [error["loc"] for error in response.json()["errors"]] == [[place, "deleted"]]


async def test_listing_deleted_records_needs_the_scope_that_restores_them(database_url: str) -> None:
    """Whoever may not restore a patient gets a 403 that names the scope, also with the cursor of an earlier page."""
    scopes = Scope.PATIENTS_READ, Scope.PATIENTS_WRITE, Scope.PATIENTS_DELETE
    async with secured_app(database_url) as app:
        key = await make_key(database_url, *scopes, name="one")
        async with client_for(app, key) as client:
            for unique_id in "ab":
                await client.post(PATIENTS, json={"unique_id": unique_id, "patient_last_name": "Doe"})
                await client.delete(f"{PATIENTS}{unique_id}/")
            page = await client.get(f"{PATIENTS}?deleted=true&limit=1")
            assert page.status_code == 200
        connection = await asyncpg.connect(database_url)
        await connection.execute("UPDATE api_keys SET scopes = '{patients:read}'")
        await connection.close()
    async with secured_app(database_url) as app, client_for(app, key) as client:
        for url in (f"{PATIENTS}?deleted=true", page.links["next"]["url"]):
            refused = await client.get(url)
            assert refused.status_code == 403
            assert "patients:write" in refused.json()["detail"]
        assert (await client.get(PATIENTS)).status_code == 200


async def test_deleted_records_are_found_by_the_index_of_deletions(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """A page of deleted records is one range of an index, and each of its records is looked up by its key."""
    await connection.execute("""
        INSERT INTO patients (unique_id, patient_last_name) SELECT 'p' || n, 'Dube' FROM generate_series(1, 3000) n;
        INSERT INTO journal (resource, unique_id, version, action, actor, record)
        SELECT 'patients', unique_id, 1, 'created', 'test', '{"patient_last_name": "Dube"}' FROM patients;
        DELETE FROM patients WHERE unique_id LIKE '%00';
        INSERT INTO journal (resource, unique_id, version, action, actor)
        SELECT 'patients', 'p' || n, 2, 'deleted', 'test' FROM generate_series(100, 3000, 100) n;
    """)
    await connection.execute("ANALYZE")
    plan = await explain_page(database_url, connection, "GET", PATIENTS, params={"deleted": "true", "limit": 10})
    assert "Index Scan Backward using ix_journal_resource_time_unique_id" in plan, plan
    for table in ("journal", "patients"):  # the profiles, of which there are none, may be read in any way
        assert f"Seq Scan on {table}" not in plan, plan
