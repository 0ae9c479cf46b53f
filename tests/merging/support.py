"""Helpers for tests of merging."""

from typing import Any

import httpx

PATIENTS = "/patients/patients/"


async def create(client: httpx.AsyncClient, unique_id: str, **fields: Any) -> dict[str, Any]:
    """Create a patient called Doe with these fields, and return it."""
    response = await client.post(PATIENTS, json={"unique_id": unique_id, "patient_last_name": "Doe", **fields})
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


async def change(client: httpx.AsyncClient, unique_id: str, **fields: Any) -> None:
    """Change fields of a patient."""
    assert (await client.patch(f"{PATIENTS}{unique_id}/", json=fields)).status_code == 200


async def read(client: httpx.AsyncClient, unique_id: str) -> dict[str, Any]:
    """Return a patient."""
    response = await client.get(f"{PATIENTS}{unique_id}/")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def merge(client: httpx.AsyncClient, survivor: str, loser: str, **body: Any) -> httpx.Response:
    """Send a request to merge two patients."""
    return await client.post(f"{PATIENTS}{survivor}/merge/", json={"from": loser, **body})


async def unmerge(client: httpx.AsyncClient, loser: str, **body: Any) -> httpx.Response:
    """Send a request to undo a merge."""
    return await client.post(f"{PATIENTS}{loser}/unmerge/", json=body)


async def merged(client: httpx.AsyncClient, survivor: str, loser: str, **body: Any) -> dict[str, Any]:
    """Merge two patients, and return the survivor."""
    response = await merge(client, survivor, loser, **body)
    assert response.status_code == 200, response.text
    outcome: dict[str, Any] = response.json()
    return outcome


async def unmerged(client: httpx.AsyncClient, loser: str, **body: Any) -> dict[str, Any]:
    """Undo a merge, and return the response."""
    response = await unmerge(client, loser, **body)
    assert response.status_code == 200, response.text
    outcome: dict[str, Any] = response.json()
    return outcome


def linked(patient: dict[str, Any], name: str = "hospital") -> list[str]:
    """Return the ids of a patient's hospitals or doctors."""
    return [link["unique_id"] for link in patient[f"patient_{name}"]]


def without_times(patient: dict[str, Any]) -> dict[str, Any]:
    """Return a patient without the time of its last change."""
    return {name: value for name, value in patient.items() if name != "last_updated"}
