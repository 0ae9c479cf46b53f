"""All official R4 examples of Patient, Practitioner and Organization: equal after a round trip, or refused by name."""

import json
import re
from typing import Any

import httpx
import pytest

from app.fhir_resources.ids import logical_id
from tests.fhir.support import FHIR, PATIENT, R4, Json, checked, is_contained, refusals
from tests.fhir.test_documentation import table_rows

EXAMPLES: dict[str, dict[str, Json]] = R4["examples"]
NOT_RENDERED = {"id", "meta"}


def prune(resource: Any, paths: set[str], path: str) -> Any:
    """Return a resource without the elements at these paths."""
    if path in paths:
        return None
    if isinstance(resource, dict):
        kept = {name: prune(value, paths, f"{path}.{name}") for name, value in resource.items()}
        return {name: value for name, value in kept.items() if value not in ({}, [], None)}
    if isinstance(resource, list):
        items = [prune(value, paths, f"{path}[{index}]") for index, value in enumerate(resource)]
        return [item for item in items if item not in ({}, [], None)]
    return resource


DIRECTORY = {
    "hospitals": {
        "1": "ACME Healthcare, Inc",
        "2": "Good Health Clinic",
        "f001": "Burgers University Medical Centre",
        "f201": "AUMC",
        "hl7": "HL7",
    },
    "doctors": {"example": "Dr Adam Careful", "21B": "Too-Onebee"},
}
"""The hospitals and doctors to which the examples refer, with the names that they show."""


async def create_directory(client: httpx.AsyncClient) -> None:
    for resource, field in (("hospitals", "hospital_name"), ("doctors", "doctor_first_name")):
        for unique_id, name in DIRECTORY[resource].items():
            response = await client.post(f"/{resource}/{resource}/", json={"unique_id": unique_id, field: name})
            assert response.status_code == 201


async def test_each_example_patient_is_equal_or_refused(client: httpx.AsyncClient) -> None:
    """An example is stored and equal, or every element that the register cannot hold is named.

    The elements that are left are then stored, and come back equal.
    """
    await create_directory(client)
    outcomes: dict[str, set[str]] = {}
    for example_id, example in EXAMPLES["Patient"].items():
        path = f"{PATIENT}/{example_id}"
        response = await client.put(path, json=example)
        refused = set() if response.status_code == 201 else set(refusals(response))
        outcomes[example_id] = refused
        rest = prune(example, refused, "Patient")
        is_named = any(name.keys() & {"family", "given"} for name in rest.get("name", ()))
        if refused and is_named:
            response = await client.put(path, json=rest)
        if is_named:
            stored = checked(response, 201)
            sent = {key: value for key, value in rest.items() if key not in NOT_RENDERED}
            assert is_contained(sent, stored), (example_id, json.dumps(sent), json.dumps(stored))
            assert checked(await client.get(path)) == stored
        else:
            assert refusals(await client.put(path, json=rest)), "a patient without a name"
    documented = {row[0].strip("`"): set(re.findall(r"`([^`]+)`", row[1])) for row in table_rows("Official examples")}
    top = {
        name: {re.split(r"[.\[]", path.removeprefix("Patient."))[0] for path in paths}
        for name, paths in outcomes.items()
    }
    assert documented == top


@pytest.mark.parametrize("kind", ["Practitioner", "Organization"])
async def test_example_practitioners_and_organizations_are_read_only(client: httpx.AsyncClient, kind: str) -> None:
    """The directory is changed by the API of the contract, so creation and update of these examples are refused."""
    for name, example in EXAMPLES[kind].items():
        assert refusals(await client.put(f"{FHIR}/{kind}/{name}", json=example), 405) == {"": "not-supported"}
        assert refusals(await client.post(f"{FHIR}/{kind}", json=example), 405) == {"": "not-supported"}


async def test_examples_of_the_directory_come_back_as_far_as_it_holds_them(client: httpx.AsyncClient) -> None:
    """The names of the example organizations and practitioners, stored as hospitals and doctors, come back equal."""
    for name, example in EXAMPLES["Organization"].items():
        if "name" in example:
            body = {"unique_id": name, "hospital_name": example["name"]}
            assert (await client.post("/hospitals/hospitals/", json=body)).status_code == 201
            assert checked(await client.get(f"{FHIR}/Organization/{logical_id(name)}"))["name"] == example["name"]
    for name, example in EXAMPLES["Practitioner"].items():
        names = example["name"][0]
        if "given" in names:
            body = {"unique_id": name, "doctor_first_name": " ".join(names["given"])}
            body |= {"doctor_last_name": names["family"]} if "family" in names else {}
            assert (await client.post("/doctors/doctors/", json=body)).status_code == 201
            (stored,) = checked(await client.get(f"{FHIR}/Practitioner/{logical_id(name)}"))["name"]
            assert {key: stored[key] for key in ("given", "family") if key in names} == {
                key: names[key] for key in ("given", "family") if key in names
            }
