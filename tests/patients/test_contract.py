"""The contract's examples, word for word."""

from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import pytest

from tests.support import EXAMPLE_PATIENT, GET_EXAMPLE, PUT_EXAMPLE, PUT_RESPONSE

pytestmark = pytest.mark.usefixtures("hospitals_and_doctors")
WITH_EXAMPLE_PATIENT = pytest.mark.usefixtures("hospitals_and_doctors", "_patient")

PATIENTS = "/patients/patients/"


@pytest.fixture
async def _patient(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Create the patient of the contract's GET example with its POST example, at the example's time."""
    body = {**EXAMPLE_PATIENT, "unique_id": "pat123", "hospital_ids": ["hos123"]}
    assert (await client.post(PATIENTS, json=body)).status_code == 201
    noon = datetime(2023, 1, 1, 12, tzinfo=UTC)
    await connection.execute("UPDATE patients SET date_created = $1, last_updated = $1", noon)


def ordered_items(document: dict[str, Any]) -> list[Any]:
    """Return the document in a form that compares the order of its keys too, also of nested ones."""
    return [(key, list(value.items()) if isinstance(value, dict) else value) for key, value in document.items()]


async def test_create_response_matches_the_contract(client: httpx.AsyncClient) -> None:
    """POST of the contract's example returns its example response, with both hospitals."""
    response = await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "pat123"})
    assert response.status_code == 201
    created = response.json()
    expected = {
        **GET_EXAMPLE,
        "patient_hospital": [*GET_EXAMPLE["patient_hospital"], {"unique_id": "hos456", "hospital_name": "St. Mary's"}],
        "date_created": created["date_created"],
        "last_updated": created["date_created"],
    }
    assert ordered_items(created) == ordered_items(expected)


async def test_create_without_unique_id_generates_one(client: httpx.AsyncClient) -> None:
    """POST of the example as it is, without a unique_id, returns a generated one, which GET finds."""
    created = (await client.post(PATIENTS, json=EXAMPLE_PATIENT)).json()
    assert (await client.get(f"{PATIENTS}{created['unique_id']}/")).json() == created


@WITH_EXAMPLE_PATIENT
async def test_get_response_matches_the_contract(client: httpx.AsyncClient) -> None:
    """GET returns the contract's example: its keys, in its order, with its values."""
    response = await client.get(f"{PATIENTS}pat123/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert ordered_items(response.json()) == ordered_items(GET_EXAMPLE)


@WITH_EXAMPLE_PATIENT
async def test_list_response_matches_the_contract(client: httpx.AsyncClient) -> None:
    """The list is a bare array with the same document."""
    response = await client.get(PATIENTS)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == [GET_EXAMPLE]
    assert ordered_items(response.json()[0]) == ordered_items(GET_EXAMPLE)


@WITH_EXAMPLE_PATIENT
async def test_put_response_matches_the_contract(client: httpx.AsyncClient) -> None:
    """PUT of the contract's five fields changes only these, and GET then returns the same document."""
    response = await client.put(f"{PATIENTS}pat123/", json=PUT_EXAMPLE)
    assert response.status_code == 200
    expected = {**PUT_RESPONSE, "last_updated": response.json()["last_updated"]}
    assert ordered_items(response.json()) == ordered_items(expected)
    assert response.json()["last_updated"] > GET_EXAMPLE["last_updated"]
    assert (await client.get(f"{PATIENTS}pat123/")).json() == response.json()


@WITH_EXAMPLE_PATIENT
async def test_delete_response_matches_the_contract(client: httpx.AsyncClient) -> None:
    """DELETE returns 204 without a body; then the patient is a 404 and in no list."""
    response = await client.delete(f"{PATIENTS}pat123/")
    assert (response.status_code, response.content) == (204, b"")
    assert (await client.get(f"{PATIENTS}pat123/")).status_code == 404
    assert (await client.delete(f"{PATIENTS}pat123/")).status_code == 404
    assert (await client.get(PATIENTS)).json() == []
