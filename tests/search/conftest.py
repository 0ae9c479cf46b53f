"""What tests of finding patients share."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

PATIENTS = "/patients/patients/"
SEARCH = f"{PATIENTS}search/"

Register = Callable[..., Awaitable[None]]
Find = Callable[[str], Awaitable[list[str]]]


@pytest.fixture
def register(client: httpx.AsyncClient) -> Register:
    """Creates patients, each given by its id and "First Last", or by all of its fields."""

    async def create(*bodies: dict[str, Any], **names: str) -> None:
        for unique_id, name in names.items():
            first, _, last = name.partition(" ")
            bodies += ({"unique_id": unique_id, "patient_first_name": first, "patient_last_name": last},)
        for body in bodies:
            answer = await client.post(PATIENTS, json=body)
            assert answer.status_code == 201, answer.text

    return create


@pytest.fixture
def find(client: httpx.AsyncClient) -> Find:
    """Searches, by both ways, which answer the same; the ids that are found, in their order."""

    async def search(text: str) -> list[str]:
        answer = await client.post(SEARCH, json={"search": text, "count": "exact"})
        assert answer.status_code == 200, answer.text
        by_query = await client.get(PATIENTS, params={"search": text, "count": "exact"})
        assert by_query.content == answer.content
        found = [record["unique_id"] for record in answer.json()]
        assert answer.headers["X-Total-Count"] == by_query.headers["X-Total-Count"] == str(len(found))
        return found

    return search
