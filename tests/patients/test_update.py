"""Changing and deleting patients, with their profiles and links."""

import asyncio
from datetime import UTC, datetime
from itertools import product
from typing import Any

import asyncpg
import httpx
import pytest

from tests.support import EXAMPLE_PATIENT

pytestmark = pytest.mark.usefixtures("hospitals_and_doctors", "_patient")

PATIENTS = "/patients/patients/"
PROFILES = "/profiles/profiles/"
PATIENT_PATH = f"{PATIENTS}pat123/"
NULLABLE_FIELDS = EXAMPLE_PATIENT.keys() - {"patient_last_name", "hospital_ids", "doctor_ids"}
UPDATE_METHODS = pytest.mark.parametrize("method", ["PUT", "PATCH"])
SELECT_ROW_VERSIONS = """
    SELECT array_agg(row ORDER BY row) FROM (
        SELECT xmin::text || unique_id AS row FROM patients
        UNION ALL SELECT xmin::text || unique_id FROM profiles
        UNION ALL SELECT xmin::text || patient_id || hospital_id FROM patient_hospitals
        UNION ALL SELECT xmin::text || patient_id || doctor_id FROM patient_doctors)
"""
"""Every row with the transaction that wrote it, which stays equal as long as nothing is written."""


@pytest.fixture
async def _patient(client: httpx.AsyncClient, hospitals_and_doctors: None) -> None:  # noqa: ARG001  # creates its hospitals
    """Create the patient of the contract's example."""
    response = await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "pat123"})
    assert response.status_code == 201


async def get_document(client: httpx.AsyncClient, path: str = PATIENT_PATH) -> dict[str, Any]:
    """Return the stored document."""
    response = await client.get(path)
    assert response.status_code == 200
    document: dict[str, Any] = response.json()
    return document


async def patch_patient(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    """Change the patient, which must succeed, and return it."""
    response = await client.patch(PATIENT_PATH, json=body)
    assert response.status_code == 200, response.text
    assert response.json() == await get_document(client)
    document: dict[str, Any] = response.json()
    return document


def error_locations(response: httpx.Response) -> list[list[str | int]]:
    """Return the locations of a 422's errors."""
    assert response.status_code == 422, response.text
    return [error["loc"] for error in response.json()["errors"]]


@UPDATE_METHODS
async def test_absent_fields_keep_their_values(client: httpx.AsyncClient, method: str) -> None:
    """PUT and PATCH change the field that is sent, and no other field but last_updated."""
    new: dict[str, Any] = {
        "patient_profile": {"unique_id": "prof9", "email": None, "first_name": "Jane", "last_name": None},
        "patient_date_of_birth": "1999-12-31",
        "patient_gender": "Other",
        "patient_email_address": "jane@example.org",
        "patient_mobile_number": "(021) 555-1234",
        "patient_latitude": "-33.925839",
        "patient_longitude": "18.423218",
        "hospital_ids": ["hos789"],
        "doctor_ids": ["doc456"],
    }
    for field in EXAMPLE_PATIENT:
        value = new.get(field, "New value")
        before = await get_document(client)
        response = await client.request(method, PATIENT_PATH, json={field: value})
        assert response.status_code == 200, response.text
        after = response.json()
        key = {"hospital_ids": "patient_hospital", "doctor_ids": "patient_doctor"}.get(field, field)
        shown = [link["unique_id"] for link in after[key]] if key != field else after[key]
        assert shown == value
        assert after == {**before, key: after[key], "last_updated": after["last_updated"]}
        assert after["last_updated"] > before["last_updated"]
        assert await get_document(client) == after


@UPDATE_METHODS
async def test_null_or_blank_clears_a_field(client: httpx.AsyncClient, method: str) -> None:
    """Null or a blank clears every field except the last remaining name."""
    for blank in (None, "", " \t"):
        before = await get_document(client)
        cleared: dict[str, Any] = dict.fromkeys(NULLABLE_FIELDS, blank) | {"patient_profile": None}
        response = await client.request(method, PATIENT_PATH, json=cleared)
        assert response.status_code == 200
        assert response.json() == {
            **before,
            **dict.fromkeys(NULLABLE_FIELDS),
            "last_updated": response.json()["last_updated"],
        }
        restored = await client.request(method, PATIENT_PATH, json=EXAMPLE_PATIENT)
        assert {**restored.json(), "last_updated": before["last_updated"]} == before


async def test_link_ids_replace_the_whole_set(client: httpx.AsyncClient) -> None:
    """Ids replace the whole set, sorted by unique_id and without repeats, and an empty array clears it."""
    for sent_ids, expected in (
        (["hos789", "hos456", "hos789"], ["hos456", "hos789"]),
        (["hos123"], ["hos123"]),
        ([], []),
        (["hos789", "hos123", "hos456"], ["hos123", "hos456", "hos789"]),
    ):
        after = await patch_patient(client, {"hospital_ids": sent_ids})
        assert [hospital["unique_id"] for hospital in after["patient_hospital"]] == expected
        assert [doctor["unique_id"] for doctor in after["patient_doctor"]] == ["doc123"]
    assert (await patch_patient(client, {"doctor_ids": []}))["patient_doctor"] == []


@UPDATE_METHODS
async def test_null_link_ids_are_refused(client: httpx.AsyncClient, method: str) -> None:
    """Null for a set of ids is refused at its position, and the links stay."""
    before = await get_document(client)
    for field in ("hospital_ids", "doctor_ids"):
        assert error_locations(await client.request(method, PATIENT_PATH, json={field: None})) == [["body", field]]
    assert await get_document(client) == before


@UPDATE_METHODS
async def test_putting_back_a_read_document_writes_nothing(
    client: httpx.AsyncClient, connection: asyncpg.Connection, method: str
) -> None:
    """Putting back a document exactly as read writes no row, so that last_updated stays."""
    before, rows = await get_document(client), await connection.fetchval(SELECT_ROW_VERSIONS)
    response = await client.request(method, PATIENT_PATH, json=before)
    assert (response.status_code, response.json()) == (200, before)
    assert await connection.fetchval(SELECT_ROW_VERSIONS) == rows


async def test_equivalent_values_write_nothing(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Values that are equivalent to the stored ones, however they are written, write no row."""
    before, rows = await get_document(client), await connection.fetchval(SELECT_ROW_VERSIONS)
    same: list[dict[str, Any]] = [
        {},
        EXAMPLE_PATIENT,
        {"patient_first_name": "  John\n", "patient_gender": "m", "patient_title": "Mr.\u2003"},
        {"patient_latitude": 12.345678, "patient_longitude": "-12.3456780000"},
        {"hospital_ids": ["hos456", "hos123", "hos456"], "doctor_ids": ["doc123", "doc123"]},
        {"patient_profile": {"unique_id": "prof123"}},
        {"patient_profile": {"unique_id": "prof123", "first_name": "John "}},
        {"patient_hospital": None, "patient_doctor": None, "date_created": 1, "last_updated": "never"},
    ]
    for body in same:
        assert await patch_patient(client, body) == before
        assert await connection.fetchval(SELECT_ROW_VERSIONS) == rows


@pytest.mark.parametrize(
    ("field", "id_field", "stored_ids", "other_ids"),
    [
        ("patient_hospital", "hospital_ids", ["hos123", "hos456"], ["hos789"]),
        ("patient_doctor", "doctor_ids", ["doc123"], ["doc456"]),
    ],
)
async def test_edited_read_only_links_are_refused(
    client: httpx.AsyncClient, field: str, id_field: str, stored_ids: list[str], other_ids: list[str]
) -> None:
    """Other ids in a read-only field are a 422 that names the field to use, unless an older record is put back."""
    before = await get_document(client)
    since = (await patch_patient(client, {"patient_title": "Dr."}))["last_updated"]
    older, as_date_in_javascript = before["last_updated"], f"{since[:-4]}Z"
    assert older[:-4] < since[:-4]
    unchanged: dict[str, Any]
    for ids, unchanged in product(
        ([], other_ids, [*stored_ids, *other_ids]),
        ({}, {"last_updated": since}, {"last_updated": as_date_in_javascript}, {"last_updated": None}),
    ):
        for links in ({}, {id_field: stored_ids}):
            linked = {field: [{"unique_id": unique_id, "hospital_name": 1} for unique_id in ids]}
            response = await client.patch(PATIENT_PATH, json={"patient_title": "Ms.", **linked, **unchanged, **links})
            assert error_locations(response) == [["body", field]]
            (error,) = response.json()["errors"]
            assert (error["type"], id_field in error["msg"]) == ("read_only_links", True)
        if not set(ids) & set(stored_ids):
            await patch_patient(client, {**linked, "last_updated": older})
    assert {**await get_document(client), "last_updated": older} == {**before, "patient_title": "Dr."}


async def test_read_only_links_may_be_the_stored_or_the_requested_ones(client: httpx.AsyncClient) -> None:
    """Read-only links with the stored ids, in any order, or with the ids that the same request sets, are accepted."""
    before = await get_document(client)
    reversed_links = {"patient_hospital": [{"unique_id": "hos456"}, {"unique_id": "hos123"}]}
    assert await patch_patient(client, reversed_links) == before
    after = await patch_patient(client, {**before, "hospital_ids": ["hos789"]})
    assert after["patient_hospital"] == [{"unique_id": "hos789", "hospital_name": "New Hospital"}]
    edited = {"hospital_ids": ["hos123"], "patient_hospital": before["patient_hospital"][:1], "doctor_ids": []}
    after = await patch_patient(client, {**after, **edited})
    assert (after["patient_hospital"], after["patient_doctor"]) == (before["patient_hospital"][:1], [])


async def test_read_only_links_of_concurrent_requests_are_compared_separately(client: httpx.AsyncClient) -> None:
    """Of patients that are sent back at the same time, only those with edited links are refused."""
    patients = [
        (await client.post(PATIENTS, json={"patient_last_name": "Doe", "hospital_ids": ids})).json()
        for ids in (["hos123"], ["hos456"], [], ["hos123", "hos789"]) * 2
    ]
    edited = [{"patient_hospital": [{"unique_id": "hos789"}]} if number % 3 == 0 else {} for number in range(8)]
    responses = await asyncio.gather(
        *(
            client.patch(f"{PATIENTS}{patient['unique_id']}/", json={**patient, **change, "patient_title": "Dr."})
            for patient, change in zip(patients, edited, strict=True)
        )
    )
    assert [response.status_code for response in responses] == [422 if change else 200 for change in edited]
    for patient, change in zip(patients, edited, strict=True):
        stored = await get_document(client, f"{PATIENTS}{patient['unique_id']}/")
        assert stored["patient_hospital"] == patient["patient_hospital"]
        assert stored["patient_title"] == (None if change else "Dr.")


async def test_malformed_read_only_links_are_refused_at_the_first_error(client: httpx.AsyncClient) -> None:
    """Read-only links have to be a list of objects with ids; only the first error in it is reported."""
    malformed: list[tuple[Any, list[str | int]]] = [
        ("hos123", []),
        (["hos123", "hos456"], [0]),
        ([{}, {}], [0, "unique_id"]),
    ]
    for linked, location in malformed:
        response = await client.patch(PATIENT_PATH, json={"patient_hospital": linked})
        assert error_locations(response) == [["body", "patient_hospital", *location]]


@UPDATE_METHODS
async def test_unknown_keys_are_refused(client: httpx.AsyncClient, method: str) -> None:
    """A mistyped field is a 422 at its position, and the fields beside it are not written."""
    before = await get_document(client)
    body = {"patient_titel": "Dr.", "patient_title": "Dr.", "patient_profile": {"unique_id": "prof123", "mail": "a"}}
    response = await client.request(method, PATIENT_PATH, json=body)
    assert sorted(error_locations(response)) == [["body", "patient_profile", "mail"], ["body", "patient_titel"]]
    assert await get_document(client) == before


@UPDATE_METHODS
async def test_unique_id_never_changes(client: httpx.AsyncClient, method: str) -> None:
    """The body may repeat the path's unique_id; any other value is a 422, and nothing is written."""
    before = await get_document(client)
    for other in ("pat124", "PAT123", "", None, 123, ["pat123"]):
        body = {"unique_id": other, "patient_title": "Dr.", "patient_profile": {"unique_id": "new"}}
        assert error_locations(await client.request(method, PATIENT_PATH, json=body)) == [["body", "unique_id"]]
    assert await get_document(client) == before
    assert (await client.get(f"{PROFILES}new/")).status_code == 404
    assert (
        await client.request(method, PATIENT_PATH, json={"unique_id": "pat123", "patient_title": "Dr."})
    ).status_code == 200


async def test_null_unlinks_the_profile_without_deleting_it(client: httpx.AsyncClient) -> None:
    """Null unlinks the profile, which stays and can be linked again; both changes increase last_updated."""
    before, profile = await get_document(client), await get_document(client, f"{PROFILES}prof123/")
    unlinked = await patch_patient(client, {"patient_profile": None})
    assert unlinked == {**before, "patient_profile": None, "last_updated": unlinked["last_updated"]}
    assert unlinked["last_updated"] > before["last_updated"]
    assert await get_document(client, f"{PROFILES}prof123/") == profile
    linked = await patch_patient(client, {"patient_profile": {"unique_id": "prof123"}})
    assert linked["patient_profile"] == before["patient_profile"]
    assert linked["last_updated"] > unlinked["last_updated"]


async def test_shared_profile_is_updated_for_all_its_patients(client: httpx.AsyncClient) -> None:
    """Sent fields of a profile overwrite, others stay, and every patient that shares the profile shows it."""
    shared = {"unique_id": "prof123", "first_name": "Jane", "email": None}
    await client.post(PATIENTS, json={"patient_last_name": "Doe", "patient_profile": {"unique_id": "prof123"}})
    await patch_patient(client, {"patient_profile": shared})
    for patient in (await client.get(PATIENTS)).json():
        assert patient["patient_profile"] == {**shared, "last_name": "Doe"}


async def test_unknown_profile_is_created_and_linked(client: httpx.AsyncClient) -> None:
    """An unknown profile is created and replaces the former one, which stays unchanged."""
    former = await get_document(client, f"{PROFILES}prof123/")
    after = await patch_patient(client, {"patient_profile": {"unique_id": "prof9", "email": "a@b.c"}})
    expected = {"unique_id": "prof9", "email": "a@b.c", "first_name": None, "last_name": None}
    assert after["patient_profile"] == expected
    assert await get_document(client, f"{PROFILES}prof123/") == former


@UPDATE_METHODS
async def test_failed_update_writes_nothing(
    client: httpx.AsyncClient, connection: asyncpg.Connection, method: str
) -> None:
    """If any part of a request fails, nothing of it is written: no field, no link and no profile."""
    await client.post(PROFILES, json={"unique_id": "gone"})
    await client.delete(f"{PROFILES}gone/")
    rows = await connection.fetchval(SELECT_ROW_VERSIONS)
    failing: list[tuple[dict[str, Any], int]] = [
        ({"hospital_ids": ["hos123", "hos9"]}, 422),
        ({"hospital_ids": [], "doctor_ids": ["doc9"]}, 422),
        ({"patient_first_name": None, "patient_last_name": None}, 422),
        ({"patient_email_address": "nowhere"}, 422),
        ({"patient_profile": {"unique_id": "gone"}, "hospital_ids": []}, 409),
    ]
    for body, status in failing:
        for profile in ({"unique_id": "prof123", "first_name": "Jane"}, {"unique_id": "prof9"}):
            whole = {"patient_title": "Dr.", "patient_profile": profile, **body}
            assert (await client.request(method, PATIENT_PATH, json=whole)).status_code == status
    assert await connection.fetchval(SELECT_ROW_VERSIONS) == rows


async def test_all_unknown_hospitals_and_doctors_are_named(client: httpx.AsyncClient) -> None:
    """Every unknown hospital and doctor is listed with its position, including repeats."""
    body = {"hospital_ids": ["hos8", "hos123", "hos9", "hos8"], "doctor_ids": ["doc123", "doc9"]}
    expected = [["body", "hospital_ids", place] for place in (0, 2, 3)] + [["body", "doctor_ids", 1]]
    assert error_locations(await client.patch(PATIENT_PATH, json=body)) == expected


@UPDATE_METHODS
async def test_both_names_cannot_be_cleared(client: httpx.AsyncClient, method: str) -> None:
    """Either name may be cleared, but not both, neither at once nor one after the other."""
    both = {"patient_first_name": "", "patient_last_name": None}
    for body, status in (
        (both, 422),
        ({"patient_first_name": None}, 200),
        ({"patient_last_name": " "}, 422),
        ({"patient_first_name": "Jane", "patient_last_name": None}, 200),
        ({"patient_first_name": None}, 422),
        ({"patient_first_name": None, "patient_last_name": "Roe"}, 200),
        (both, 422),
    ):
        response = await client.request(method, PATIENT_PATH, json=body)
        assert response.status_code == status
    after = await get_document(client)
    assert (after["patient_first_name"], after["patient_last_name"]) == (None, "Roe")


async def test_last_updated_is_strictly_increasing(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Each change, even of links alone, increases last_updated, even if the clock was ahead at the previous one."""
    ahead = datetime(2999, 1, 1, tzinfo=UTC)
    await connection.execute("UPDATE patients SET last_updated = $1", ahead)
    timestamps = ["2999-01-01T00:00:00Z"]
    links: list[dict[str, Any]] = [{"hospital_ids": []}, {"doctor_ids": ["doc456"]}, {"patient_profile": None}]
    for body in [*links, {"patient_title": "Dr."}, {"patient_title": None}]:
        timestamps.append((await patch_patient(client, body))["last_updated"])  # noqa: PERF401  # one request after the other
    assert timestamps == ["2999-01-01T00:00:00Z", *(f"2999-01-01T00:00:00.00000{number}Z" for number in range(1, 6))]


async def test_concurrent_link_replacements_leave_one_of_the_sent_sets(client: httpx.AsyncClient) -> None:
    """Concurrent requests that replace the links of one patient all succeed, and one of the sent sets remains."""
    pairs = [(["hos123", "hos456"], ["doc123"]), (["hos789"], ["doc456"]), ([], [])] * 3
    bodies = [{"hospital_ids": hospitals, "doctor_ids": doctors} for hospitals, doctors in pairs]
    responses = await asyncio.gather(*(client.patch(PATIENT_PATH, json=body) for body in bodies))
    assert [response.status_code for response in responses] == [200] * 9
    after = await get_document(client)
    shown = tuple([link["unique_id"] for link in after[key]] for key in ("patient_hospital", "patient_doctor"))
    assert shown in pairs


async def test_unknown_patient_is_404_for_every_method(client: httpx.AsyncClient) -> None:
    """An unknown patient cannot be read, changed or deleted, and changing it creates no patient and no profile."""
    body = {"patient_last_name": "Doe", "patient_profile": {"unique_id": "prof9"}}
    for unique_id in ("pat124", "PAT123", "pat123.", "a b", "%00", "é", "a" * 65):
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            response = await client.request(method, f"{PATIENTS}{unique_id}/", json=body)
            assert response.status_code == 404
    assert len((await client.get(PATIENTS)).json()) == 1
    assert len((await client.get(PROFILES)).json()) == 1


async def test_delete_unlinks_profile_hospitals_and_doctors(client: httpx.AsyncClient) -> None:
    """A deleted patient is a 404 for every method; its profile, hospitals and doctors stay and can now be deleted."""
    assert (await client.delete(PATIENT_PATH)).status_code == 204
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        response = await client.request(method, PATIENT_PATH, json={"patient_last_name": "Doe"})
        assert response.status_code == 404
    for path in (f"{PROFILES}prof123/", "/hospitals/hospitals/hos123/", "/doctors/doctors/doc123/"):
        assert (await client.get(path)).status_code == 200
        assert (await client.delete(path)).status_code == 204
