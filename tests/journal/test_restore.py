"""Restoring: a deleted record, or an earlier state of one that is there, comes back as a new version."""

import asyncio
import re
from typing import Any

import asyncpg
import httpx
import pytest

from app.journal.schemas import Entry
from tests.processes import await_blocked
from tests.support import EXAMPLE, KINDS, Kind, dump

PATIENTS = "/patients/patients/"
PROFILES = "/profiles/profiles/"
ONE = f"{PATIENTS}own/"
BACK = re.compile(r'To bring that one back, POST (\{"version": \d+\}) to its restore/ path')

Json = dict[str, Any]


async def get(client: httpx.AsyncClient, path: str = ONE) -> Json:
    """What is stored."""
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    document: Json = answer.json()
    return document


async def restored(client: httpx.AsyncClient, path: str, version: int, **more: object) -> Json:
    """The record after a restore that succeeds, and is what is stored then."""
    answer = await client.post(f"{path}restore/", json={"version": version, **more})
    assert answer.status_code == 200, answer.text
    assert answer.json() == await get(client, path)
    document: Json = answer.json()
    return document


async def newest(client: httpx.AsyncClient, path: str = ONE) -> Entry:
    """The newest entry."""
    answer = await client.get(f"{path}history/", params={"limit": 1})
    return Entry.model_validate(answer.json()[0])


def undated(document: Json) -> Json:
    """What does not move with every change."""
    return {name: value for name, value in document.items() if name != "last_updated"}


def errors(answer: httpx.Response) -> list[str]:
    """What is wrong with the version that a restore asked for, for programs."""
    assert answer.status_code == 422, answer.text
    assert {tuple(error["loc"]) for error in answer.json()["errors"]} == {("body", "version")}
    return [error["type"] for error in answer.json()["errors"]]


@pytest.fixture
async def _patient(client: httpx.AsyncClient, directory: None) -> None:  # noqa: ARG001  # its hospitals
    """The patient of the contract's example, as `own`."""
    assert (await client.post(PATIENTS, json={**EXAMPLE, "unique_id": "own"})).status_code == 201


async def test_deleted_record_comes_back(client: httpx.AsyncClient) -> None:
    """A deleted record is restored as it was, `date_created` too, as the version after its deletion; time and again."""
    for kind in KINDS:
        await client.post(kind.path, json=kind.own)
        before = (await client.put(kind.one, json=kind.change)).json()
        for round_ in range(3):
            assert (await client.delete(kind.one)).status_code == 204
            assert (await client.get(kind.one)).status_code == 404
            after = await restored(client, kind.one, 2)
            assert undated(after) == undated(before)
            assert after["last_updated"] > before["last_updated"]
            entry = await newest(client, kind.one)
            assert (entry.version, entry.action) == (4 + 2 * round_, "restored")
            assert entry.record is not None
            assert entry.record["date_created"] == before["date_created"]
        assert after in (await client.get(kind.path)).json()
        assert (await client.put(kind.one, json=kind.least)).status_code == 200
        assert (await newest(client, kind.one)).version == 9


@pytest.mark.usefixtures("_patient")
async def test_every_state_of_a_patient_comes_back(client: httpx.AsyncClient) -> None:
    """Whichever version is restored, deleted or not, the patient is just what it was then, links and profile too."""
    steps: list[Json] = [
        {"patient_profile": None},
        {"patient_profile": {"unique_id": "prof9", "email": "a@b.c"}},
        {"hospital_ids": [], "doctor_ids": ["doc456", "doc123"]},
        dict.fromkeys(EXAMPLE.keys() - {"patient_first_name", "patient_profile", "hospital_ids", "doctor_ids"}),
        {"patient_first_name": None, "patient_last_name": "Ünïcødé \u202e\U0001f600 'q' \"dq\" \\ {}"},
        {"patient_latitude": "-90", "patient_longitude": "0.000001", "patient_date_of_birth": "0001-01-02"},
        {**EXAMPLE, "hospital_ids": ["hos789"]},
    ]
    states = [await get(client)]
    for step in steps:
        answer = await client.put(ONE, json=step)
        assert answer.status_code == 200, answer.text
        states.append(answer.json())
    for deleted in (False, True):
        for version in (5, 1, 8, 3, 6, 2, 7, 4):
            if deleted:
                assert (await client.delete(ONE)).status_code == 204
            after = await restored(client, ONE, version)
            assert undated(after) == undated(states[version - 1]), version
            entry = await newest(client)
            assert entry.action == "restored"
            past = Entry.model_validate((await client.get(f"{ONE}history/{version}/")).json())
            assert entry.record is not None
            assert past.record is not None
            assert undated(entry.record) == undated(past.record)


async def test_dates_of_creation_come_back_exactly(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """`date_created` is kept to the microsecond, be it a whole second, long ago, or far ahead."""
    for kind in KINDS:
        await client.post(kind.path, json=kind.own)
        for moment in ("1970-01-01T00:00:00Z", "2024-02-29T23:59:59.999999Z", "1899-12-31T00:00:00.000001Z"):
            # as a record brought from elsewhere
            await connection.execute(f"UPDATE {kind.table} SET date_created = '{moment}'")  # noqa: S608
            await client.put(kind.one, json=kind.change)
            await client.put(kind.one, json=kind.least)
            version = (await newest(client, kind.one)).version
            await client.delete(kind.one)
            assert (await restored(client, kind.one, version))["date_created"] == moment


async def test_present_state_changes_nothing(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Restoring what the record is already writes nothing, not even `last_updated`."""
    for kind in KINDS:
        await client.post(kind.path, json=kind.own)
        await client.put(kind.one, json=kind.change)
        await client.put(kind.one, json=kind.least)
        before, rows = await get(client, kind.one), await dump(connection)
        for version in (3, 1):
            assert await restored(client, kind.one, version) == before
        assert await dump(connection) == rows


async def test_version_that_cannot_be_restored(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A version that is not in the history, or is a deletion, is a 422; a record never there is a 404."""
    for kind in KINDS:
        await client.post(kind.path, json=kind.own)
        await client.delete(kind.one)
        await restored(client, kind.one, 1)
        for deleted in (False, True):
            if deleted:
                await client.delete(kind.one)
            rows = await dump(connection)
            for version, problem in ((2, "version_deleted"), (9, "unknown_version"), (2**53 - 1, "unknown_version")):
                assert errors(await client.post(f"{kind.one}restore/", json={"version": version})) == [problem]
            for unusable in (0, -1, 2**53, 1.5, "1", None, True, [1]):
                answer = await client.post(f"{kind.one}restore/", json={"version": unusable})
                assert len(errors(answer)) == 1
            for unique_id in ("none", "OWN", "%00", "a" * 65):
                answer = await client.post(f"{kind.path}{unique_id}/restore/", json={"version": 1})
                assert answer.status_code == 404
            unreadable: list[Any] = [{}, {"version": 1, "skip": True}, {"version": 1, "skip_missing": "yes"}, []]
            for body in unreadable:
                assert (await client.post(f"{kind.one}restore/", json=body)).status_code == 422
            assert await dump(connection) == rows


async def remove_links(client: httpx.AsyncClient) -> None:
    """Delete what the contract's patient is linked to, all but hospital hos456."""
    body: Json = {"patient_profile": None, "hospital_ids": [], "doctor_ids": []}
    if (await client.get(ONE)).status_code == 200:
        assert (await client.put(ONE, json=body)).status_code == 200
    for path in (f"{PROFILES}prof123/", "/hospitals/hospitals/hos123/", "/doctors/doctors/doc123/"):
        assert (await client.delete(path)).status_code == 204


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("deleted", [False, True], ids=["changed", "deleted"])
async def test_links_that_lead_nowhere(
    client: httpx.AsyncClient, connection: asyncpg.Connection, *, deleted: bool
) -> None:
    """Of a state whose hospital, doctor and profile are gone all are named; asked to, it is restored without them."""
    before = await get(client)
    if deleted:
        await client.delete(ONE)
    await remove_links(client)
    rows = await dump(connection)
    for body in ({"version": 1}, {"version": 1, "skip_missing": False}):
        answer = await client.post(f"{ONE}restore/", json=body)
        assert sorted(errors(answer)) == ["missing_doctor", "missing_hospital", "missing_profile"]
        for unique_id in ("doc123", "hos123", "prof123"):
            assert unique_id in answer.text
        assert "hos456" not in answer.text
    assert await dump(connection) == rows
    after = await restored(client, ONE, 1, skip_missing=True)
    without = {"patient_profile": None, "patient_hospital": before["patient_hospital"][1:], "patient_doctor": []}
    assert undated(after) == undated({**before, **without})
    entry = await newest(client)
    assert entry.record is not None
    assert (entry.record["hospital_ids"], entry.record["doctor_ids"]) == (["hos456"], [])
    assert "profile_id" not in entry.record
    for path in (f"{PROFILES}prof123/", "/hospitals/hospitals/hos123/", "/doctors/doctors/doc123/"):
        await restored(client, path, 1)
    assert undated(await restored(client, ONE, 1)) == undated(before), "once they are back, all of it can be"


@pytest.mark.usefixtures("_patient")
async def test_nothing_missing_to_skip(client: httpx.AsyncClient) -> None:
    """`skip_missing` leaves out nothing that is there."""
    before = await get(client)
    await client.delete(ONE)
    assert undated(await restored(client, ONE, 1, skip_missing=True)) == undated(before)


@pytest.mark.parametrize("deleted", [False, True], ids=["changed", "deleted"])
async def test_restored_twice_at_once(client: httpx.AsyncClient, *, deleted: bool) -> None:
    """Of restores at the same moment one makes a version; the others find it done, or are told of the conflict."""
    for kind in KINDS:
        for number in range(5):
            one = f"{kind.path}own-{number}/"
            await client.post(kind.path, json={**kind.least, "unique_id": f"own-{number}"})
            await (client.delete(one) if deleted else client.put(one, json=kind.change))
            restores = (client.post(f"{one}restore/", json={"version": 1}) for _ in range(3))
            answers = await asyncio.gather(*restores)
            statuses = {answer.status_code for answer in answers}
            assert 200 in statuses
            assert statuses <= {200, 409}
            entries = (await client.get(f"{one}history/")).json()
            assert [entry["action"] for entry in entries[:1]] == ["restored"]
            assert [entry["version"] for entry in entries] == [3, 2, 1]
            assert (await get(client, one)).items() >= kind.least.items()


async def test_restore_that_waits_for_another(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A restore of a deleted record that another transaction is restoring waits for it, and makes no second version."""
    await client.post(PATIENTS, json={"unique_id": "own", "patient_last_name": "Doe"})
    await client.delete(ONE)
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO patients (unique_id, patient_last_name, version) VALUES ('own', 'Doe', 3)"
        )
        await connection.execute(
            "INSERT INTO journal (resource, unique_id, version, action, actor, record)"
            " VALUES ('patients', 'own', 3, 'restored', 'me', '{}')"
        )
        restoring = asyncio.ensure_future(client.post(f"{ONE}restore/", json={"version": 1}))
        await await_blocked(connection)
    assert (await restoring).status_code == 409
    assert (await newest(client)).version == 3


async def follow(client: httpx.AsyncClient, refusal: httpx.Response, kind: Kind) -> Json:
    """The record after doing what the refusal of its id says."""
    assert refusal.status_code == 409, refusal.text
    detail = refusal.json()["detail"]
    assert kind.name in detail
    said = BACK.search(detail)
    assert said is not None, detail
    headers = {"Content-Type": "application/json"}
    answer = await client.post(f"{kind.one}restore/", content=said[1], headers=headers)
    assert answer.status_code == 200, answer.text
    return await get(client, kind.one)


async def test_id_of_a_deleted_record(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """POST of a deleted record's id is a 409 that says how to bring that back, and doing so does."""
    for kind in KINDS:
        await client.post(kind.path, json=kind.own)
        before = (await client.put(kind.one, json=kind.change)).json()
        for _ in range(2):
            await client.delete(kind.one)
            rows = await dump(connection)
            refusal = await client.post(kind.path, json=kind.own)
            assert await dump(connection) == rows
            assert undated(await follow(client, refusal, kind)) == undated(before)


async def test_id_of_a_deleted_profile_of_a_patient(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """So it is for the id of a deleted profile in a patient's POST or PUT, which then succeeds."""
    kind = KINDS[1]
    await client.post(PATIENTS, json={"unique_id": "own", "patient_last_name": "Doe"})
    for method, path, nested in (
        ("POST", PATIENTS, {"unique_id": "own"}),
        ("PUT", ONE, {"unique_id": "own", "email": "new@b.c"}),
    ):
        await client.post(kind.path, json={"unique_id": "own", "email": "a@b.c"})
        await client.delete(kind.one)
        body = {"patient_last_name": "Doe", "patient_profile": nested}
        rows = await dump(connection)
        refusal = await client.request(method, path, json=body)
        assert await dump(connection) == rows
        assert (await follow(client, refusal, kind))["email"] == "a@b.c"
        answer = await client.request(method, path, json=body)
        assert answer.is_success
        assert answer.json()["patient_profile"]["email"] == nested.get("email", "a@b.c")
        await client.delete(answer.headers.get("Location", ONE))
