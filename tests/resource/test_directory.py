"""What hospitals, doctors and profiles have in common, and the ids of all resources."""

import re
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

PATIENTS = "/patients/patients/"


@dataclass(frozen=True)
class Kind:
    """One resource of the directory."""

    path: str
    prefix: str
    least: dict[str, Any]
    """The least that creates one."""
    full: dict[str, Any]
    change: dict[str, Any]
    required: tuple[str, ...]
    linked: dict[str, Any] = field(default_factory=dict)
    """What links a patient to the record `own-1`."""
    unlinked: dict[str, Any] = field(default_factory=dict)


HOSPITALS = Kind(
    "/hospitals/hospitals/",
    "hos",
    {"hospital_name": "General"},
    {"hospital_name": "General Hospital"},
    {"hospital_name": "New Hospital"},
    ("hospital_name",),
    {"hospital_ids": ["own-1"]},
    {"hospital_ids": []},
)
DOCTORS = Kind(
    "/doctors/doctors/",
    "doc",
    {"doctor_first_name": "Ann"},
    {"doctor_first_name": "Ann", "doctor_last_name": "Smith"},
    {"doctor_last_name": None},
    ("doctor_first_name",),
    {"doctor_ids": ["own-1"]},
    {"doctor_ids": []},
)
PROFILES = Kind(
    "/profiles/profiles/",
    "prof",
    {},
    {"email": "user@example.com", "first_name": "John", "last_name": "Doe"},
    {"email": None, "last_name": "Roe"},
    (),
    {"patient_profile": {"unique_id": "own-1"}},
    {"patient_profile": None},
)
PATIENT = Kind(PATIENTS, "pat", {"patient_last_name": "Doe"}, {}, {}, ())

DIRECTORY = pytest.mark.parametrize("kind", [HOSPITALS, DOCTORS, PROFILES], ids=lambda kind: kind.prefix)
ALL = pytest.mark.parametrize("kind", [PATIENT, HOSPITALS, DOCTORS, PROFILES], ids=lambda kind: kind.prefix)


@pytest.fixture
async def record(client: httpx.AsyncClient, kind: Kind) -> dict[str, Any]:
    """The record `own-1` of the kind."""
    answer = await client.post(kind.path, json={"unique_id": "own-1", **kind.full})
    assert answer.status_code == 201
    document: dict[str, Any] = answer.json()
    return document


@DIRECTORY
async def test_create(client: httpx.AsyncClient, kind: Kind) -> None:
    """POST answers 201, where the record is, and the record, with an id of ours and null for what is not known."""
    answer = await client.post(kind.path, json=kind.least)
    assert answer.status_code == 201
    created = answer.json()
    assert re.fullmatch(f"{kind.prefix}_[0-9a-hjkmnp-tv-z]{{26}}", created["unique_id"])
    assert created == {
        "unique_id": created["unique_id"],
        **dict.fromkeys(kind.full),
        **kind.least,
        "date_created": created["date_created"],
        "last_updated": created["date_created"],
    }
    assert answer.headers["location"] == f"{kind.path}{created['unique_id']}/"
    assert (await client.get(answer.headers["location"])).json() == created


@DIRECTORY
async def test_read(client: httpx.AsyncClient, kind: Kind, record: dict[str, Any]) -> None:
    """GET answers the record, the list all records, and each has the keys of the request in its order."""
    assert list(record) == ["unique_id", *kind.full, "date_created", "last_updated"]
    assert {key: record[key] for key in kind.full} == kind.full
    assert (await client.get(f"{kind.path}own-1/")).json() == record
    assert (await client.get(kind.path)).json() == [record]


@DIRECTORY
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_change(client: httpx.AsyncClient, kind: Kind, record: dict[str, Any], method: str) -> None:
    """PUT and PATCH change what is given, null clears, absent stays; putting back what was read changes nothing."""
    path = f"{kind.path}own-1/"
    for same in ({}, record, {"unique_id": "own-1", "date_created": None, "last_updated": 5}):
        answer = await client.request(method, path, json=same)
        assert (answer.status_code, answer.json()) == (200, record)
    changed = (await client.request(method, path, json=kind.change)).json()
    assert changed == {**record, **kind.change, "last_updated": changed["last_updated"]}
    assert changed["last_updated"] > record["last_updated"]
    assert (await client.get(path)).json() == changed


@DIRECTORY
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_refused_change(client: httpx.AsyncClient, kind: Kind, record: dict[str, Any], method: str) -> None:
    """Another unique_id, unknown keys, and null or blanks for what is required are 422, and nothing is written."""
    refused: list[dict[str, Any]] = [{"unique_id": other} for other in ("own-2", "", None, 1)]
    refused += [{"naem": "x"}, {"patient_title": "Dr."}, {"version": 2}]
    refused += [{key: value} for key in kind.required for value in (None, "", " \n", 1, True, ["x"])]
    for body in refused:
        answer = await client.request(method, f"{kind.path}own-1/", json={**kind.change, **body})
        assert answer.status_code == 422
        assert [error["loc"] for error in answer.json()["errors"]] == [["body", key] for key in body]
    assert (await client.get(kind.path)).json() == [record]


@DIRECTORY
async def test_required_fields(client: httpx.AsyncClient, kind: Kind) -> None:
    """A field that is required must be given and not be blank; all errors are told at once."""
    for key in kind.required:
        for value in ({}, {key: None}, {key: ""}, {key: " "}, {key: 1}):
            answer = await client.post(kind.path, json={**value, "unique_id": "a b", "naem": "x"})
            assert answer.status_code == 422
            places = {tuple(error["loc"]) for error in answer.json()["errors"]}
            assert places == {("body", key), ("body", "unique_id"), ("body", "naem")}
    assert (await client.get(kind.path)).json() == []


@DIRECTORY
async def test_delete(client: httpx.AsyncClient, kind: Kind, record: dict[str, Any]) -> None:
    """DELETE answers 204 without a body; then the record is a 404 for every method, and its id never comes back."""
    path = f"{kind.path}own-1/"
    answer = await client.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        assert (await client.request(method, path, json=kind.change)).status_code == 404
    assert (await client.get(kind.path)).json() == []
    assert (await client.post(kind.path, json=record)).status_code == 409
    assert (await client.get(kind.path)).json() == []


@DIRECTORY
async def test_in_use(client: httpx.AsyncClient, kind: Kind, record: dict[str, Any]) -> None:
    """A record that patients are linked to cannot be deleted: 409 with their number, until the last is unlinked."""
    path = f"{kind.path}own-1/"
    patients = []
    for number in range(1, 4):
        patient = await client.post(PATIENTS, json={"patient_last_name": "Doe", **kind.linked})
        assert patient.status_code == 201
        patients.append(patient.json()["unique_id"])
        answer = await client.delete(path)
        assert answer.status_code == 409
        assert re.findall(r"\d+", answer.json()["detail"]) == [str(number)]
    assert (await client.get(path)).json() == record
    await client.delete(f"{PATIENTS}{patients[0]}/")
    await client.patch(f"{PATIENTS}{patients[1]}/", json=kind.unlinked)
    assert re.findall(r"\d+", (await client.delete(path)).json()["detail"]) == ["1"]
    await client.put(f"{PATIENTS}{patients[2]}/", json=kind.unlinked)
    assert (await client.delete(path)).status_code == 204


@ALL
async def test_own_ids(client: httpx.AsyncClient, kind: Kind) -> None:
    """A client may give an id of 1 to 64 letters, digits and ._~:@-, beginning with a letter or digit; it works."""
    for unique_id in ("a", "0", "Z" * 64, "pat123", "8001015009087", "A._~:@-", "a--", "urn:oid:1.2", "x@example.org"):
        answer = await client.post(kind.path, json={**kind.least, "unique_id": unique_id})
        assert answer.status_code == 201
        assert answer.json()["unique_id"] == unique_id
        assert answer.headers["location"] == f"{kind.path}{unique_id}/"
        assert (await client.get(answer.headers["location"])).json() == answer.json()
        assert (await client.delete(answer.headers["location"])).status_code == 204


@ALL
async def test_ids_are_told_apart_by_case(client: httpx.AsyncClient, kind: Kind) -> None:
    """Ids that differ in case alone are different, and lists sort ids by their bytes."""
    ids = ["b", "B", "a1", "a", "A", "a.", "a_", "a-", "a~", "0"]
    for unique_id in ids:
        await client.post(kind.path, json={**kind.least, "unique_id": unique_id})
    listed = [record["unique_id"] for record in (await client.get(kind.path)).json()]
    assert listed == sorted(ids, key=str.encode)


@ALL
async def test_refused_ids(client: httpx.AsyncClient, kind: Kind) -> None:
    """Any other id, the empty one included, is a 422 at `body.unique_id`, and nothing is written."""
    refused: list[Any] = ["", " ", "a b", " a", "a ", "a\n", "-a", ".a", "_a", "~", "a/b", "a%20", "a?", "a#", "a,b"]
    refused += ["é", "\uff41", "\u0661", "a\0", "a\u200b", "a" * 65, 1, 1.5, True, ["a"], {"a": 1}]
    for unique_id in refused:
        answer = await client.post(kind.path, json={**kind.least, "unique_id": unique_id})
        assert answer.status_code == 422
        assert [error["loc"] for error in answer.json()["errors"]] == [["body", "unique_id"]]
    assert (await client.get(kind.path)).json() == []


@ALL
async def test_taken_id(client: httpx.AsyncClient, kind: Kind) -> None:
    """An id that is taken is a 409, and the record that has it stays as it is; another resource may have the same."""
    body = {**kind.least, "unique_id": "own-1"}
    first = (await client.post(kind.path, json=body)).json()
    assert (await client.post(kind.path, json={**body, **kind.full})).status_code == 409
    assert (await client.get(kind.path)).json() == [first]
    for other in (PATIENT, HOSPITALS, DOCTORS, PROFILES):
        if other != kind:
            assert (await client.post(other.path, json={**other.least, "unique_id": "own-1"})).status_code == 201
