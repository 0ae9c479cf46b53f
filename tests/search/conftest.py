"""Fixtures for tests of searching patients."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

PATIENTS = "/patients/patients/"
SEARCH = f"{PATIENTS}search/"

CreatePatients = Callable[..., Awaitable[None]]
SearchIds = Callable[[str], Awaitable[list[str]]]


@pytest.fixture
def create_patients(client: httpx.AsyncClient) -> CreatePatients:
    """Return a function that creates patients, each from its id and "First Last" or from all of its fields."""

    async def create(*bodies: dict[str, Any], **names: str) -> None:
        for unique_id, name in names.items():
            first, _, last = name.partition(" ")
            bodies += ({"unique_id": unique_id, "patient_first_name": first, "patient_last_name": last},)
        for body in bodies:
            response = await client.post(PATIENTS, json=body)
            assert response.status_code == 201, response.text

    return create


@pytest.fixture
def search_ids(client: httpx.AsyncClient) -> SearchIds:
    """Return a function that searches by GET and by POST, which must agree, and returns the found ids in order."""

    async def search(text: str) -> list[str]:
        response = await client.post(SEARCH, json={"search": text, "count": "exact"})
        assert response.status_code == 200, response.text
        by_query = await client.get(PATIENTS, params={"search": text, "count": "exact"})
        assert by_query.content == response.content
        ids = [record["unique_id"] for record in response.json()]
        assert response.headers["X-Total-Count"] == by_query.headers["X-Total-Count"] == str(len(ids))
        return ids

    return search
