"""Merged patients as resources: `link` says what replaces what, also in earlier versions and after an undo."""

import httpx

from tests.fhir.support import PATIENT, checked, found_ids, refusals

PATIENTS = "/patients/patients/"


async def merge(client: httpx.AsyncClient, survivor: str, loser: str) -> None:
    response = await client.post(f"{PATIENTS}{survivor}/merge/", json={"from": loser})
    assert response.status_code == 200, response.text


async def test_links_name_merged_patients(client: httpx.AsyncClient) -> None:
    """A merged patient is inactive and names the one that replaces it; the survivor names those that it replaces."""
    for unique_id in ("one", "two_2", "three"):
        body = {"unique_id": unique_id, "patient_last_name": "Doe", "patient_town": f"Town {unique_id}"}
        assert (await client.post(PATIENTS, json=body)).status_code == 201
    await merge(client, "one", "two_2")
    await merge(client, "one", "three")
    loser = await client.get(f"{PATIENT}/two.-2")
    resource = checked(loser)
    assert resource["active"] is False
    assert resource["link"] == [{"other": {"reference": "Patient/one"}, "type": "replaced-by"}]
    assert resource["meta"]["versionId"] == "2"
    assert "name" not in resource
    survivor = checked(await client.get(f"{PATIENT}/one"))
    replaced = [{"other": {"reference": f"Patient/{name}"}, "type": "replaces"} for name in ("three", "two.-2")]
    assert survivor["link"] == replaced
    bundle = checked(await client.get(PATIENT))
    assert found_ids(bundle) == ["one"]
    assert bundle["entry"][0]["resource"] == survivor
    assert checked(await client.put(f"{PATIENT}/one", json=survivor)) == survivor
    other = {**survivor, "link": [{"other": {"reference": "Patient/four"}, "type": "replaces"}]}
    assert refusals(await client.put(f"{PATIENT}/one", json=other)) == {"Patient.link[0]": "element_refused"}
    seealso = {**survivor, "link": [{"other": {"reference": "Patient/three"}, "type": "seealso"}]}
    assert refusals(await client.put(f"{PATIENT}/one", json=seealso)) == {"Patient.link[0]": "element_refused"}


async def test_earlier_versions_and_undone_merges_have_their_own_links(client: httpx.AsyncClient) -> None:
    """A version has the links of its time, and an undone merge leaves none."""
    for unique_id, town in (("one", None), ("two", "Paarl")):
        await client.post(PATIENTS, json={"unique_id": unique_id, "patient_last_name": "Doe", "patient_town": town})
    await merge(client, "one", "two")
    merged = await client.put(
        f"{PATIENT}/two", json={"resourceType": "Patient", "id": "two", "name": [{"family": "D"}]}
    )
    assert refusals(merged, 410) == {"": "deleted"}
    assert '"merged_into": "one"' in merged.json()["issue"][0]["diagnostics"]
    undone = await client.post(f"{PATIENTS}two/unmerge/", json={})
    assert undone.status_code == 200, undone.text
    assert "link" not in checked(await client.get(f"{PATIENT}/one"))
    assert checked(await client.get(f"{PATIENT}/two"))["name"][0]["family"] == "Doe"
    history = checked(await client.get(f"{PATIENT}/one/_history"))
    links = [entry["resource"].get("link", []) for entry in history["entry"]]
    assert [len(found) for found in links] == [0, 1, 0]
    loser = checked(await client.get(f"{PATIENT}/two/_history"))
    assert [entry["resource"]["active"] for entry in loser["entry"]] == [True, False, True]
    former = checked(await client.get(f"{PATIENT}/two/_history/2"))
    assert former["link"][0]["type"] == "replaced-by"
