"""Two FHIR clients that others have written do their work on a real server, without code for this service."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fhirclient import client as smart
from fhirclient.models.bundle import Bundle
from fhirclient.models.fhirabstractbase import FHIRAbstractBase
from fhirclient.models.humanname import HumanName
from fhirclient.models.parameters import Parameters
from fhirclient.models.patient import Patient
from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome, ResourceNotFound

from tests.processes import run_cli
from tests.support import ServiceProcess

CREDENTIALS = "Authorization"


@pytest.fixture(scope="module")
def served(module_serve: Callable[..., ServiceProcess], module_database_url: str) -> tuple[str, str]:
    """Return the address of the FHIR interface of a service with authentication, and an API key."""
    made = run_cli("keys", "create", "--name", "clients", "--scope", "admin", DATABASE_URL=module_database_url)
    url = module_serve(DATABASE_URL=module_database_url, PATIENTS_AUTH="required").url
    key = made.stdout.strip()
    people = [{"patient_first_name": "Ann", "patient_last_name": f"Mouse{n}"} for n in range(3)]
    for person in people:
        response = httpx.post(f"{url}/patients/patients/", json=person, headers={CREDENTIALS: f"Bearer {key}"})
        assert response.status_code == 201
    return f"{url}/fhir", key


async def test_fhirpy(served: tuple[str, str]) -> None:
    """The client fhirpy creates, reads, searches in pages, updates and matches patients, and lists a history."""
    url, key = served
    client = AsyncFHIRClient(url, authorization=f"Bearer {key}")
    patient = client.resource("Patient", name=[{"family": "Doe", "given": ["Jane"]}], gender="female")
    await patient.save()
    assert patient.id
    assert patient["meta"]["versionId"] == "1"
    read = await client.reference("Patient", patient.id).to_resource()
    assert read["name"][0]["family"] == "Doe"
    patient["birthDate"] = "1990-05-17"
    await patient.save()
    assert patient["meta"]["versionId"] == "2"
    found = await client.resources("Patient").search(family="doe", birthdate="ge1990").first()
    assert found is not None
    assert found.id == patient.id
    mice = await client.resources("Patient").search(family="mouse").limit(1).fetch_all()
    assert sorted(mouse["name"][0]["family"] for mouse in mice) == ["Mouse0", "Mouse1", "Mouse2"]
    counted = await client.resources("Patient").search(family="mouse", _summary="count").fetch_raw()
    assert counted["total"] == 3
    assert await client.resources("Patient").search(family="mouse").count() == 3
    assert await client.resources("Patient").search(family__contains="ous", given="ann").count() == 3
    history = await client.execute(f"Patient/{patient.id}/_history", method="get")
    assert [entry["resource"]["meta"]["versionId"] for entry in history["entry"]] == ["2", "1"]
    sent: dict[str, Any] = patient.serialize()  # type: ignore[no-untyped-call]
    person = {key: value for key, value in sent.items() if key not in {"id", "meta", "identifier"}}
    parameters = {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": person}]}
    matched = await client.execute("Patient/$match", method="post", data=parameters)
    assert matched["entry"][0]["resource"]["id"] == patient.id
    patient["maritalStatus"] = {"text": "single"}
    with pytest.raises(OperationOutcome) as refused:
        await patient.save()
    assert "Patient.maritalStatus" in str(refused.value)
    await patient.delete()  # type: ignore[no-untyped-call]
    with pytest.raises((ResourceNotFound, OperationOutcome)):
        await client.reference("Patient", patient.id).to_resource()


def use_fhirclient(url: str, key: str) -> None:
    settings = {"app_id": "test", "api_base": url}
    client = smart.FHIRClient(settings=settings)
    server: Any = client.server
    server.session.headers[CREDENTIALS] = f"Bearer {key}"
    assert server.capabilityStatement.fhirVersion == "4.0.1"
    patient = Patient()
    name = HumanName()
    name.family, name.given = "Roe", ["John", "James"]
    patient.name, patient.gender = [name], "male"
    created = patient.create(server)
    assert created["name"][0]["given"] == ["John", "James"]
    read = Patient.read(created["id"], server)
    assert read.gender == "male"
    read.gender = "other"
    assert read.update(server)["meta"]["versionId"] == "2"
    (found,) = Patient.where({"family": "roe", "gender": "other"}).perform_resources_iter(server)
    assert found.id == created["id"]
    mice = Patient.where({"family": "mouse", "_count": "1"}).perform_resources_iter(server)
    assert sorted(mouse.name[0].family for mouse in mice) == ["Mouse0", "Mouse1", "Mouse2"]
    counted = next(Patient.where({"family:contains": "OUSE", "_total": "accurate", "_count": "1"}).perform_iter(server))
    assert (counted.total, len(counted.entry)) == (3, 1)
    history: FHIRAbstractBase = Bundle(server.request_json(f"Patient/{found.id}/_history"))
    assert [entry.resource.meta.versionId for entry in history.entry] == ["2", "1"]
    person = {"resourceType": "Patient", "name": [{"family": "Roe", "given": ["John", "James"]}], "gender": "other"}
    parameters = Parameters({"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": person}]})
    response = server.post_json("Patient/$match", parameters.as_json())
    assert Bundle(response.json()).type == "searchset"
    assert read.delete(server) is None


async def test_fhirclient(served: tuple[str, str]) -> None:
    """The client fhirclient does the same as fhirpy, and parses all responses strictly."""
    await asyncio.to_thread(use_fhirclient, *served)
