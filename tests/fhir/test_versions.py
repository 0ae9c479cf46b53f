"""Versions of patients as resources: the history, earlier versions, and what they show of links."""

import httpx
import pytest

from tests.fhir.support import FULL, MINIMAL, PATIENT, checked, is_contained, refusals, without_server_elements


async def test_versions_and_history(client: httpx.AsyncClient) -> None:
    """The history lists all versions, newest first, in pages; a deleted patient is gone but has a history."""
    path = f"{PATIENT}/pat1"
    for family, status in (("Doe", 201), ("Roe", 200), ("Poe", 200)):
        resource = {"resourceType": "Patient", "id": "pat1", "name": [{"family": family}]}
        checked(await client.put(path, json=resource), status)
    assert (await client.delete(path)).status_code == 204
    assert refusals(await client.get(path), 410) == {"": "deleted"}
    assert refusals(await client.get(f"{path}/_history/4"), 410) == {"": "deleted"}
    assert refusals(await client.get(f"{path}/_history/5"), 404) == {"": "not-found"}
    assert refusals(await client.get(f"{path}/_history/x"), 404) == {"": "not-found"}
    first = await client.get(f"{path}/_history/1")
    assert checked(first)["name"][0]["family"] == "Doe"
    assert first.headers["ETag"] == 'W/"1"'
    seen, url = [], f"{path}/_history?_count=3"
    while url:
        bundle = checked(await client.get(url))
        assert bundle["type"] == "history"
        seen += [
            (entry["request"]["method"], entry["resource"]["name"][0]["family"] if "resource" in entry else None)
            for entry in bundle["entry"]
        ]
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), "")
    assert seen == [("DELETE", None), ("PUT", "Poe"), ("PUT", "Roe"), ("PUT", "Doe")]
    retired = await client.put(path, json={**MINIMAL, "id": "pat1"})
    assert refusals(retired, 409) == {"": "conflict"}


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_earlier_versions_show_what_was_linked(client: httpx.AsyncClient) -> None:
    """An earlier version has all elements, with references and profile by id alone."""
    checked(await client.post(PATIENT, json=FULL), 201)
    now = await client.put(f"{PATIENT}/pat.-123", json={**MINIMAL, "id": "pat.-123"})
    assert "extension" not in checked(now)
    earlier = checked(await client.get(f"{PATIENT}/pat.-123/_history/1"))
    assert is_contained(without_server_elements(earlier), FULL)
    assert earlier["managingOrganization"] == {"reference": "Organization/hos123"}
    assert earlier.keys() - {"id", "meta"} == FULL.keys()


async def test_pages_of_a_history_keep_to_their_patient(client: httpx.AsyncClient) -> None:
    """Pages have the size that is requested, and the link to another one is of no use for another patient."""
    for unique_id in ("one", "two"):
        for gender, status in (("male", 201), ("female", 200), ("other", 200)):
            resource = {**MINIMAL, "id": unique_id, "gender": gender}
            checked(await client.put(f"{PATIENT}/{unique_id}", json=resource), status)
    path = f"{PATIENT}/one/_history"
    first = checked(await client.get(f"{path}?_count=2"))
    assert [entry["resource"]["meta"]["versionId"] for entry in first["entry"]] == ["3", "2"]
    following = next(link["url"] for link in first["link"] if link["relation"] == "next")
    last = checked(await client.get(following))
    assert [entry["resource"]["meta"]["versionId"] for entry in last["entry"]] == ["1"]
    assert [link["relation"] for link in last["link"]] == ["self"]
    wrong = {following.replace("one", "two"): "_cursor", f"{path}?_cursor=x": "_cursor", f"{path}?_count=0": "_count"}
    wrong |= {
        f"{path}?_count=1001": "_count",
        f"{path}?_since=2026-01-01": "_since",
        f"{path}?_count=1&_count=2": "_count",
    }
    for url, name in wrong.items():
        assert list(refusals(await client.get(url), 400)) == [f"http.{name}"], url


async def test_what_was_never_there_is_not_found(client: httpx.AsyncClient) -> None:
    """A patient that never was is a 404 for each interaction, and a deleted one a 410 or, for its deletion, a 404."""
    for method, path in (("GET", "never"), ("GET", "never/_history"), ("GET", "never/_history/1"), ("DELETE", "never")):
        assert refusals(await client.request(method, f"{PATIENT}/{path}"), 404) == {"": "not-found"}
    created = checked(await client.post(PATIENT, json=MINIMAL), 201)
    path = f"{PATIENT}/{created['id']}"
    assert [(await client.delete(path)).status_code for _ in range(2)] == [204, 404]
    assert refusals(await client.get(path), 410) == {"": "deleted"}
    assert refusals(await client.get(f"{path}/_history/2"), 410) == {"": "deleted"}
    assert checked(await client.get(f"{path}/_history/1")) == created
