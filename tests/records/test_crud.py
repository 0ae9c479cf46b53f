"""Behaviour that hospitals, doctors and profiles have in common, and rules for the ids of all resources."""

import re
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

PATIENTS = "/patients/patients/"


@dataclass(frozen=True)
class CrudExample:
    """A resource with example bodies."""

    path: str
    id_prefix: str
    minimal_body: dict[str, Any]
    """The smallest body that creates a record."""
    full_body: dict[str, Any]
    update_body: dict[str, Any]
    required_fields: tuple[str, ...]
    linking_body: dict[str, Any] = field(default_factory=dict)
    """Fields that link a patient to the record `own-1`."""
    unlinking_body: dict[str, Any] = field(default_factory=dict)


HOSPITAL_EXAMPLE = CrudExample(
    "/hospitals/hospitals/",
    "hos",
    {"hospital_name": "General"},
    {"hospital_name": "General Hospital"},
    {"hospital_name": "New Hospital"},
    ("hospital_name",),
    {"hospital_ids": ["own-1"]},
    {"hospital_ids": []},
)
DOCTOR_EXAMPLE = CrudExample(
    "/doctors/doctors/",
    "doc",
    {"doctor_first_name": "Ann"},
    {"doctor_first_name": "Ann", "doctor_last_name": "Smith"},
    {"doctor_last_name": None},
    ("doctor_first_name",),
    {"doctor_ids": ["own-1"]},
    {"doctor_ids": []},
)
PROFILE_EXAMPLE = CrudExample(
    "/profiles/profiles/",
    "prof",
    {},
    {"email": "user@example.com", "first_name": "John", "last_name": "Doe"},
    {"email": None, "last_name": "Roe"},
    (),
    {"patient_profile": {"unique_id": "own-1"}},
    {"patient_profile": None},
)
PATIENT_EXAMPLE = CrudExample(PATIENTS, "pat", {"patient_last_name": "Doe"}, {}, {}, ())

FOR_LINKABLE_RESOURCES = pytest.mark.parametrize(
    "kind", [HOSPITAL_EXAMPLE, DOCTOR_EXAMPLE, PROFILE_EXAMPLE], ids=lambda kind: kind.id_prefix
)
FOR_ALL_RESOURCES = pytest.mark.parametrize(
    "kind", [PATIENT_EXAMPLE, HOSPITAL_EXAMPLE, DOCTOR_EXAMPLE, PROFILE_EXAMPLE], ids=lambda kind: kind.id_prefix
)


@pytest.fixture
async def record(client: httpx.AsyncClient, kind: CrudExample) -> dict[str, Any]:
    """Create the record `own-1` of the kind and return it."""
    response = await client.post(kind.path, json={"unique_id": "own-1", **kind.full_body})
    assert response.status_code == 201
    document: dict[str, Any] = response.json()
    return document


@FOR_LINKABLE_RESOURCES
async def test_create_returns_201_location_and_record(client: httpx.AsyncClient, kind: CrudExample) -> None:
    """POST returns 201, the Location and the record, with a generated id and null for each field that was not sent."""
    response = await client.post(kind.path, json=kind.minimal_body)
    assert response.status_code == 201
    created = response.json()
    assert re.fullmatch(f"{kind.id_prefix}_[0-9a-hjkmnp-tv-z]{{26}}", created["unique_id"])
    assert created == {
        "unique_id": created["unique_id"],
        **dict.fromkeys(kind.full_body),
        **kind.minimal_body,
        "date_created": created["date_created"],
        "last_updated": created["date_created"],
    }
    assert response.headers["location"] == f"{kind.path}{created['unique_id']}/"
    assert (await client.get(response.headers["location"])).json() == created


@FOR_LINKABLE_RESOURCES
async def test_get_and_list_return_the_record(
    client: httpx.AsyncClient, kind: CrudExample, record: dict[str, Any]
) -> None:
    """GET returns the record and the list all records, each with the keys of the request in its order."""
    assert list(record) == ["unique_id", *kind.full_body, "date_created", "last_updated"]
    assert {key: record[key] for key in kind.full_body} == kind.full_body
    assert (await client.get(f"{kind.path}own-1/")).json() == record
    assert (await client.get(kind.path)).json() == [record]


@FOR_LINKABLE_RESOURCES
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_put_and_patch_change_only_sent_fields(
    client: httpx.AsyncClient, kind: CrudExample, record: dict[str, Any], method: str
) -> None:
    """PUT and PATCH change the sent fields, null clears one, and putting back a document as read changes nothing."""
    path = f"{kind.path}own-1/"
    for same in ({}, record, {"unique_id": "own-1", "date_created": None, "last_updated": 5}):
        response = await client.request(method, path, json=same)
        assert (response.status_code, response.json()) == (200, record)
    changed = (await client.request(method, path, json=kind.update_body)).json()
    assert changed == {**record, **kind.update_body, "last_updated": changed["last_updated"]}
    assert changed["last_updated"] > record["last_updated"]
    assert (await client.get(path)).json() == changed


@FOR_LINKABLE_RESOURCES
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_invalid_changes_are_422_and_write_nothing(
    client: httpx.AsyncClient, kind: CrudExample, record: dict[str, Any], method: str
) -> None:
    """Another unique_id, unknown keys, and null or blanks for a required field are 422, and nothing is written."""
    refused: list[dict[str, Any]] = [{"unique_id": other} for other in ("own-2", "", None, 1)]
    refused += [{"naem": "x"}, {"patient_title": "Dr."}, {"version": 2}]
    refused += [{key: value} for key in kind.required_fields for value in (None, "", " \n", 1, True, ["x"])]
    for body in refused:
        response = await client.request(method, f"{kind.path}own-1/", json={**kind.update_body, **body})
        assert response.status_code == 422
        assert [error["loc"] for error in response.json()["errors"]] == [["body", key] for key in body]
    assert (await client.get(kind.path)).json() == [record]


@FOR_LINKABLE_RESOURCES
async def test_required_fields_must_be_sent_and_not_blank(client: httpx.AsyncClient, kind: CrudExample) -> None:
    """A required field must be sent and not be blank, and all errors are reported at once."""
    for key in kind.required_fields:
        for value in ({}, {key: None}, {key: ""}, {key: " "}, {key: 1}):
            response = await client.post(kind.path, json={**value, "unique_id": "a b", "naem": "x"})
            assert response.status_code == 422
            locations = {tuple(error["loc"]) for error in response.json()["errors"]}
            assert locations == {("body", key), ("body", "unique_id"), ("body", "naem")}
    assert (await client.get(kind.path)).json() == []


@FOR_LINKABLE_RESOURCES
async def test_deleted_record_is_404_and_its_id_stays_retired(
    client: httpx.AsyncClient, kind: CrudExample, record: dict[str, Any]
) -> None:
    """DELETE returns 204 without a body; then every method is a 404, and the id cannot be used again."""
    path = f"{kind.path}own-1/"
    response = await client.delete(path)
    assert (response.status_code, response.content) == (204, b"")
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        assert (await client.request(method, path, json=kind.update_body)).status_code == 404
    assert (await client.get(kind.path)).json() == []
    assert (await client.post(kind.path, json=record)).status_code == 409
    assert (await client.get(kind.path)).json() == []


@FOR_LINKABLE_RESOURCES
async def test_record_linked_to_patients_cannot_be_deleted(
    client: httpx.AsyncClient, kind: CrudExample, record: dict[str, Any]
) -> None:
    """Deleting a record with linked patients is a 409 with their number, until the last one is unlinked."""
    path = f"{kind.path}own-1/"
    patients = []
    for number in range(1, 4):
        patient = await client.post(PATIENTS, json={"patient_last_name": "Doe", **kind.linking_body})
        assert patient.status_code == 201
        patients.append(patient.json()["unique_id"])
        response = await client.delete(path)
        assert response.status_code == 409
        assert re.findall(r"\d+", response.json()["detail"]) == [str(number)]
    assert (await client.get(path)).json() == record
    await client.delete(f"{PATIENTS}{patients[0]}/")
    await client.patch(f"{PATIENTS}{patients[1]}/", json=kind.unlinking_body)
    assert re.findall(r"\d+", (await client.delete(path)).json()["detail"]) == ["1"]
    await client.put(f"{PATIENTS}{patients[2]}/", json=kind.unlinking_body)
    assert (await client.delete(path)).status_code == 204


@FOR_ALL_RESOURCES
async def test_client_may_choose_a_valid_id(client: httpx.AsyncClient, kind: CrudExample) -> None:
    """A client may choose an id of 1 to 64 letters, digits and ._~:@- that begins with a letter or digit."""
    for unique_id in ("a", "0", "Z" * 64, "pat123", "8001015009087", "A._~:@-", "a--", "urn:oid:1.2", "x@example.org"):
        response = await client.post(kind.path, json={**kind.minimal_body, "unique_id": unique_id})
        assert response.status_code == 201
        assert response.json()["unique_id"] == unique_id
        assert response.headers["location"] == f"{kind.path}{unique_id}/"
        assert (await client.get(response.headers["location"])).json() == response.json()
        assert (await client.delete(response.headers["location"])).status_code == 204


@FOR_ALL_RESOURCES
async def test_ids_are_case_sensitive_and_sorted_by_bytes(client: httpx.AsyncClient, kind: CrudExample) -> None:
    """Ids that differ only in case are different, and lists sort ids by their bytes."""
    ids = ["b", "B", "a1", "a", "A", "a.", "a_", "a-", "a~", "0"]
    for unique_id in ids:
        await client.post(kind.path, json={**kind.minimal_body, "unique_id": unique_id})
    listed = [record["unique_id"] for record in (await client.get(kind.path)).json()]
    assert listed == sorted(ids, key=str.encode)


@FOR_ALL_RESOURCES
async def test_invalid_ids_are_422(client: httpx.AsyncClient, kind: CrudExample) -> None:
    """Any other id, including the empty one, is a 422 at `body.unique_id`, and nothing is written."""
    refused: list[Any] = ["", " ", "a b", " a", "a ", "a\n", "-a", ".a", "_a", "~", "a/b", "a%20", "a?", "a#", "a,b"]
    refused += ["é", "\uff41", "\u0661", "a\0", "a\u200b", "a" * 65, 1, 1.5, True, ["a"], {"a": 1}]
    for unique_id in refused:
        response = await client.post(kind.path, json={**kind.minimal_body, "unique_id": unique_id})
        assert response.status_code == 422
        assert [error["loc"] for error in response.json()["errors"]] == [["body", "unique_id"]]
    assert (await client.get(kind.path)).json() == []


@FOR_ALL_RESOURCES
async def test_taken_id_is_409_and_leaves_the_record(client: httpx.AsyncClient, kind: CrudExample) -> None:
    """A taken id is a 409 that leaves its record unchanged; another resource may have the same id."""
    body = {**kind.minimal_body, "unique_id": "own-1"}
    first = (await client.post(kind.path, json=body)).json()
    assert (await client.post(kind.path, json={**body, **kind.full_body})).status_code == 409
    assert (await client.get(kind.path)).json() == [first]
    for other in (PATIENT_EXAMPLE, HOSPITAL_EXAMPLE, DOCTOR_EXAMPLE, PROFILE_EXAMPLE):
        if other != kind:
            assert (await client.post(other.path, json={**other.minimal_body, "unique_id": "own-1"})).status_code == 201
