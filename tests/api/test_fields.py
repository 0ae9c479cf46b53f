"""The parameter `fields`: which fields records in responses have, in which order, and with which entity tag."""

import json

import asyncpg
import httpx
import pytest

from tests.support import EXAMPLE_PATIENT, RESOURCE_EXAMPLES, ResourceExample

PATIENTS = "/patients/patients/"
SEARCH = f"{PATIENTS}search/"


@pytest.mark.parametrize("example", RESOURCE_EXAMPLES, ids=lambda example: example.name)
async def test_records_have_the_selected_fields_in_the_order_of_the_contract(
    client: httpx.AsyncClient, example: ResourceExample
) -> None:
    """Lists, deleted records and single records have only the selected fields, in the order of the contract."""
    whole = (await client.post(example.path, json=example.create_body)).json()
    name = next(iter(example.minimal_body))
    expected = {key: whole[key] for key in ("unique_id", name, "last_updated")}
    for query in (f"last_updated,{name},unique_id", f"{name}&fields=unique_id&fields= last_updated,{name}"):
        record = await client.get(f"{example.record_path}?fields={query}")
        assert record.status_code == 200, record.text
        assert list(record.json().items()) == list(expected.items())
        listed = await client.get(f"{example.path}?fields={query}")
        assert [list(each.items()) for each in listed.json()] == [list(expected.items())]
    await client.delete(example.record_path)
    (deleted,) = (await client.get(f"{example.path}?deleted=true&fields={name}")).json()
    assert list(deleted) == [name, "version", "date_deleted"]


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_selected_values_are_unchanged_whatever_they_contain(client: httpx.AsyncClient) -> None:
    """Nested values, nulls, and characters of any script are the same as in the whole record."""
    names = {"patient_last_name": '\u2028"\\\\ \U0001f600 Ærø', "patient_latitude": "-33.5", "patient_title": None}
    whole = (await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "one", **names})).json()
    reduced = await client.get(f"{PATIENTS}one/", params={"fields": list(whole)})
    assert reduced.json() == whole
    assert reduced.headers["Content-Type"] == "application/json"


async def test_search_pages_and_lines_have_the_selected_fields(client: httpx.AsyncClient) -> None:
    """A search, the pages that follow, and a list by lines have the selected fields, which a cursor contains."""
    for unique_id in "abc":
        await client.post(PATIENTS, json={"unique_id": unique_id, "patient_last_name": "Doe"})
    found, body = [], {"search": "doe", "limit": 1, "fields": ["patient_last_name", "unique_id"]}
    while True:
        page = await client.post(SEARCH, json=body)
        found += page.json()
        if "Next-Cursor" not in page.headers:
            break
        body = {"cursor": page.headers["Next-Cursor"], "limit": 1}
    assert found == [{"unique_id": each, "patient_last_name": "Doe"} for each in "abc"]
    assert (await client.post(SEARCH, json={"fields": "unique_id"})).json() == [{"unique_id": each} for each in "abc"]
    first = await client.get(f"{PATIENTS}?fields=unique_id&limit=2")
    assert (await client.get(first.links["next"]["url"])).json() == [{"unique_id": "c"}]
    lines = await client.get(f"{PATIENTS}?fields=unique_id", headers={"Accept": "application/x-ndjson"})
    assert [json.loads(line) for line in lines.text.splitlines()] == [{"unique_id": each} for each in "abc"]


async def test_streamed_lists_have_the_selected_fields(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """All batches of a whole list have the selected fields."""
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name) "
        "SELECT 'p' || lpad(n::text, 4, '0'), 'Doe' FROM generate_series(1, 2100) n"
    )
    for query in ("", "&ordering=-unique_id"):
        listed = (await client.get(f"{PATIENTS}?fields=unique_id{query}")).json()
        assert len(listed) == 2100
        assert all(list(record) == ["unique_id"] for record in listed)


async def test_entity_tag_is_that_of_the_whole_record(client: httpx.AsyncClient) -> None:
    """The tag with `fields` is the record's: it fits `If-Match`, and changes with fields that are not selected."""
    path = f"{PATIENTS}one/"
    made = await client.post(PATIENTS, json={"unique_id": "one", "patient_last_name": "Doe"})
    reduced = await client.get(path, params={"fields": "unique_id"})
    tag = reduced.headers["ETag"]
    assert tag == made.headers["ETag"]
    current = await client.get(path, params={"fields": "unique_id"}, headers={"If-None-Match": tag})
    assert (current.status_code, current.headers["ETag"]) == (304, tag)
    changed = await client.patch(path, json={"patient_last_name": "Roe"}, headers={"If-Match": tag})
    assert changed.status_code == 200
    again = await client.get(path, params={"fields": "unique_id"}, headers={"If-None-Match": tag})
    assert (again.status_code, again.json(), again.headers["ETag"]) == (
        200,
        {"unique_id": "one"},
        changed.headers["ETag"],
    )
    assert (await client.patch(path, json={}, headers={"If-Match": tag})).status_code == 412


@pytest.mark.parametrize("path", [PATIENTS, f"{PATIENTS}one/", "/hospitals/hospitals/", "/hospitals/hospitals/one/"])
async def test_unknown_fields_are_422_with_the_nearest_name(client: httpx.AsyncClient, path: str) -> None:
    """Each unknown field is a 422 at its place, with the nearest known name and not the given one."""
    response = await client.get(f"{path}?fields=unique_id,uniqueid,zzz")
    assert response.status_code == 422
    assert response.json()["errors"] == [
        {
            "loc": ["query", "fields", 1],
            "msg": "Must be a field of the record; did you mean unique_id?",
            "type": "unknown_field",
        },
        {
            "loc": ["query", "fields", 2],
            "msg": "Must be a field of the record; /docs lists all of them",
            "type": "unknown_field",
        },
    ]
    for query in ("fields=", "field=unique_id", "fields=unique_id&limit=0&x=1"):
        assert (await client.get(f"{path}?{query}")).status_code == 422
    for fields in ([], ["x"], [1], "unique_id,patient_title", ["unique_id"] * 101):
        refused = await client.post(SEARCH, json={"fields": fields})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["loc"][:2] == ["body", "fields"]
