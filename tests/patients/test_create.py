"""Creating patients, with their profiles and links."""

import asyncio
import re
import time
from typing import Any

import httpx
import pytest

from tests.support import EXAMPLE_PATIENT

PATIENTS = "/patients/patients/"
PROFILES = "/profiles/profiles/"
BASE32_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
READ_ONLY_FIELDS = ("patient_hospital", "patient_doctor", "date_created", "last_updated")


def error_locations(response: httpx.Response) -> list[list[str | int]]:
    """Return the locations of a 422's errors."""
    assert response.status_code == 422, response.text
    return [error["loc"] for error in response.json()["errors"]]


async def all_records(client: httpx.AsyncClient) -> list[Any]:
    """Return all records of the service."""
    responses = [await client.get(f"/{name}/{name}/") for name in ("patients", "profiles", "hospitals", "doctors")]
    assert [response.status_code for response in responses] == [200] * 4
    return [response.json() for response in responses]


@pytest.mark.parametrize("name", ["patient_first_name", "patient_last_name"])
async def test_one_name_is_enough_to_create_a_patient(client: httpx.AsyncClient, name: str) -> None:
    """A patient needs only one name; all other fields are null or empty, and both dates are the time of creation."""
    response = await client.post(PATIENTS, json={name: "Thandi"})
    assert response.status_code == 201
    created = response.json()
    set_fields = {"unique_id", name, "date_created", "last_updated"}
    assert {key: value for key, value in created.items() if key not in set_fields} == {
        "patient_profile": None,
        **dict.fromkeys(EXAMPLE_PATIENT.keys() - {"patient_profile", "hospital_ids", "doctor_ids"} - set_fields),
        "patient_hospital": [],
        "patient_doctor": [],
    }
    assert created[name] == "Thandi"
    assert created["date_created"] == created["last_updated"]
    assert response.headers["location"] == f"{PATIENTS}{created['unique_id']}/"
    assert (await client.get(response.headers["location"])).json() == created


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"patient_title": "Ms."},
        {"patient_first_name": None, "patient_last_name": None},
        {"patient_first_name": "", "patient_last_name": " \t\u2003"},
    ],
)
async def test_a_first_or_last_name_is_required(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """A body without a first or last name, or with only blanks in both, is a 422 that names both fields."""
    response = await client.post(PATIENTS, json=body)
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["msg"] == "Give a first name or a last name: a patient has at least one of them"
    assert (await client.get(PATIENTS)).json() == []


async def test_generated_ids_are_ordered_by_time(client: httpx.AsyncClient) -> None:
    """A generated id is `pat_` and 128 bits in lowercase base32, of which the first 48 are the current milliseconds."""
    before = time.time_ns() // 1_000_000
    unique_id = (await client.post(PATIENTS, json={"patient_last_name": "Doe"})).json()["unique_id"]
    after = time.time_ns() // 1_000_000
    assert re.fullmatch(f"pat_[0-7][{BASE32_ALPHABET}]{{25}}", unique_id)
    number = 0
    for character in unique_id.removeprefix("pat_"):
        number = number * 32 + BASE32_ALPHABET.index(character)
    assert before <= number >> 80 <= after


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_taken_id_is_a_conflict_and_writes_nothing(client: httpx.AsyncClient) -> None:
    """The id of another patient is a 409 that leaves this patient and all profiles unchanged."""
    await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "pat123"})
    before = await all_records(client)
    body = {"unique_id": "pat123", "patient_last_name": "Roe", "doctor_ids": ["doc456"]}
    for profile in ({"unique_id": "prof123", "first_name": "Jane"}, {"unique_id": "prof9"}, None):
        response = await client.post(PATIENTS, json={**body, "patient_profile": profile})
        assert response.status_code == 409
    assert await all_records(client) == before


async def test_concurrent_creates_with_one_id_succeed_once(client: httpx.AsyncClient) -> None:
    """Of concurrent requests that create one id, one succeeds and the others are 409."""
    body = {"unique_id": "pat123", "patient_last_name": "Doe"}
    responses = await asyncio.gather(*(client.post(PATIENTS, json=body) for _ in range(6)))
    assert sorted(response.status_code for response in responses) == [201, 409, 409, 409, 409, 409]


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_link_ids_are_deduplicated_and_sorted(client: httpx.AsyncClient) -> None:
    """Ids may repeat and come in any order; the response has each once, sorted by unique_id."""
    body = {"hospital_ids": ["hos789", "hos123", "hos789", "hos456"], "doctor_ids": ["doc456", "doc123", "doc456"]}
    created = (await client.post(PATIENTS, json={"patient_last_name": "Doe", **body})).json()
    assert [hospital["unique_id"] for hospital in created["patient_hospital"]] == ["hos123", "hos456", "hos789"]
    assert [doctor["unique_id"] for doctor in created["patient_doctor"]] == ["doc123", "doc456"]


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_all_unknown_hospitals_and_doctors_are_named(client: httpx.AsyncClient) -> None:
    """Every unknown hospital and doctor is named at its position, and nothing is written, not even the profile."""
    await client.post(PROFILES, json={"unique_id": "prof1", "first_name": "Jane"})
    before = await all_records(client)
    links = {"hospital_ids": ["hos123", "hos8", "hos9"], "doctor_ids": ["doc9", "doc123", "doc8"]}
    for profile in ({"unique_id": "prof1", "first_name": "John"}, {"unique_id": "prof2"}):
        body = {"patient_last_name": "Doe", "patient_profile": profile, **links}
        response = await client.post(PATIENTS, json=body)
        unknown = {"hospital_ids": {1: "hos8", 2: "hos9"}, "doctor_ids": {0: "doc9", 2: "doc8"}}
        expected = [["body", field, place] for field, ids in unknown.items() for place in ids]
        assert error_locations(response) == expected
        for error in response.json()["errors"]:
            assert unknown[error["loc"][1]][error["loc"][2]] in error["msg"]
    assert await all_records(client) == before


@pytest.mark.parametrize("field", ["hospital_ids", "doctor_ids"])
@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_link_ids_must_be_an_array_of_ids(client: httpx.AsyncClient, field: str) -> None:
    """Links are an array of ids: null, a single id and other types are refused, each at its position."""
    for value in (None, "hos123", {"hos123": True}, 1, True):
        response = await client.post(PATIENTS, json={"patient_last_name": "Doe", field: value})
        assert error_locations(response) == [["body", field]]
    for item in (None, 1, True, "", " ", "a b", "é", ["hos123"], {"unique_id": "hos123"}):
        response = await client.post(PATIENTS, json={"patient_last_name": "Doe", field: ["hos123", item]})
        assert [place[:3] for place in error_locations(response)] == [["body", field, 1]]
    assert (await client.get(PATIENTS)).json() == []


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_read_document_can_be_posted_as_a_copy(client: httpx.AsyncClient) -> None:
    """A copy of a document has its own id and dates. Its links must be set, because they are not copied in silence."""
    first = (await client.post(PATIENTS, json=EXAMPLE_PATIENT)).json()
    body = {key: value for key, value in first.items() if key != "unique_id"}
    body["date_created"] = "1999-01-01T00:00:00Z"
    links = {"hospital_ids": ["hos456", "hos123", "hos123"], "doctor_ids": ["doc123"]}
    for incomplete in ({}, {**links, "hospital_ids": ["hos789"]}, {**links, "hospital_ids": []}):
        response = await client.post(PATIENTS, json={**body, **incomplete})
        read_only = [["body", "patient_hospital"], ["body", "patient_doctor"]]
        assert error_locations(response) == (read_only[:1] if incomplete else read_only)
        assert "send hospital_ids" in response.json()["errors"][0]["msg"]
    without_links = await client.post(PATIENTS, json={**body, "patient_hospital": [], "patient_doctor": None})
    assert (without_links.json()["patient_hospital"], without_links.json()["patient_doctor"]) == ([], [])
    response = await client.post(PATIENTS, json={**body, **links})
    assert response.status_code == 201
    second = response.json()
    assert {**second, **{key: first[key] for key in ("unique_id", *READ_ONLY_FIELDS)}} == first
    assert second["unique_id"] != first["unique_id"]
    assert [second[field] for field in READ_ONLY_FIELDS[:2]] == [first[field] for field in READ_ONLY_FIELDS[:2]]
    assert second["date_created"] > first["date_created"]


async def test_unknown_keys_are_refused(client: httpx.AsyncClient) -> None:
    """A mistyped field, at the top or in the profile, is a 422 at its position, and nothing is written."""
    body = {"patient_last_name": "Doe", "patient_firstname": "John", "patient_profile": {"unique_id": "p1", "mail": ""}}
    response = await client.post(PATIENTS, json=body)
    assert sorted(error_locations(response)) == [["body", "patient_firstname"], ["body", "patient_profile", "mail"]]
    assert await all_records(client) == [[], [], [], []]


async def test_field_profile_and_link_errors_are_reported_together(client: httpx.AsyncClient) -> None:
    """Errors of fields, of the profile and of links are reported together."""
    body = {
        "patient_last_name": 1,
        "patient_first_name": "John",
        "patient_email_address": "nowhere",
        "patient_date_of_birth": "yesterday",
        "patient_latitude": 91,
        "patient_profile": {"email": "nowhere"},
        "hospital_ids": ["hos123", None],
        "doctor_ids": None,
    }
    expected: list[list[str | int]]
    expected = [["body", key] for key in body if key not in {"patient_first_name", "patient_profile", "hospital_ids"}]
    expected += [["body", "patient_profile", key] for key in ("unique_id", "email")]
    expected += [["body", "hospital_ids", 1]]
    assert sorted(error_locations(await client.post(PATIENTS, json=body)), key=str) == sorted(expected, key=str)


async def test_missing_name_is_reported_with_the_other_errors(client: httpx.AsyncClient) -> None:
    """A missing name is reported together with the errors of other fields, not after they are fixed."""
    response = await client.post(PATIENTS, json={"patient_email_address": "nowhere"})
    assert ["body", "patient_email_address"] in error_locations(response)
    assert "Give a first name or a last name" in response.text


async def test_nested_profile_needs_a_unique_id(client: httpx.AsyncClient) -> None:
    """A profile without a valid unique_id, or that is not an object, is a 422 at its position."""
    wrong_ids: list[Any] = [{}, {"email": "a@b.c"}, {"unique_id": None}, {"unique_id": ""}, {"unique_id": "a b"}]
    for profile in wrong_ids:
        response = await client.post(PATIENTS, json={"patient_last_name": "Doe", "patient_profile": profile})
        assert error_locations(response) == [["body", "patient_profile", "unique_id"]]
    others: list[Any] = ["prof123", 1, ["prof123"], True]
    for wrong in others:
        response = await client.post(PATIENTS, json={"patient_last_name": "Doe", "patient_profile": wrong})
        assert error_locations(response) == [["body", "patient_profile"]]
    assert (await client.get(PROFILES)).json() == []


async def test_nested_profile_is_created_or_updated(client: httpx.AsyncClient) -> None:
    """An unknown profile is created; in a known one sent fields overwrite and others stay; patients may share it."""
    full = {"unique_id": "prof1", "email": "a@b.c", "first_name": "Ann", "last_name": "Bee"}
    changes: list[dict[str, Any]] = [full, {}, {"first_name": "Eve"}, {"email": None, "last_name": None}]
    expected = dict(full)
    for change in changes:
        nested = {"unique_id": "prof1", **change}
        expected |= change
        created = (await client.post(PATIENTS, json={"patient_last_name": "Doe", "patient_profile": nested})).json()
        assert created["patient_profile"] == expected
        profile = (await client.get(f"{PROFILES}prof1/")).json()
        assert {key: profile[key] for key in full} == expected
    patients = (await client.get(PATIENTS)).json()
    assert [patient["patient_profile"] for patient in patients] == [expected] * 4
    assert len((await client.get(PROFILES)).json()) == 1


@pytest.mark.parametrize("exists", [False, True])
async def test_concurrent_upserts_of_one_profile_all_succeed(client: httpx.AsyncClient, *, exists: bool) -> None:
    """Concurrent requests that upsert one profile all succeed."""
    if exists:
        await client.post(PROFILES, json={"unique_id": "prof1"})
    names = [f"Name{number}" for number in range(8)]
    profiles = [{"unique_id": "prof1", "first_name": name} for name in names]
    bodies = [{"patient_last_name": "Doe", "patient_profile": profile} for profile in profiles]
    responses = await asyncio.gather(*(client.post(PATIENTS, json=body) for body in bodies))
    assert [response.status_code for response in responses] == [201] * 8
    (profile,) = (await client.get(PROFILES)).json()
    assert profile["first_name"] in names


async def test_deleted_ids_cannot_be_reused(client: httpx.AsyncClient) -> None:
    """The id of a deleted patient, or of a deleted profile in a patient, is a 409, and nothing is written."""
    body = {"unique_id": "pat1", "patient_last_name": "Doe", "patient_profile": {"unique_id": "prof1"}}
    for path, unique_id in ((PATIENTS, "pat1"), (PROFILES, "prof1")):
        if path == PATIENTS:
            assert (await client.post(PATIENTS, json=body)).status_code == 201
        assert (await client.delete(f"{path}{unique_id}/")).status_code == 204
    before = await all_records(client)
    for again in ({**body, "patient_profile": None}, {**body, "unique_id": "pat2"}, body):
        assert (await client.post(PATIENTS, json=again)).status_code == 409
    assert await all_records(client) == before
