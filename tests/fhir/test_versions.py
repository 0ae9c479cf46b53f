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
