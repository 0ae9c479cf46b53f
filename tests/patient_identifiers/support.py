"""Patients with identifiers."""

from typing import Any

import httpx

PATIENTS = "/patients/patients/"
INCLUDED = {"include": "identifiers"}
ZA_ID = {"type": "za_id", "value": "800101 5009 087"}
"""A valid identity number of a man who was born on 1 January 1980."""
ZA_ID_STORED = {"type": "za_id", "value": "800101 5009 087", "country": "ZA", "use": None, "hospital_id": None}
"""The same in a response."""


async def register(client: httpx.AsyncClient, unique_id: str, *identifiers: Any, **fields: Any) -> dict[str, Any]:
    """Create a patient with identifiers, and return the response with the identifiers."""
    body = {"unique_id": unique_id, "patient_last_name": "Doe", "patient_identifiers": list(identifiers), **fields}
    response = await client.post(PATIENTS, json=body, params=INCLUDED)
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


async def values_of(client: httpx.AsyncClient, unique_id: str) -> list[str]:
    """Return the values of the identifiers of a patient."""
    response = await client.get(f"{PATIENTS}{unique_id}/", params=INCLUDED)
    assert response.status_code == 200, response.text
    return [identifier["value"] for identifier in response.json()["patient_identifiers"]]
