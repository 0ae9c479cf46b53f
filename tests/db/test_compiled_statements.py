"""Statements are compiled by SQLAlchemy once, because that takes longer than most requests."""

from itertools import combinations

import httpx
import pytest
from sqlalchemy import Executable, bindparam, column, select

from app.db import connection as connection_module
from app.db.connection import CompiledStatement, compile_statement
from tests.support import EXAMPLE_PATIENT

PATIENTS = "/patients/patients/"


@pytest.fixture
def compiled_texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the texts of the statements that were compiled so far."""
    texts: list[str] = []

    class RecordingStatement(CompiledStatement):
        def __init__(self, statement: Executable) -> None:
            super().__init__(statement)
            texts.append(self.text)

    monkeypatch.setattr(connection_module, "CompiledStatement", RecordingStatement)
    return texts


async def send_every_kind_of_request(client: httpx.AsyncClient, number: int) -> None:
    """Create, read, find, change, delete and restore a patient. All values depend on the number."""
    unique_id = f"once-{number}"
    body = {**EXAMPLE_PATIENT, "unique_id": unique_id, "patient_last_name": f"Name {number}"}
    key = {"Idempotency-Key": f"key-{number}"}
    created = await client.post(PATIENTS, json=body, headers=key)
    assert created.status_code == 201, created.text
    assert (await client.post(PATIENTS, json=body, headers=key)).text == created.text
    one = f"{PATIENTS}{unique_id}/"
    assert (await client.put(one, json={"patient_town": f"Town {number}"})).status_code == 200
    # compared in the background, too
    assert (await client.post(PATIENTS, json={**body, "unique_id": f"twice-{number}"})).status_code == 201
    assert (await client.get("/patients/duplicates/?status=open")).json()
    identifiers = [{"type": "other", "value": f"{number}"}, {"type": "folder", "value": "1", "hospital_id": "hos123"}]
    included = {"include": "identifiers"}
    identified = await client.put(one, json={"patient_identifiers": identifiers}, params=included)
    assert identified.status_code == 200, identified.text
    found = await client.post(f"{PATIENTS}search/", json={"patient_identifier": f"{number}", **included})
    assert [patient["unique_id"] for patient in found.json()] == [unique_id]
    assert (await client.get(one, params=included)).status_code == 200
    change = {"patient_race": f"Race {number}", "hospital_ids": ["hos789"]}
    changed = await client.patch(one, json=change, headers={"If-Match": (await client.get(one)).headers["ETag"]})
    assert changed.status_code == 200, changed.text
    for path in (
        f"{PATIENTS}?limit={number + 2}",
        f"{PATIENTS}?patient_town=Town {number}&patient_last_name__startswith=N&ordering=-last_updated",
        f"{PATIENTS}?patient_mobile_number=08{number}1234567&count=exact",
        f"{one}history/?limit={number + 2}",
        f"{one}history/1/",
        f"{one}access/?limit={number + 2}",
        f"/audit/?patient={unique_id}&principal=principal-{number}&time__gte=2026-01-0{number + 1}T00:00:00Z",
    ):
        assert (await client.get(path)).status_code == 200, path
    assert (await client.delete(one)).status_code == 204
    assert (await client.post(f"{one}restore/", json={"version": 1})).status_code == 200
    assert (await client.delete("/hospitals/hospitals/hos123/")).status_code == 409


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_requests_with_other_values_compile_no_statement(
    client: httpx.AsyncClient, compiled_texts: list[str]
) -> None:
    """Requests like earlier ones but with other values, also in number and length, reuse the compiled statements."""
    await send_every_kind_of_request(client, 0)
    assert compiled_texts
    compiled_texts.clear()
    await send_every_kind_of_request(client, 1)
    assert compiled_texts == []


async def test_forty_shapes_are_compiled_once(client: httpx.AsyncClient, compiled_texts: list[str]) -> None:
    """Searches that combine filters in forty ways find their statements compiled when they come again."""
    names = [f"patient_{name}" for name in ("town", "region", "country", "race", "gender", "last_name")]
    shapes = [shape for count in range(1, len(names)) for shape in combinations(names, count)][:40]
    for _ in range(2):
        compiled_texts.clear()
        for shape in shapes:
            response = await client.post(f"{PATIENTS}search/", json=dict.fromkeys(shape, "Male"))
            assert response.status_code == 200, response.text
    assert [text for text in compiled_texts if "patient_last_name" in text] == []


async def send_every_kind_of_fhir_request(client: httpx.AsyncClient, number: int) -> None:
    """Create, find, read, change and match a patient as a FHIR resource. All values depend on the number."""
    unique_id = f"fhir-{number}"
    assert (await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": unique_id})).status_code == 201
    resource = (await client.get(f"/fhir/Patient/{unique_id}")).json()
    resource = {**resource, "birthDate": f"198{number}-01-01"}
    for path in (
        f"/fhir/Patient?_count={number + 2}",
        f"/fhir/Patient?family=Name {number}&birthdate=ge198{number}&_sort=-family&_total=accurate",
        f"/fhir/Patient?identifier=80010{number}&phonetic=name&family:contains=na{number}&_total=estimate",
        f"/fhir/Patient/{unique_id}/_history?_count={number + 2}",
    ):
        assert (await client.get(path)).status_code == 200, path
    assert (await client.put(f"/fhir/Patient/{unique_id}", json=resource)).status_code == 200
    parameters = {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": resource}]}
    assert (await client.post("/fhir/Patient/$match", json=parameters)).status_code == 200


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_fhir_requests_with_other_values_compile_no_statement(
    client: httpx.AsyncClient, compiled_texts: list[str]
) -> None:
    """The same holds for FHIR resources."""
    await send_every_kind_of_fhir_request(client, 0)
    assert compiled_texts
    compiled_texts.clear()
    await send_every_kind_of_fhir_request(client, 1)
    assert [text for text in compiled_texts if "webhooks" not in text] == [], "the background task may begin meanwhile"


def test_a_list_of_values_is_refused() -> None:
    """A statement whose text depends on the length of a list is an error, which says how to write it instead."""
    with pytest.raises(ValueError, match="Use `any_`"):
        compile_statement(select(column("a")).where(column("a").in_(bindparam("ids", expanding=True))))
