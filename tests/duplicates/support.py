"""Patients that resemble each other, for tests of matching."""

from typing import Any

import httpx

PATIENTS = "/patients/patients/"
MATCH = f"{PATIENTS}match/"
DUPLICATES = "/patients/duplicates/"

THANDI: dict[str, Any] = {
    "patient_first_name": "Thandiwe",
    "patient_last_name": "Mthembu",
    "patient_date_of_birth": "1984-03-17",
    "patient_gender": "Female",
    "patient_mobile_number": "+27 82 345 6789",
    "patient_physical_address": "12 Vilakazi Street",
    "patient_town": "Soweto",
    "patient_postal_code": "1804",
}
AGAIN: dict[str, Any] = {**THANDI, "patient_first_name": "Thandi", "patient_last_name": "Mtembu"}
"""The same person, registered by a short form of the first name and with a typing error."""
TWIN: dict[str, Any] = {**THANDI, "patient_first_name": "Nomvula"}
NAMESAKE: dict[str, Any] = {
    "patient_first_name": "Thandiwe",
    "patient_last_name": "Mthembu",
    "patient_date_of_birth": "1951-11-30",
    "patient_town": "Durban",
}


async def register(client: httpx.AsyncClient, unique_id: str | None = None, /, **fields: Any) -> str:
    """Create a patient and return its id."""
    body = {**fields, **({"unique_id": unique_id} if unique_id else {})}
    response = await client.post(PATIENTS, json=body)
    assert response.status_code == 201, response.text
    return str(response.json()["unique_id"])


async def queue(client: httpx.AsyncClient, **parameters: Any) -> list[dict[str, Any]]:
    """Return the pairs of the queue."""
    response = await client.get(DUPLICATES, params=parameters)
    assert response.status_code == 200, response.text
    entries: list[dict[str, Any]] = response.json()
    return entries
