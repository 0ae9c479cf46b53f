"""Restoring: a deleted record, or an earlier version of an existing one, comes back as a new version."""

import asyncio
import re
from typing import Any

import asyncpg
import httpx
import pytest

from app.fields.history import HistoryEntry
from tests.processes import wait_until_blocked
from tests.support import EXAMPLE_PATIENT, RESOURCE_EXAMPLES, ResourceExample, dump_tables

PATIENTS = "/patients/patients/"
PROFILES = "/profiles/profiles/"
PATIENT_PATH = f"{PATIENTS}own/"
RESTORE_HINT_PATTERN = re.compile(r'To restore that record, POST (\{"version": \d+\}) to its restore/ path')

Json = dict[str, Any]


async def get_record(client: httpx.AsyncClient, path: str = PATIENT_PATH) -> Json:
    """Return a record as it is stored."""
    response = await client.get(path)
    assert response.status_code == 200, response.text
    document: Json = response.json()
    return document


async def restore(client: httpx.AsyncClient, path: str, version: int, **more: object) -> Json:
    """Restore a record, check that the response equals the stored record, and return it."""
    response = await client.post(f"{path}restore/", json={"version": version, **more})
    assert response.status_code == 200, response.text
    assert response.json() == await get_record(client, path)
    document: Json = response.json()
    return document


async def newest_entry(client: httpx.AsyncClient, path: str = PATIENT_PATH) -> HistoryEntry:
    """Return the newest entry."""
    response = await client.get(f"{path}history/", params={"limit": 1})
    return HistoryEntry.model_validate(response.json()[0])


def without_last_updated(document: Json) -> Json:
    """Return the document without the field that every change updates."""
    return {name: value for name, value in document.items() if name != "last_updated"}


def error_types(response: httpx.Response) -> list[str]:
    """Return the error types of a 422, and check that all errors are about the version."""
    assert response.status_code == 422, response.text
    assert {tuple(error["loc"]) for error in response.json()["errors"]} == {("body", "version")}
    return [error["type"] for error in response.json()["errors"]]


@pytest.fixture
async def _patient(client: httpx.AsyncClient, hospitals_and_doctors: None) -> None:  # noqa: ARG001  # hospitals
    """Create the patient of the contract's example as `own`."""
    assert (await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "own"})).status_code == 201


async def test_a_deleted_record_is_restored_as_it_was(client: httpx.AsyncClient) -> None:
    """A deleted record is restored as it was, with `date_created`, as the version after its deletion, repeatedly."""
    for kind in RESOURCE_EXAMPLES:
        await client.post(kind.path, json=kind.create_body)
        before = (await client.put(kind.record_path, json=kind.update_body)).json()
        for round_ in range(3):
            assert (await client.delete(kind.record_path)).status_code == 204
            assert (await client.get(kind.record_path)).status_code == 404
            after = await restore(client, kind.record_path, 2)
            assert without_last_updated(after) == without_last_updated(before)
            assert after["last_updated"] > before["last_updated"]
            entry = await newest_entry(client, kind.record_path)
            assert (entry.version, entry.action) == (4 + 2 * round_, "restored")
            assert entry.record is not None
            assert entry.record["date_created"] == before["date_created"]
        assert after in (await client.get(kind.path)).json()
        assert (await client.put(kind.record_path, json=kind.minimal_body)).status_code == 200
        assert (await newest_entry(client, kind.record_path)).version == 9


@pytest.mark.usefixtures("_patient")
async def test_every_version_of_a_patient_can_be_restored(client: httpx.AsyncClient) -> None:
    """Restoring any version, deleted or not, gives the patient exactly that version's values, links and profile."""
    steps: list[Json] = [
        {"patient_profile": None},
        {"patient_profile": {"unique_id": "prof9", "email": "a@b.c"}},
        {"hospital_ids": [], "doctor_ids": ["doc456", "doc123"]},
        dict.fromkeys(EXAMPLE_PATIENT.keys() - {"patient_first_name", "patient_profile", "hospital_ids", "doctor_ids"}),
        {"patient_first_name": None, "patient_last_name": "Ünïcødé \u202e\U0001f600 'q' \"dq\" \\ {}"},
        {"patient_latitude": "-90", "patient_longitude": "0.000001", "patient_date_of_birth": "0001-01-02"},
        {**EXAMPLE_PATIENT, "hospital_ids": ["hos789"]},
    ]
    states = [await get_record(client)]
    for step in steps:
        response = await client.put(PATIENT_PATH, json=step)
        assert response.status_code == 200, response.text
        states.append(response.json())
    for deleted in (False, True):
        for version in (5, 1, 8, 3, 6, 2, 7, 4):
            if deleted:
                assert (await client.delete(PATIENT_PATH)).status_code == 204
            after = await restore(client, PATIENT_PATH, version)
            assert without_last_updated(after) == without_last_updated(states[version - 1]), version
            entry = await newest_entry(client)
            assert entry.action == "restored"
            past = HistoryEntry.model_validate((await client.get(f"{PATIENT_PATH}history/{version}/")).json())
            assert entry.record is not None
            assert past.record is not None
            assert without_last_updated(entry.record) == without_last_updated(past.record)


async def test_restore_keeps_date_created_to_the_microsecond(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A restore keeps `date_created` to the microsecond, even of a whole second or before 1970."""
    for kind in RESOURCE_EXAMPLES:
        await client.post(kind.path, json=kind.create_body)
        for timestamp in ("1970-01-01T00:00:00Z", "2024-02-29T23:59:59.999999Z", "1899-12-31T00:00:00.000001Z"):
            # as an import may set it
            await connection.execute(f"UPDATE {kind.table} SET date_created = '{timestamp}'")  # noqa: S608
            await client.put(kind.record_path, json=kind.update_body)
            await client.put(kind.record_path, json=kind.minimal_body)
            version = (await newest_entry(client, kind.record_path)).version
            await client.delete(kind.record_path)
            assert (await restore(client, kind.record_path, version))["date_created"] == timestamp


async def test_restoring_the_current_state_changes_nothing(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """Restoring the current values writes nothing, not even `last_updated`."""
    for kind in RESOURCE_EXAMPLES:
        await client.post(kind.path, json=kind.create_body)
        await client.put(kind.record_path, json=kind.update_body)
        await client.put(kind.record_path, json=kind.minimal_body)
        before, rows = await get_record(client, kind.record_path), await dump_tables(connection)
        for version in (3, 1):
            assert await restore(client, kind.record_path, version) == before
        assert await dump_tables(connection) == rows


async def test_unknown_or_deleted_versions_cannot_be_restored(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A version that is unknown or a deletion is a 422, and an unknown record is a 404."""
    for kind in RESOURCE_EXAMPLES:
        await client.post(kind.path, json=kind.create_body)
        await client.delete(kind.record_path)
        await restore(client, kind.record_path, 1)
        for deleted in (False, True):
            if deleted:
                await client.delete(kind.record_path)
            rows = await dump_tables(connection)
            for version, problem in ((2, "version_deleted"), (9, "unknown_version"), (2**53 - 1, "unknown_version")):
                assert error_types(await client.post(f"{kind.record_path}restore/", json={"version": version})) == [
                    problem
                ]
            for unusable in (0, -1, 2**53, 1.5, "1", None, True, [1]):
                response = await client.post(f"{kind.record_path}restore/", json={"version": unusable})
                assert len(error_types(response)) == 1
            for unique_id in ("none", "OWN", "%00", "a" * 65):
                response = await client.post(f"{kind.path}{unique_id}/restore/", json={"version": 1})
                assert response.status_code == 404
            unreadable: list[Any] = [{}, {"version": 1, "skip": True}, {"version": 1, "skip_missing": "yes"}, []]
            for body in unreadable:
                assert (await client.post(f"{kind.record_path}restore/", json=body)).status_code == 422
            assert await dump_tables(connection) == rows


async def delete_linked_records(client: httpx.AsyncClient) -> None:
    """Delete the records that the contract's patient is linked to, except hospital hos456."""
    body: Json = {"patient_profile": None, "hospital_ids": [], "doctor_ids": []}
    if (await client.get(PATIENT_PATH)).status_code == 200:
        assert (await client.put(PATIENT_PATH, json=body)).status_code == 200
    for path in (f"{PROFILES}prof123/", "/hospitals/hospitals/hos123/", "/doctors/doctors/doc123/"):
        assert (await client.delete(path)).status_code == 204


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("deleted", [False, True], ids=["changed", "deleted"])
async def test_restore_names_missing_links_or_skips_them(
    client: httpx.AsyncClient, connection: asyncpg.Connection, *, deleted: bool
) -> None:
    """A restore names all missing hospitals, doctors and profiles, and skips them if `skip_missing` is set."""
    before = await get_record(client)
    if deleted:
        await client.delete(PATIENT_PATH)
    await delete_linked_records(client)
    rows = await dump_tables(connection)
    for body in ({"version": 1}, {"version": 1, "skip_missing": False}):
        response = await client.post(f"{PATIENT_PATH}restore/", json=body)
        assert sorted(error_types(response)) == ["missing_doctor", "missing_hospital", "missing_profile"]
        for unique_id in ("doc123", "hos123", "prof123"):
            assert unique_id in response.text
        assert "hos456" not in response.text
    assert await dump_tables(connection) == rows
    after = await restore(client, PATIENT_PATH, 1, skip_missing=True)
    without = {"patient_profile": None, "patient_hospital": before["patient_hospital"][1:], "patient_doctor": []}
    assert without_last_updated(after) == without_last_updated({**before, **without})
    entry = await newest_entry(client)
    assert entry.record is not None
    assert (entry.record["hospital_ids"], entry.record["doctor_ids"]) == (["hos456"], [])
    assert "profile_id" not in entry.record
    for path in (f"{PROFILES}prof123/", "/hospitals/hospitals/hos123/", "/doctors/doctors/doc123/"):
        await restore(client, path, 1)
    assert without_last_updated(await restore(client, PATIENT_PATH, 1)) == without_last_updated(before), (
        "with its links restored, the whole version can be"
    )


@pytest.mark.usefixtures("_patient")
async def test_skip_missing_keeps_existing_links(client: httpx.AsyncClient) -> None:
    """`skip_missing` keeps every link to an existing record."""
    before = await get_record(client)
    await client.delete(PATIENT_PATH)
    assert without_last_updated(await restore(client, PATIENT_PATH, 1, skip_missing=True)) == without_last_updated(
        before
    )


@pytest.mark.parametrize("deleted", [False, True], ids=["changed", "deleted"])
async def test_concurrent_restores_make_one_version(client: httpx.AsyncClient, *, deleted: bool) -> None:
    """One of several concurrent restores makes a version, and the others find it done or get a 409."""
    for kind in RESOURCE_EXAMPLES:
        for number in range(5):
            one = f"{kind.path}own-{number}/"
            await client.post(kind.path, json={**kind.minimal_body, "unique_id": f"own-{number}"})
            await (client.delete(one) if deleted else client.put(one, json=kind.update_body))
            restores = (client.post(f"{one}restore/", json={"version": 1}) for _ in range(3))
            responses = await asyncio.gather(*restores)
            statuses = {response.status_code for response in responses}
            assert 200 in statuses
            assert statuses <= {200, 409}
            entries = (await client.get(f"{one}history/")).json()
            assert [entry["action"] for entry in entries[:1]] == ["restored"]
            assert [entry["version"] for entry in entries] == [3, 2, 1]
            assert (await get_record(client, one)).items() >= kind.minimal_body.items()


async def test_a_restore_blocked_by_another_makes_no_second_version(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A restore that waits for another one of the same deleted record makes no second version."""
    await client.post(PATIENTS, json={"unique_id": "own", "patient_last_name": "Doe"})
    await client.delete(PATIENT_PATH)
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO patients (unique_id, patient_last_name, version) VALUES ('own', 'Doe', 3)"
        )
        await connection.execute(
            "INSERT INTO journal (resource, unique_id, version, action, actor, record)"
            " VALUES ('patients', 'own', 3, 'restored', 'me', '{}')"
        )
        restoring = asyncio.ensure_future(client.post(f"{PATIENT_PATH}restore/", json={"version": 1}))
        await wait_until_blocked(connection)
    assert (await restoring).status_code == 409
    assert (await newest_entry(client)).version == 3


async def follow_restore_hint(client: httpx.AsyncClient, refusal: httpx.Response, kind: ResourceExample) -> Json:
    """Follow the instructions in a 409 and return the restored record."""
    assert refusal.status_code == 409, refusal.text
    detail = refusal.json()["detail"]
    assert kind.name in detail
    match = RESTORE_HINT_PATTERN.search(detail)
    assert match is not None, detail
    headers = {"Content-Type": "application/json"}
    response = await client.post(f"{kind.record_path}restore/", content=match[1], headers=headers)
    assert response.status_code == 200, response.text
    return await get_record(client, kind.record_path)


async def test_posting_a_deleted_id_says_how_to_restore_it(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A POST with a deleted record's id is a 409, and its instructions restore the record."""
    for kind in RESOURCE_EXAMPLES:
        await client.post(kind.path, json=kind.create_body)
        before = (await client.put(kind.record_path, json=kind.update_body)).json()
        for _ in range(2):
            await client.delete(kind.record_path)
            rows = await dump_tables(connection)
            refusal = await client.post(kind.path, json=kind.create_body)
            assert await dump_tables(connection) == rows
            assert without_last_updated(await follow_restore_hint(client, refusal, kind)) == without_last_updated(
                before
            )


async def test_linking_a_deleted_profile_says_how_to_restore_it(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A deleted profile's id in a patient's write is a 409 that says how to restore it; a retry then works."""
    kind = RESOURCE_EXAMPLES[1]
    await client.post(PATIENTS, json={"unique_id": "own", "patient_last_name": "Doe"})
    for method, path, nested in (
        ("POST", PATIENTS, {"unique_id": "own"}),
        ("PUT", PATIENT_PATH, {"unique_id": "own", "email": "new@b.c"}),
    ):
        await client.post(kind.path, json={"unique_id": "own", "email": "a@b.c"})
        await client.delete(kind.record_path)
        body = {"patient_last_name": "Doe", "patient_profile": nested}
        rows = await dump_tables(connection)
        refusal = await client.request(method, path, json=body)
        assert await dump_tables(connection) == rows
        assert (await follow_restore_hint(client, refusal, kind))["email"] == "a@b.c"
        response = await client.request(method, path, json=body)
        assert response.is_success
        assert response.json()["patient_profile"]["email"] == nested.get("email", "a@b.c")
        await client.delete(response.headers.get("Location", PATIENT_PATH))
