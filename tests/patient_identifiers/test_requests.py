"""Identifiers in the bodies of requests and responses: `patient_identifiers` and `include=identifiers`."""

import asyncio
import re
from typing import Any

import asyncpg
import httpx
import pytest

from tests.patient_identifiers.support import INCLUDED, PATIENTS, ZA_ID, ZA_ID_STORED, register, values_of
from tests.support import EXAMPLE_PATIENT, GET_EXAMPLE

PASSPORT = {"type": "passport", "value": "A 123-456", "country": "na", "use": "official"}
PASSPORT_STORED = {"type": "passport", "value": "A 123-456", "country": "NA", "use": "official", "hospital_id": None}


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_identifiers_follow_the_keys_of_the_contract_only_if_included(client: httpx.AsyncClient) -> None:
    """Without `include`, no response has the identifiers; with it, they are the last key. The ETag is the same."""
    body = {**EXAMPLE_PATIENT, "unique_id": "pat123", "patient_identifiers": [ZA_ID, PASSPORT]}
    one = f"{PATIENTS}pat123/"
    created = await client.post(PATIENTS, json=body)
    responses = {
        "create": (created, await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "b"}, params=INCLUDED)),
        "get": (await client.get(one), await client.get(one, params=INCLUDED)),
        "put": (await client.put(one, json={}), await client.put(one, json={}, params=INCLUDED)),
        "patch": (await client.patch(one, json={}), await client.patch(one, json={}, params=INCLUDED)),
        "list": (await client.get(f"{PATIENTS}?limit=9"), await client.get(f"{PATIENTS}?limit=9", params=INCLUDED)),
    }
    for kind, (default, included) in responses.items():
        documents = [response.json()[-1] if kind == "list" else response.json() for response in (default, included)]
        assert [*documents[0]] == [*GET_EXAMPLE], kind
        assert [*documents[1]] == [*GET_EXAMPLE, "patient_identifiers"], kind
        assert documents[1]["patient_identifiers"] == ([] if kind == "create" else [PASSPORT_STORED, ZA_ID_STORED])
        if kind not in {"create", "list"}:
            assert default.headers["ETag"] == included.headers["ETag"]
            changed = await client.put(one, json={}, params=INCLUDED, headers={"If-Match": included.headers["ETag"]})
            assert changed.status_code == 200
    search = f"{PATIENTS}search/"
    for response in (
        await client.post(search, json={"search": "doe"}, params=INCLUDED),
        await client.post(search, json={"search": "doe", **INCLUDED}),
    ):
        assert [PASSPORT_STORED, ZA_ID_STORED] in [each["patient_identifiers"] for each in response.json()]
    assert "patient_identifiers" not in (await client.post(search, json={"search": "doe"})).text
    assert (await client.get(one, params={"include": "everything"})).status_code == 422
    selected = await client.get(one, params={**INCLUDED, "fields": "unique_id"})
    assert [*selected.json()] == ["unique_id", "patient_identifiers"]


async def test_a_list_replaces_all_identifiers_and_their_absence_changes_nothing(client: httpx.AsyncClient) -> None:
    """An equal list in another order changes nothing. `null` and an empty list remove all. Each change is a version."""
    await register(client, "a", ZA_ID, PASSPORT)
    one = f"{PATIENTS}a/"
    for body, values in (
        ({"patient_town": "Soweto"}, ["A 123-456", "800101 5009 087"]),
        ({"patient_identifiers": [PASSPORT, ZA_ID, ZA_ID]}, ["A 123-456", "800101 5009 087"]),
        ({"patient_identifiers": [ZA_ID]}, ["800101 5009 087"]),
        ({"patient_identifiers": None}, []),
        ({"patient_identifiers": [PASSPORT]}, ["A 123-456"]),
        ({"patient_identifiers": []}, []),
    ):
        assert (await client.patch(one, json=body)).status_code == 200
        assert await values_of(client, "a") == values
    history = (await client.get(f"{one}history/")).json()
    assert [entry["version"] for entry in history] == [6, 5, 4, 3, 2, 1]
    assert [*history[0]["changes"]] == ["patient_identifiers"]
    as_read = (await client.get(one, params=INCLUDED)).json()
    assert (await client.put(one, json=as_read, params=INCLUDED)).json() == as_read


@pytest.mark.parametrize(
    ("identifier", "field", "code"),
    [
        ({"type": "za_id", "value": "800101 5009 088"}, "value", "identifier_check_digit"),
        ({"type": "za_id", "value": "8001015009"}, "value", "identifier_form"),
        ({"type": "za_id", "value": "80010150O9087"}, "value", "identifier_form"),
        ({"type": "za_id", "value": "²²²²²²²²²²²²²"}, "value", "identifier_form"),
        ({"type": "other", "value": "- / -"}, "value", "identifier_form"),
        ({"type": "other", "value": " "}, "value", "string_blank"),
        ({"type": "other", "value": "x" * 101}, "value", "string_too_long"),
        ({"type": "other"}, "value", "missing"),
        ({"type": "zaid", "value": "1"}, "type", "identifier_type"),
        ({"type": "ZA ID", "value": "1"}, "type", "string_pattern_mismatch"),
        ({**ZA_ID, "country": "NA"}, "country", "identifier_country"),
        ({**ZA_ID, "country": "ZAF"}, "country", "country_code"),
        ({**ZA_ID, "use": "often"}, "use", "literal_error"),
        ({**ZA_ID, "hospital_id": "hos123"}, "hospital_id", "identifier_hospital"),
        ({"type": "folder", "value": "1"}, "hospital_id", "identifier_hospital"),
        ({"type": "folder", "value": "1", "hospital_id": "nowhere"}, "hospital_id", "unknown_hospital"),
        ({**ZA_ID, "colour": "red"}, "colour", "extra_forbidden"),
    ],
    ids=lambda value: str(value.get("value", "nothing"))[:14] if isinstance(value, dict) else value,
)
async def test_errors_are_at_their_places_and_nothing_is_stored(
    client: httpx.AsyncClient, connection: asyncpg.Connection, identifier: dict[str, Any], field: str, code: str
) -> None:
    """An invalid identifier is a 422 that names its place and does not repeat its value. Not even a word is learnt."""
    body = {"unique_id": "a", "patient_last_name": "Unheard", "patient_identifiers": [PASSPORT, identifier]}
    response = await client.post(PATIENTS, json=body)
    assert response.status_code == 422, response.text
    errors = response.json()["errors"]
    assert [(error["loc"], error["type"]) for error in errors] == [(["body", "patient_identifiers", 1, field], code)]
    assert not re.search(r"8001015009|²|x{9}", response.text)
    for table in ("patients", "patient_identifiers", "journal", "name_words"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0  # noqa: S608


async def test_errors_of_an_update_are_listed_together(client: httpx.AsyncClient) -> None:
    """Several wrong identifiers, and other errors in the body, are in one response."""
    await register(client, "a", ZA_ID)
    wrong = [{"type": "za_id", "value": "1"}, {"type": "folder", "value": "2"}]
    body = {"patient_last_name": None, "patient_identifiers": wrong}
    response = await client.put(f"{PATIENTS}a/", json=body)
    assert [error["loc"][1:] for error in response.json()["errors"]] == [
        ["patient_last_name"],
        ["patient_identifiers", 0, "value"],
        ["patient_identifiers", 1, "hospital_id"],
    ]
    assert await values_of(client, "a") == ["800101 5009 087"]
    too_many = {"patient_identifiers": [{"type": "other", "value": str(number)} for number in range(101)]}
    assert (await client.put(f"{PATIENTS}a/", json=too_many)).json()["errors"][0]["type"] == "too_long"


@pytest.mark.parametrize(
    ("born", "gender", "warnings"),
    [
        ("1980-01-01", "Male", []),
        (None, None, []),
        ("1880-01-01", "Other", []),
        ("1980-01-10", "Male", ["patient_date_of_birth"]),
        ("1980-01-01", "Female", ["patient_gender"]),
        ("1981-01-01", "F", ["patient_date_of_birth", "patient_gender"]),
    ],
)
async def test_disagreement_is_a_warning(
    client: httpx.AsyncClient, born: str | None, gender: str | None, warnings: list[str]
) -> None:
    """Another date of birth or gender than in the identity number is stored, and a header names the fields."""
    fields = {"patient_date_of_birth": born, "patient_gender": gender}
    body = {"unique_id": "a", "patient_last_name": "Doe", "patient_identifiers": [PASSPORT, ZA_ID], **fields}
    expected = ", ".join(f"patient_identifiers.1.value disagrees with {field}" for field in warnings) or None
    assert (await client.post(PATIENTS, json=body)).headers.get("Identifier-Warning") == expected
    change = {"patient_identifiers": [PASSPORT, {**ZA_ID, "use": "usual"}]}
    changed = await client.put(f"{PATIENTS}a/", json=change)
    assert changed.headers.get("Identifier-Warning") == expected
    assert changed.status_code == 200


@pytest.mark.parametrize("headers", [{}, {"If-Match": "*"}], ids=["shared statement", "transaction"])
async def test_a_change_that_disagrees_with_stored_identifiers_is_a_warning(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    """A change of the date of birth or the gender alone is compared with the identifiers that the patient has."""
    await register(client, "a", PASSPORT, ZA_ID)
    await register(client, "b")
    warnings = []
    for unique_id, change in (
        ("a", {"patient_date_of_birth": "1980-01-01"}),
        ("a", {"patient_date_of_birth": "1980-01-10"}),
        ("a", {"patient_gender": "F"}),
        ("a", {"patient_town": "Paarl"}),
        ("a", {"patient_date_of_birth": None, "patient_gender": "M"}),
        ("b", {"patient_date_of_birth": "1980-01-10", "patient_gender": "F"}),
    ):
        changed = await client.patch(f"{PATIENTS}{unique_id}/", json=change, headers=headers)
        assert changed.status_code == 200
        warnings.append(changed.headers.get("Identifier-Warning"))
    born, gender = (
        f"patient_identifiers.1.value disagrees with patient_{field}" for field in ("date_of_birth", "gender")
    )
    assert warnings == [None, born, f"{born}, {gender}", None, None, None]


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_an_identifier_can_be_of_one_patient_only(client: httpx.AsyncClient) -> None:
    """A taken identifier is a 409 at its place, however it is spelled. A folder number is unique in its hospital."""
    folder = {"type": "folder", "value": "ab/12"}
    await register(client, "a", ZA_ID, PASSPORT, folder, hospital_ids=["hos123"])
    medical_aid = {"type": "medical_aid", "value": "77"}
    await register(client, "b", {**folder, "hospital_id": "hos456"}, {**PASSPORT, "country": "BW"}, medical_aid)
    await register(client, "c", medical_aid)  # families share them
    again = [{"type": "za_id", "value": "8001015009087"}, medical_aid, {"type": "folder", "value": "AB 12"}]
    refused = await client.post(
        PATIENTS, json={"patient_last_name": "Roe", "patient_identifiers": again, "hospital_ids": ["hos123"]}
    )
    assert refused.status_code == 409
    assert [(error["loc"], error["type"]) for error in refused.json()["errors"]] == [
        (["body", "patient_identifiers", place, "value"], "patient_identifier_taken") for place in (0, 2)
    ]
    changed = await client.put(f"{PATIENTS}b/", json={"patient_identifiers": [ZA_ID], "patient_town": "Soweto"})
    assert changed.status_code == 409
    assert (await client.get(f"{PATIENTS}b/")).json()["patient_town"] is None
    assert (await client.delete("/hospitals/hospitals/hos456/")).status_code == 409
    assert (await client.put(f"{PATIENTS}a/", json={"patient_identifiers": []})).status_code == 200
    assert (await client.put(f"{PATIENTS}b/", json={"patient_identifiers": [ZA_ID]})).status_code == 200
    assert (await client.delete("/hospitals/hospitals/hos456/")).status_code == 204


async def test_of_concurrent_patients_with_one_identifier_one_is_stored(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """The unique index decides: the others are refused as if they had come later, and leave nothing."""

    async def create(number: int) -> httpx.Response:
        body = {"unique_id": f"p{number}", "patient_last_name": f"Name{number}", "patient_identifiers": [ZA_ID]}
        return await client.post(PATIENTS, json=body)

    responses = await asyncio.gather(*(create(number) for number in range(8)))
    assert sorted(response.status_code for response in responses) == [201, *[409] * 7]
    refused = next(response for response in responses if response.status_code == 409).json()
    assert [error["loc"] for error in refused["errors"]] == [["body", "patient_identifiers", 0, "value"]]
    for table in ("patients", "patient_identifiers", "journal", "name_words"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 1  # noqa: S608


async def test_idempotent_repetitions_have_the_same_response(client: httpx.AsyncClient) -> None:
    """A repetition has the identifiers if the first request had them. A key belongs to one `include`."""
    body = {"patient_last_name": "Doe", "patient_identifiers": [ZA_ID]}
    key = {"Idempotency-Key": "one"}
    first = await client.post(PATIENTS, json=body, params=INCLUDED, headers=key)
    again = await client.post(PATIENTS, json=body, params=INCLUDED, headers=key)
    assert (first.status_code, again.text) == (201, first.text)
    assert (await client.post(PATIENTS, json=body, headers=key)).status_code == 422
