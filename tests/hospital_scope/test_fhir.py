"""The hospital scope of the FHIR interface: other hospitals' patients are as absent ones in every response."""

from typing import Any

import httpx
import pytest

from app.fhir_resources.patient_elements import PATIENT_ELEMENTS
from tests.auth.test_matrix import FHIR_RULES
from tests.fhir.support import PATIENT, UNIQUE_ID, checked, found_ids, refusals
from tests.hospital_scope.conftest import ScopedClients

RESOURCE = {"resourceType": "Patient", "name": [{"family": "Doe"}]}
HOSPITAL = {"managingOrganization": {"reference": "Organization/hosA"}}


def comparable(response: httpx.Response) -> tuple[int, Any, list[tuple[str, str]]]:
    """Return all that a response reveals, except for its request's id."""
    body = response.json() if response.content else None
    for issue in (body or {}).get("issue", ()):
        issue.pop("diagnostics", None)
    return (
        response.status_code,
        body,
        [pair for pair in response.headers.items() if pair[0] not in {"x-request-id", "date"}],
    )


@pytest.mark.usefixtures("deleted_records")
async def test_hidden_patients_are_as_absent_ones(scoped_clients: ScopedClients) -> None:
    """Each request about a patient of other hospitals has the response that it has for an absent one."""
    rules = {name: rule for name, rule in FHIR_RULES.items() if "/one" in rule.path and "Patient" in rule.path}
    assert len(rules) >= 4
    responses: dict[tuple[str, str], str] = {}
    for name in ("never", "b", "none", "lost"):
        unique_id = f"pat-{name}"
        for operation, rule in rules.items():
            for headers in (None, {"If-Match": 'W/"1"'}, {"If-None-Match": 'W/"1"'}):
                body = None if rule.body is None else {**rule.body, "id": unique_id}
                response = await scoped_clients.a.request(
                    rule.method, rule.path.replace("/one", f"/{unique_id}"), json=body, headers=headers
                )
                key = (operation, str(headers))
                text = str(comparable(response)).replace(unique_id, "ID")
                assert responses.setdefault(key, text) == text, (name, key)
    deleted = await scoped_clients.a.get(f"{PATIENT}/pat-gone")
    assert refusals(deleted, 410) == {"": "deleted"}


async def test_searches_find_own_patients_only(scoped_clients: ScopedClients) -> None:
    """A search, its total and conditions find only the patients of the principal's hospitals."""
    for query in ("", "?_total=accurate", "?active=true&_total=accurate", "?organization=hosA,hosB", "?_sort=-family"):
        bundle = checked(await scoped_clients.a.get(f"{PATIENT}{query}"))
        assert sorted(found_ids(bundle)) == ["pat-a", "pat-shared"]
        assert bundle.get("total", 2) == 2
    for query in ("_id=pat-b", f"identifier={UNIQUE_ID}|pat-b", "organization=hosX"):
        assert found_ids(checked(await scoped_clients.a.get(f"{PATIENT}?{query}"))) == []
    for unique_id, family in (("short", "Xi"), ("long", "Maxine")):
        resource = {**RESOURCE, **HOSPITAL, "id": unique_id, "name": [{"family": family}]}
        checked(await scoped_clients.free.put(f"{PATIENT}/{unique_id}", json=resource), 201)
    for text, ids in (("hare", ["pat-shared"]), ("xi", ["long", "short"]), ("on", []), ("non", [])):
        bundle = checked(await scoped_clients.a.get(f"{PATIENT}?family:contains={text}&_total=accurate"))
        assert (found_ids(bundle), bundle["total"]) == (ids, len(ids)), "the patient `none` has no hospital"
    update = await scoped_clients.a.put(f"{PATIENT}?identifier={UNIQUE_ID}|pat-b", json=RESOURCE)
    absent = await scoped_clients.a.put(f"{PATIENT}?identifier={UNIQUE_ID}|pat-never", json=RESOURCE)
    assert comparable(update)[:2] == comparable(absent)[:2]
    assert update.status_code == 422


async def test_changes_keep_to_the_hospitals_of_the_principal(scoped_clients: ScopedClients) -> None:
    """A restricted principal creates patients of its hospitals, without choosing ids, and sends them back as read."""
    created = checked(await scoped_clients.a.post(PATIENT, json={**RESOURCE, **HOSPITAL}), 201)
    without = refusals(await scoped_clients.a.post(PATIENT, json=RESOURCE))
    assert without == {PATIENT_ELEMENTS["hospital_ids"]: "own_hospital_missing"}
    other = {"managingOrganization": {"reference": "Organization/hosB"}}
    assert refusals(await scoped_clients.a.post(PATIENT, json={**RESOURCE, **other}))[
        "Patient.managingOrganization.reference"
    ] in {"unknown_hospital", "own_hospital_missing"}
    chosen = await scoped_clients.a.put(f"{PATIENT}/mine", json={**RESOURCE, **HOSPITAL, "id": "mine"})
    assert refusals(chosen, 403) == {"": "forbidden"}
    path = f"{PATIENT}/pat-shared"
    read = checked(await scoped_clients.a.get(path))
    assert checked(await scoped_clients.a.put(path, json=read)) == read
    assert created["managingOrganization"]["reference"] == "Organization/hosA"


async def test_reads_of_resources_are_in_the_access_report(scoped_clients: ScopedClients) -> None:
    """Each read, search, count, match and version of a patient is reported, as in the rest of the API."""
    resource = {**RESOURCE, "identifier": [{"system": UNIQUE_ID, "value": "pat-a"}]}
    person = {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": resource}]}
    await scoped_clients.a.get(f"{PATIENT}/pat-a")
    await scoped_clients.a.get(f"{PATIENT}?_id=pat-a&_total=accurate")
    await scoped_clients.a.post(f"{PATIENT}/$match", json=person)
    await scoped_clients.a.get(f"{PATIENT}/pat-a/_history/1")
    await scoped_clients.b.get(f"{PATIENT}/pat-a")
    entries = (await scoped_clients.free.get("/patients/patients/pat-a/access/")).json()
    assert sorted(entry["description"] for entry in entries if entry["principal"] == "key:a") == [
        "Saw how many records match a filter or a search, including this one",
        "Saw the record among those that may be a given person",
        "Saw the record in a list of patients",
        "Viewed an earlier version of the record",
        "Viewed the record",
    ]
    assert not [entry for entry in entries if entry["principal"] == "key:b"]
