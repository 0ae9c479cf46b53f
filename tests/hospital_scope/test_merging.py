"""Restricted principals merge only what they see, and learn nothing about other hospitals' patients."""

from typing import Any

import httpx
import pytest

from tests.auth.support import PATIENTS, client_for, secured_app
from tests.hospital_scope.conftest import ScopedClients, patient_body
from tests.hospital_scope.test_access_matrix import comparable_response
from tests.merging.support import linked, merge, merged, read, unmerge, unmerged


async def create(client: httpx.AsyncClient, name: str, *hospitals: str, **fields: Any) -> str:
    """Create a patient, and return its id."""
    response = await client.post(PATIENTS, json=patient_body(name, *hospitals, **fields))
    assert response.status_code == 201, response.text
    return f"pat-{name}"


@pytest.mark.parametrize("hidden", ["pat-b", "pat-none", "pat-lost", "pat-merged-b"])
async def test_hidden_patients_are_indistinguishable_from_absent_ones(
    scoped_clients: ScopedClients, database_url: str, hidden: str
) -> None:
    """A hidden patient in the path is a 404, and in the body a 422, as an absent one is, whatever the conditions."""
    free, a = scoped_clients.free, scoped_clients.a
    await create(free, "lost", "hosB")
    await free.delete(f"{PATIENTS}pat-lost/")
    await create(free, "merged-b", "hosB")
    await merged(free, "pat-b", "pat-merged-b")
    tag = (await free.get(f"{PATIENTS}pat-a/")).headers["ETag"]
    async with secured_app(database_url, rate_limit="off", require_if_match=True) as app:
        key = a.headers["Authorization"].removeprefix("Bearer ")
        async with client_for(app, key) as strict:
            for client in (a, strict):
                for headers in ({}, {"If-Match": tag}, {"If-Match": "*"}, {"Idempotency-Key": "once"}):
                    responses = [
                        [
                            await client.post(f"{PATIENTS}{each}/merge/", json={"from": "pat-a"}, headers=headers),
                            await client.post(f"{PATIENTS}{each}/merge/", json={"from": each}, headers=headers),
                            await client.post(f"{PATIENTS}{each}/unmerge/", json={}, headers=headers),
                            await client.post(
                                f"{PATIENTS}pat-a/merge/", json={"from": each, "from_etag": tag}, headers=headers
                            ),
                        ]
                        for each in (hidden, "pat-never")
                    ]
                    ours, absent = ([comparable_response(each) for each in one] for one in responses)
                    assert ours == absent
                    assert [status for status, _, _ in ours[::2]] == [404, 404]
    refused = await strict_merge_status(database_url, key)
    assert refused == (428, 428, 422)


async def strict_merge_status(database_url: str, key: str) -> tuple[int, ...]:
    """Return the statuses of merges of visible patients without one of the required ETags, or of an unknown one."""
    async with (
        secured_app(database_url, rate_limit="off", require_if_match=True) as app,
        client_for(app, key) as client,
    ):
        path, body = f"{PATIENTS}pat-a/merge/", {"from": "pat-shared", "from_etag": '"x"'}
        responses = [
            await client.post(path, json=body),
            await client.post(path, json={"from": "pat-shared"}, headers={"If-Match": "*"}),
            await client.post(path, json={**body, "from": "pat-never"}, headers={"If-Match": "*"}),
        ]
    return tuple(response.status_code for response in responses)


async def test_links_outside_the_scope_are_united_and_taken_back(scoped_clients: ScopedClients) -> None:
    """A restricted principal's merge unites all hospitals, and undoing it takes them back, with feeds for each side."""
    free, a, b = scoped_clients.free, scoped_clients.a, scoped_clients.b
    one, two = await create(free, "one", "hosA", "hosC"), await create(free, "two", "hosA", "hosB")
    cursors = {}
    for client in (a, b):
        cursors[client] = (await client.get("/changes/", params={"after": "now"})).headers["Next-Cursor"]
    outcome = await merged(a, one, two)
    assert linked(outcome) == ["hosA", "hosB", "hosC"]
    assert (await b.get(f"{PATIENTS}{two}/")).json()["merged_into"] == one
    assert (await read(b, one))["unique_id"] == one
    assert linked((await unmerged(a, two))["patient"]) == ["hosA", "hosB"]
    assert linked(await read(a, one)) == ["hosA", "hosC"]
    assert (await b.get(f"{PATIENTS}{one}/")).status_code == 404
    actions = {}
    for client, cursor in cursors.items():
        changes = (await client.get("/changes/", params={"after": cursor, "resource": "patients"})).json()
        actions[client] = [(change["unique_id"], change["action"]) for change in changes]
    assert actions[a] == [(two, "merged"), (one, "updated"), (one, "updated"), (two, "unmerged")]
    assert actions[b] == [(two, "merged"), (one, "entered"), (one, "left"), (two, "unmerged")]


async def test_merged_into_names_no_hidden_patient(scoped_clients: ScopedClients) -> None:
    """A 410 names the last patient of a chain that the principal may know, and not those that it never saw."""
    free, a = scoped_clients.free, scoped_clients.a
    one, two, three = await create(free, "one", "hosA"), await create(free, "two", "hosB"), "pat-b"
    await merged(free, two, one)
    assert (await a.get(f"{PATIENTS}{one}/")).json()["merged_into"] == two
    await free.put(f"{PATIENTS}{two}/", json={"hospital_ids": ["hosB"]})
    await merged(free, three, two)
    assert (await free.get(f"{PATIENTS}{one}/")).json()["merged_into"] == three
    gone = await a.get(f"{PATIENTS}{one}/")
    assert (gone.status_code, gone.json()["merged_into"]) == (410, two)
    assert (await a.get(f"{PATIENTS}{two}/")).status_code == 404
    refused = await unmerge(a, one)
    assert (refused.status_code, "undo_first" in refused.json()) == (409, False)
    history = (await a.get(f"{PATIENTS}{one}/history/")).json()
    assert history[0]["merge"] == {"merged_into": two}


async def test_merge_needs_both_patients_in_scope(scoped_clients: ScopedClients) -> None:
    """A principal merges patients of its hospitals, and a principal of both hospitals those of both."""
    assert (await merge(scoped_clients.a, "pat-a", "pat-b")).status_code == 422
    assert (await merge(scoped_clients.a, "pat-b", "pat-a")).status_code == 404
    assert (await merge(scoped_clients.both, "pat-a", "pat-b")).status_code == 200
