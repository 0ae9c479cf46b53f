"""Identifiers of merged patients: united, found, and given back, although no two patients can have the same."""

import asyncpg
import httpx
import pytest

from tests.journal.test_erasure import database_text
from tests.merging.support import PATIENTS, change, merge, merged, unmerge, unmerged
from tests.merging.test_erasure import erase, verify
from tests.patient_identifiers.support import INCLUDED, ZA_ID, ZA_ID_STORED, register, values_of

pytestmark = pytest.mark.usefixtures("hospitals_and_doctors")
PASSPORT = {"type": "passport", "value": "A 123 456", "country": "ZW"}
FOLDER = {"type": "folder", "value": "GH/47", "hospital_id": "hos123"}
OTHER = {"type": "other", "value": "77"}


async def found_by(client: httpx.AsyncClient, text: str) -> list[str]:
    """Return the ids of the patients that a search finds."""
    response = await client.post(f"{PATIENTS}search/", json={"search": text})
    return [patient["unique_id"] for patient in response.json()]


async def test_identifiers_are_united_and_given_back(client: httpx.AsyncClient, database_url: str) -> None:
    """The survivor has the identifiers of both and is found by them; after the merge is undone, each has its own."""
    await register(client, "one", PASSPORT, OTHER, patient_last_name="Roe")
    await register(client, "two", ZA_ID, FOLDER, OTHER, hospital_ids=["hos123"], patient_last_name="Poe")
    tried = await client.post(f"{PATIENTS}one/merge/", json={"from": "two", "dry_run": True}, params=INCLUDED)
    outcome = await client.post(f"{PATIENTS}one/merge/", json={"from": "two"}, params=INCLUDED)
    assert [each["value"] for each in outcome.json()["patient_identifiers"]] == [
        "GH/47",
        "77",
        "A 123 456",
        ZA_ID["value"],
    ]
    assert tried.json()["patient_identifiers"] == outcome.json()["patient_identifiers"]
    assert await found_by(client, "8001015009087") == ["one"]
    refused = await client.post(PATIENTS, json={"patient_last_name": "Doe", "patient_identifiers": [ZA_ID]})
    assert refused.status_code == 409
    assert (await unmerged(client, "two"))["kept"] == []
    assert await values_of(client, "one") == ["77", "A 123 456"]
    assert await values_of(client, "two") == ["GH/47", "77", ZA_ID["value"]]
    assert await found_by(client, "8001015009087") == ["two"]
    await verify(database_url)


async def test_identifiers_go_back_whoever_has_edited_them(client: httpx.AsyncClient) -> None:
    """Identifiers that were removed, changed or added since are neither lost nor doubled when a merge is undone."""
    await register(client, "one", PASSPORT)
    await register(client, "two", ZA_ID, OTHER)
    await merged(client, "one", "two")
    await change(
        client, "one", patient_identifiers=[PASSPORT, {**ZA_ID, "use": "old"}, {"type": "other", "value": "99"}]
    )
    assert (await unmerged(client, "two"))["kept"] == []
    assert await values_of(client, "one") == ["99", "A 123 456"]
    two = (await client.get(f"{PATIENTS}two/", params=INCLUDED)).json()["patient_identifiers"]
    assert two == [{**OTHER, "country": None, "use": None, "hospital_id": None}, ZA_ID_STORED]


async def test_identifier_of_a_third_patient_is_named(client: httpx.AsyncClient) -> None:
    """If another patient has got an identifier of the merged one since, undoing is a 409 and changes nothing."""
    await register(client, "one")
    await register(client, "two", ZA_ID)
    await merged(client, "one", "two")
    await change(client, "one", patient_identifiers=[])
    await register(client, "three", ZA_ID)
    refused = await unmerge(client, "two")
    assert (refused.status_code, refused.json()["errors"][0]["type"]) == (409, "patient_identifier_taken")
    assert (await client.get(f"{PATIENTS}two/")).status_code == 410
    assert (await merge(client, "three", "one")).status_code == 200


async def test_choice_of_identifiers_is_refused(client: httpx.AsyncClient) -> None:
    """Identifiers are always united, so they cannot be chosen."""
    await register(client, "one")
    await register(client, "two", ZA_ID)
    refused = await merge(client, "one", "two", choose={"patient_identifiers": "survivor"})
    assert (refused.status_code, refused.json()["errors"][0]["type"]) == (422, "extra_forbidden")


async def test_erased_identifiers_leave_the_history_of_a_former_survivor(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str
) -> None:
    """An erased patient's identifiers and hospitals are in no entry of a patient with which it was merged once."""
    await register(client, "one", PASSPORT, hospital_ids=["hos456"])
    marker = {"type": "other", "value": "marker"}
    await register(client, "marker", marker, hospital_ids=["hos123"])
    await merged(client, "one", "marker")
    await change(client, "one", patient_identifiers=[PASSPORT, marker, OTHER])
    await unmerged(client, "marker")
    assert (await erase(database_url, "marker")).returncode == 0
    assert "marker" not in await database_text(connection)
    await verify(database_url)
    records = [entry["record"] for entry in (await client.get(f"{PATIENTS}one/history/")).json()]
    assert [record["hospital_ids"] for record in records] == [["hos456"]] * 4
    values = [[each["value"] for each in record["patient_identifiers"]] for record in records]
    assert values == [["77", "A 123 456"], ["77", "A 123 456"], ["A 123 456"], ["A 123 456"]]
