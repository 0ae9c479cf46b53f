"""Patients are found by their identifiers: in the search box, and with the filter of a search."""

from typing import Any

import httpx
import pytest

from tests.hospital_scope.conftest import ScopedClients
from tests.patient_identifiers.support import PATIENTS, ZA_ID, register

SEARCH = f"{PATIENTS}search/"


async def found_ids(client: httpx.AsyncClient, **parameters: Any) -> list[str]:
    response = await client.post(SEARCH, json=parameters)
    assert response.status_code == 200, response.text
    return [patient["unique_id"] for patient in response.json()]


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_a_typed_identifier_finds_its_patient(client: httpx.AsyncClient) -> None:
    """Case, spaces and punctuation do not matter, and neither does a name or a label beside it."""
    folder = {"type": "folder", "value": "GH/47-11b", "hospital_id": "hos123"}
    await register(client, "one", ZA_ID, folder, {"type": "passport", "value": "A 123 456"}, patient_first_name="Jane")
    for number in range(12):  # so that no others follow
        await register(client, f"other{number}", {"type": "other", "value": f"{number}"}, patient_last_name="Roe")
    for typed in (
        "8001015009087",
        "800101 5009 087",
        "800101-5009-08-7",
        "ID: 800101 5009 087",
        "doe 8001015009087",
        "8001015009087 Jane Doe",
        "gh/47-11B",
        "GH 4711 b",
        "gh4711b",
        "a123456",
        "A-123-456",
    ):
        response = await client.post(SEARCH, json={"search": typed, "limit": 1})
        assert [patient["unique_id"] for patient in response.json()] == ["one"], typed
        assert response.headers["Search-Agreement"] == "full", typed
    assert await found_ids(client, search="8001015009088", limit=1) != ["one"]


async def test_the_filter_takes_values_types_and_countries(client: httpx.AsyncClient) -> None:
    """A patient needs one of several identifiers, and all other conditions. The filter is in bodies only."""
    await register(client, "a", ZA_ID, patient_gender="Male")
    await register(client, "b", {"type": "passport", "value": "8001015009087", "country": "NA"})
    await register(client, "c", {"type": "passport", "value": "x-77"})
    for identifier, ids in (
        ("800101 5009 087", ["a", "b"]),
        ({"value": "8001015009087"}, ["a", "b"]),
        ({"value": "8001015009087", "type": "za_id"}, ["a"]),
        ({"value": "8001015009087", "country": "na"}, ["b"]),
        ({"value": "8001015009087", "type": "za_id", "country": "NA"}, []),
        (["X77", {"value": "8001015009087", "type": "za_id"}], ["a", "c"]),
        ("8001015009086", []),
        ("--", []),
    ):
        assert await found_ids(client, patient_identifier=identifier) == ids, identifier
    assert await found_ids(client, patient_identifier="8001015009087", patient_gender="Male") == ["a"]
    counted = await client.post(SEARCH, json={"patient_identifier": "8001015009087", "count": "exact", "limit": 1})
    assert counted.headers["X-Total-Count"] == "2"
    following = await client.post(SEARCH, json={"cursor": counted.headers["Next-Cursor"], "limit": 1})
    assert [patient["unique_id"] for patient in following.json()] == ["b"]
    for wrong in ("", {"type": "za_id"}, {"value": "1", "colour": "red"}, 1):
        assert (await client.post(SEARCH, json={"patient_identifier": wrong})).status_code == 422
    assert (await client.get(PATIENTS, params={"patient_identifier": "8001015009087"})).status_code == 422


async def test_restricted_principals_find_their_patients_only(scoped_clients: ScopedClients) -> None:
    """An identifier of a patient of other hospitals finds nobody, in the search box as well as with the filter."""
    await register(scoped_clients.free, "at-b", ZA_ID, hospital_ids=["hosB"], patient_last_name="Xhosa")
    for parameters in ({"search": "8001015009087"}, {"patient_identifier": "8001015009087"}):
        assert await found_ids(scoped_clients.a, **parameters) == []
        assert await found_ids(scoped_clients.b, **parameters) == ["at-b"]
        assert await found_ids(scoped_clients.free, **parameters) == ["at-b"]
