"""Patients as FHIR resources: mapping both ways, updates, ids, and preferences for the response."""

from typing import Any

import httpx
import pytest

from tests.fhir.support import FULL, MEDIA_TYPE, MINIMAL, PATIENT, checked, refusals, without_server_elements
from tests.support import EXAMPLE_PATIENT

PATIENTS = "/patients/patients/"


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_a_patient_of_the_contract_is_a_resource(client: httpx.AsyncClient) -> None:
    """Every field of the contract's example is in the resource, with its version in the headers."""
    body = {"unique_id": "pat_123", **EXAMPLE_PATIENT}
    created = await client.post(PATIENTS, json=body)
    assert created.status_code == 201
    response = await client.get(f"{PATIENT}/pat.-123")
    resource = checked(response)
    assert without_server_elements(resource) == FULL
    assert resource["id"] == "pat.-123"
    assert resource["meta"] == {"versionId": "1", "lastUpdated": created.json()["last_updated"]}
    assert response.headers["ETag"] == 'W/"1"'
    assert response.headers["Last-Modified"].endswith("GMT")


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_a_resource_becomes_a_patient_of_the_contract(client: httpx.AsyncClient) -> None:
    """Creating the resource stores what creating the contract's example stores, and the response contains it."""
    response = await client.post(PATIENT, json=FULL, headers={"Content-Type": MEDIA_TYPE})
    resource = checked(response, 201)
    assert without_server_elements(resource) == FULL
    assert response.headers["Location"] == f"http://patients.test{PATIENT}/pat.-123/_history/1"
    record = (await client.get(f"{PATIENTS}pat_123/")).json()
    links = {"hospital_ids": ["hos123", "hos456"], "doctor_ids": ["doc123"]}
    assert {**{name: record[name] for name in EXAMPLE_PATIENT if name in record}, **links} == EXAMPLE_PATIENT


async def test_an_update_replaces_the_whole_resource(client: httpx.AsyncClient) -> None:
    """An update clears what the resource does not have, and a repeated one changes nothing."""
    sent = {**MINIMAL, "birthDate": "1980-01-01", "gender": "female"}
    created = checked(await client.post(PATIENT, json=sent), 201)
    path = f"{PATIENT}/{created['id']}"
    update = {**MINIMAL, "id": created["id"], "gender": "female"}
    for version in ("2", "2"):
        updated = checked(await client.put(path, json=update))
        assert updated["meta"]["versionId"] == version
        assert "birthDate" not in updated
    assert checked(await client.get(path)) == updated


async def test_a_resource_that_was_read_can_be_sent_back(client: httpx.AsyncClient) -> None:
    """Sending back a resource as it was read changes nothing, whatever the patient has."""
    bodies: list[dict[str, Any]] = [
        {"patient_first_name": "Ann Mary  Eve"},
        {"patient_address_line_1": "Apt 1", "patient_last_name": "Doe"},
        {"patient_latitude": "1.5", "patient_last_name": 'D"oe\\\n\t'},
        {"patient_last_name": "王", "patient_profile": {"unique_id": "p1"}},
    ]
    for number, body in enumerate(bodies):
        await client.post(PATIENTS, json={"unique_id": f"p~{number}", **body})
        path = f"{PATIENT}/p.t{number}"
        read = checked(await client.get(path))
        assert checked(await client.put(path, json=read)) == (
            read if number else {**read, "meta": {**read["meta"], "versionId": "2", "lastUpdated": mock_any()}}
        )


class mock_any:  # noqa: N801  # it stands for a value
    """Equals everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


async def test_preferences_for_the_response(client: httpx.AsyncClient) -> None:
    """`Prefer: return=…` chooses the body of the response."""
    bodies = {}
    for preferred in ("minimal", "representation", "OperationOutcome"):
        response = await client.post(PATIENT, json=MINIMAL, headers={"Prefer": f"return={preferred}"})
        assert response.status_code == 201
        bodies[preferred] = response.json()["resourceType"] if response.content else None
    assert bodies == {"minimal": None, "representation": "Patient", "OperationOutcome": "OperationOutcome"}
    wrong = await client.post(PATIENT, json=MINIMAL, headers={"Prefer": "handling=loose"})
    assert refusals(wrong) == {"http.Prefer": "literal_error"}


async def test_the_id_in_the_body_is_that_of_the_path(client: httpx.AsyncClient) -> None:
    """An update needs the id in the body, and it must be the one in the path."""
    for body in (MINIMAL, {**MINIMAL, "id": "other"}):
        assert refusals(await client.put(f"{PATIENT}/pat1", json=body), 400) == {"": "invalid"}
    escape = await client.put(f"{PATIENT}/a.x", json={**MINIMAL, "id": "a.x"})
    assert refusals(escape, 400) == {"": "invalid"}
