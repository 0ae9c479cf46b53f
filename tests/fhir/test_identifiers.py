"""Identifiers of patients in resources: mapping both ways, checks, uniqueness, search and conditions."""

import asyncio

import httpx
import pytest

from tests.fhir.support import PATIENT, UNIQUE_ID, Json, checked, found_ids, refusals

SYSTEM = "urn:patients-api:identifier:"
ZA_ID = {"system": f"{SYSTEM}za_id", "value": "800101 5009 087", "use": "official"}
FOLDER = {"system": f"{SYSTEM}folder", "value": 'GH/"47"', "assigner": {"reference": "Organization/hos123"}}
COUNTRY = [{"url": "urn:patients-api:extension:country", "valueString": "ZA"}]

pytestmark = pytest.mark.usefixtures("hospitals_and_doctors")


def patient(*identifiers: Json, **elements: object) -> Json:
    return {"resourceType": "Patient", "name": [{"family": "Doe"}], "identifier": list(identifiers), **elements}


async def test_identifiers_are_mapped_both_ways(client: httpx.AsyncClient) -> None:
    """All parts of an identifier are in the resource, in its history and in the record, and can be sent back."""
    response = await client.post(PATIENT, json=patient(ZA_ID, FOLDER, birthDate="1980-02-01"))
    created = checked(response, 201)
    own = {"system": UNIQUE_ID, "value": created["identifier"][0]["value"]}
    assert created["identifier"] == [own, FOLDER, {**ZA_ID, "extension": COUNTRY}]
    warning = "Patient.identifier[0].value disagrees with Patient.birthDate"
    assert response.headers["Identifier-Warning"] == warning
    path = f"{PATIENT}/{created['id']}"
    assert checked(await client.put(path, json=created)) == created
    record = (await client.get(f"/patients/patients/{own['value']}/?include=identifiers")).json()
    assert [(each["type"], each["value"]) for each in record["patient_identifiers"]] == [
        ("folder", FOLDER["value"]),
        ("za_id", ZA_ID["value"]),
    ]
    cleared = checked(await client.put(path, json={**created, "identifier": []} | {"identifier": [own]}))
    assert cleared["identifier"] == [own]
    assert checked(await client.get(f"{path}/_history/1"))["identifier"] == created["identifier"]


async def test_wrong_identifiers_are_refused_at_their_place(client: httpx.AsyncClient) -> None:
    """Errors about identifiers name the element of the resource."""
    wrong = patient(
        {**ZA_ID, "value": "8001015009088"},
        {"system": f"{SYSTEM}unknown", "value": "1"},
        {**ZA_ID, "assigner": {"reference": "Organization/hos123"}},
    )
    assert refusals(await client.post(PATIENT, json=wrong)) == {
        "Patient.identifier[0].value": "identifier_check_digit",
        "Patient.identifier[1].system": "identifier_type",
        "Patient.identifier[2].assigner.reference": "identifier_hospital",
    }
    refused = patient({**ZA_ID, "period": {"start": "2000"}}, {"system": "urn:oid:1.2", "value": "1"}, {"value": "1"})
    assert refusals(await client.post(PATIENT, json=refused)) == {
        "Patient.identifier[0].period": "element_refused",
        "Patient.identifier[1]": "element_refused",
        "Patient.identifier[2]": "element_refused",
    }
    checked(await client.post(PATIENT, json=patient(ZA_ID)), 201)
    taken = await client.post(PATIENT, json=patient(ZA_ID))
    assert refusals(taken, 409) == {"Patient.identifier[0].value": "patient_identifier_taken"}


async def test_patients_are_found_by_identifiers(client: httpx.AsyncClient) -> None:
    """A search by an identifier ignores case, spaces and punctuation; the type is in the system."""
    created = checked(await client.post(PATIENT, json=patient(ZA_ID, FOLDER)), 201)
    found = {
        f"{SYSTEM}za_id|8001015009087": [created["id"]],
        "800101-5009-087": [created["id"]],
        "gh47": [created["id"]],
        f"{SYSTEM}passport|8001015009087": [],
        f"{UNIQUE_ID}|8001015009087": [],
        "urn:oid:1.2|8001015009087": [],
    }
    for value, ids in found.items():
        assert found_ids(checked(await client.get(PATIENT, params={"identifier": value}))) == ids, value
    for wrong in (f"{SYSTEM}za_id|", f"{SYSTEM}Not a type|1"):
        response = await client.get(PATIENT, params={"identifier": wrong})
        assert refusals(response, 400) == {"http.identifier": "parameter_value"}


async def test_match_compares_identifiers(client: httpx.AsyncClient) -> None:
    """`$match` finds the patient with an identifier, and refuses a wrong one at its place."""
    created = checked(await client.post(PATIENT, json=patient(ZA_ID, birthDate="1980-01-01")), 201)

    async def match(identifier: Json) -> httpx.Response:
        person = {**patient(identifier, birthDate="1980-01-01"), "name": [{"family": "Doe", "given": ["Ann"]}]}
        parameters = {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": person}]}
        return await client.post(f"{PATIENT}/$match", json=parameters)

    assert found_ids(checked(await match({**ZA_ID, "value": "8001015009087"}))) == [created["id"]]
    wrong = await match({**ZA_ID, "value": "8001015009088"})
    assert refusals(wrong) == {"Patient.identifier[0].value": "identifier_check_digit"}


async def test_conditions_by_identifier_hold_in_a_crowd(client: httpx.AsyncClient) -> None:
    """Concurrent conditional creations with one identifier create one patient, which all of them return."""
    condition = {"If-None-Exist": f"identifier={SYSTEM}za_id|8001015009087"}
    requests = (client.post(PATIENT, json=patient(ZA_ID), headers=condition) for _ in range(6))
    responses = await asyncio.gather(*requests)
    assert sorted(response.status_code for response in responses) == [200] * 5 + [201]
    assert len({checked(response, response.status_code)["id"] for response in responses}) == 1
    path = f"{PATIENT}?identifier={SYSTEM}za_id|8001015009087"
    updated = checked(await client.put(path, json=patient(ZA_ID, gender="male")))
    assert (updated["gender"], updated["meta"]["versionId"]) == ("male", "2")
