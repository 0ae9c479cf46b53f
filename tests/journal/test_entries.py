"""Journal entries: each change of a record has exactly one, written in the same transaction."""

from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import jsonschema_rs
import pytest

from app.fields.history import HistoryEntry
from tests.support import EXAMPLE_PATIENT, RESOURCE_EXAMPLES, ResourceExample, dump_tables

PATIENTS = "/patients/patients/"
PROFILES = "/profiles/profiles/"
PATIENT_PATH = f"{PATIENTS}own/"
EXAMPLE_RECORD = {
    "profile_id": "prof123",
    **{name: value for name, value in EXAMPLE_PATIENT.items() if name != "patient_profile"},
    "hospital_ids": ["hos123", "hos456"],
    "doctor_ids": ["doc123"],
}
"""The record in the journal for the contract's example, without the dates."""


async def get_history(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    """Return a record's entries, newest first, and check each against the OpenAPI document's model."""
    response = await client.get(f"{path}history/")
    assert response.status_code == 200, response.text
    entries: list[dict[str, Any]] = response.json()
    for entry in entries:
        assert list(entry) == [name for name in HistoryEntry.model_fields if name != "merge" or name in entry]
        HistoryEntry.model_validate(entry)
    assert [entry["version"] for entry in entries] == list(range(len(entries), 0, -1))
    return entries


@pytest.mark.usefixtures("hospitals_and_doctors")
@pytest.mark.parametrize("resource", RESOURCE_EXAMPLES, ids=lambda resource: resource.name)
async def test_entries_have_the_published_schema(client: httpx.AsyncClient, resource: ResourceExample) -> None:
    """Each entry is valid by the schema of its resource, which names every field of a record and of its changes."""
    body = EXAMPLE_PATIENT if resource.name == "patient" else resource.minimal_body
    assert (await client.post(resource.path, json={**body, "unique_id": "own"})).status_code == 201
    assert (await client.put(resource.record_path, json=resource.update_body)).status_code == 200
    assert (await client.delete(resource.record_path)).status_code == 204
    assert (await client.post(f"{resource.record_path}restore/", json={"version": 1})).status_code == 200
    components = (await client.get("/openapi.json")).json()["components"]
    name = resource.name.capitalize()
    validator = jsonschema_rs.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}HistoryEntry", "components": components}
    )
    snapshot, changes = (components["schemas"][f"{name}{part}"]["properties"] for part in ("Snapshot", "Changes"))
    for entry in await get_history(client, resource.record_path):
        assert list(validator.iter_errors(entry)) == []
        assert (entry["record"] or {}).keys() <= snapshot.keys()
        assert entry["changes"].keys() <= changes.keys()
    if resource.name == "patient":
        others = {"date_created", "last_updated", "patient_identifiers"}  # the last one only if there are any
        assert snapshot.keys() == EXAMPLE_RECORD.keys() | others
    assert snapshot.keys() - changes.keys() == {"last_updated"}


async def put_and_get_changes(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    """Send a PUT to the patient and return the `changes` of its entry."""
    response = await client.put(PATIENT_PATH, json=body)
    assert response.status_code == 200, response.text
    entry = (await get_history(client, PATIENT_PATH))[0]
    assert entry["request_id"] == response.headers["X-Request-ID"]
    changes: dict[str, Any] = entry["changes"]
    return changes


async def count_entries(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM journal"))


def parse_timestamp(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.fixture
async def _patient(client: httpx.AsyncClient, hospitals_and_doctors: None) -> None:  # noqa: ARG001  # hospitals
    """Create the patient of the contract's example as `own`."""
    assert (await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "own"})).status_code == 201


async def test_each_change_has_an_entry(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Every creation, change, deletion and restore has an entry with the action, time, actor and request."""
    for kind in RESOURCE_EXAMPLES:
        steps: list[tuple[str, str, str, dict[str, Any] | None]] = [
            ("created", "POST", kind.path, kind.create_body),
            ("updated", "PUT", kind.record_path, kind.update_body),
            ("updated", "PATCH", kind.record_path, kind.minimal_body),
            ("deleted", "DELETE", kind.record_path, None),
            ("restored", "POST", f"{kind.record_path}restore/", {"version": 2}),
        ]
        before = await count_entries(connection)
        for version, (action, method, path, body) in enumerate(steps, 1):
            began = datetime.now(UTC)
            response = await client.request(method, path, json=body)
            assert response.is_success, response.text
            entry = (await get_history(client, kind.record_path))[0]
            assert (entry["version"], entry["action"], entry["actor"]) == (version, action, "local")
            assert entry["request_id"] == response.headers["X-Request-ID"]
            assert began <= parse_timestamp(entry["time"]) <= datetime.now(UTC)
            if action == "deleted":
                assert entry["record"] is None
            else:
                now = response.json()
                dates = {name: now[name] for name in ("date_created", "last_updated")}
                fields = kind.update_body if action == "restored" or method == "PUT" else kind.minimal_body
                links: dict[str, list[str]] = {"hospital_ids": [], "doctor_ids": []} if kind.name == "patient" else {}
                assert entry["record"] == {**fields, **dates, **links}
            assert await count_entries(connection) == before + version, "exactly one entry, and none of another record"


async def test_entry_is_written_in_the_transaction_of_the_change(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A record and its newest entry are written by the same transaction."""
    for kind in RESOURCE_EXAMPLES:
        newest = (
            f"SELECT r.xmin = j.xmin FROM {kind.table} r JOIN journal j USING (unique_id, version)"  # noqa: S608
            f" WHERE j.resource = '{kind.table}'"
        )
        for method, path, body in (
            ("POST", kind.path, kind.create_body),
            ("PUT", kind.record_path, kind.update_body),
            ("POST", f"{kind.record_path}restore/", {"version": 1}),
        ):
            assert (await client.request(method, path, json=body)).is_success
            assert [row[0] for row in await connection.fetch(newest)] == [True]


async def test_entry_has_the_request_id_of_the_client(client: httpx.AsyncClient) -> None:
    """An entry has the `X-Request-ID` that the client sends."""
    await client.post(
        PATIENTS, json={"unique_id": "own", "patient_last_name": "Doe"}, headers={"X-Request-ID": "mine-1"}
    )
    await client.delete(PATIENT_PATH, headers={"X-Request-ID": "mine-2"})
    assert [entry["request_id"] for entry in await get_history(client, PATIENT_PATH)] == ["mine-2", "mine-1"]


@pytest.mark.usefixtures("_patient")
async def test_entry_record_has_the_patients_fields_and_link_ids(client: httpx.AsyncClient) -> None:
    """An entry's record has the patient's own fields and the sorted ids of its links, without nulls."""
    (entry,) = await get_history(client, PATIENT_PATH)
    now = (await client.get(PATIENT_PATH)).json()
    dates = {name: now[name] for name in ("date_created", "last_updated")}
    assert entry["record"] == {**EXAMPLE_RECORD, **dates}
    body = {
        "patient_profile": None,
        "patient_title": None,
        "hospital_ids": ["hos789", "hos123", "hos456"],
        "doctor_ids": [],
    }
    await client.put(PATIENT_PATH, json=body)
    record = (await get_history(client, PATIENT_PATH))[0]["record"]
    assert "profile_id" not in record
    assert "patient_title" not in record
    assert (record["hospital_ids"], record["doctor_ids"]) == (["hos123", "hos456", "hos789"], [])


@pytest.mark.usefixtures("_patient")
async def test_entry_changes_have_old_and_new_values(client: httpx.AsyncClient) -> None:
    """An entry has the old and the new value of each changed field, with `null` for no value."""
    for body, expected in (
        ({"patient_title": "Dr."}, {"patient_title": ("Mr.", "Dr.")}),
        ({"patient_title": None}, {"patient_title": ("Dr.", None)}),
        ({"patient_title": "Prof."}, {"patient_title": (None, "Prof.")}),
        ({"patient_latitude": 1, "patient_gender": "F"}, {
            "patient_latitude": ("12.345678", "1.000000"), "patient_gender": ("Male", "Female")
        }),
        ({"hospital_ids": ["hos789", "hos123"]}, {"hospital_ids": (["hos123", "hos456"], ["hos123", "hos789"])}),
        ({"doctor_ids": []}, {"doctor_ids": (["doc123"], [])}),
        ({"patient_profile": None}, {"profile_id": ("prof123", None)}),
        ({"patient_profile": {"unique_id": "prof9"}}, {"profile_id": (None, "prof9")}),
        ({"patient_date_of_birth": "1999-12-31", "patient_title": "Prof."}, {
            "patient_date_of_birth": ("1980-01-01", "1999-12-31")
        }),
    ):  # fmt: skip
        changes = {field: {"from": before, "to": after} for field, (before, after) in expected.items()}
        assert await put_and_get_changes(client, body) == changes


async def test_creation_and_deletion_entries_list_all_fields(client: httpx.AsyncClient) -> None:
    """A creation and a restore change every field from `null`, and a deletion changes every field to `null`."""
    for kind in RESOURCE_EXAMPLES:
        await client.post(kind.path, json=kind.create_body)
        await client.delete(kind.record_path)
        await client.post(f"{kind.record_path}restore/", json={"version": 1})
        restored, deleted, created = await get_history(client, kind.record_path)
        was = {name: value for name, value in created["record"].items() if name != "last_updated"}
        assert created["changes"] == {name: {"from": None, "to": value} for name, value in was.items()}
        assert deleted["changes"] == {name: {"from": value, "to": None} for name, value in was.items()}
        assert restored["changes"] == created["changes"]


@pytest.mark.usefixtures("_patient")
async def test_changes_of_linked_records_change_no_earlier_entry(client: httpx.AsyncClient) -> None:
    """A later change of a linked hospital, doctor or profile neither changes nor adds an entry of the patient."""
    before = (await client.get(f"{PATIENT_PATH}history/")).content
    for path, change in (
        ("/hospitals/hospitals/hos123/", {"hospital_name": "Renamed"}),
        ("/doctors/doctors/doc123/", {"doctor_first_name": "Renamed"}),
        (f"{PROFILES}prof123/", {"first_name": "Renamed"}),
    ):
        assert (await client.put(path, json=change)).status_code == 200
        assert (await client.get(f"{PATIENT_PATH}history/")).content == before


@pytest.mark.usefixtures("_patient")
async def test_nested_profile_has_entries_of_its_own(client: httpx.AsyncClient) -> None:
    """A profile created or changed with its patient gets an entry in its own history; an unchanged one does not."""
    profile = f"{PROFILES}prof123/"
    (first,) = await get_history(client, profile)
    assert first["action"] == "created"
    assert first["request_id"] == (await get_history(client, PATIENT_PATH))[0]["request_id"]
    response = await client.put(
        PATIENT_PATH, json={"patient_profile": {"unique_id": "prof123", "email": None, "last_name": "Roe"}}
    )
    second = (await get_history(client, profile))[0]
    assert (second["action"], second["actor"]) == ("updated", "local")
    assert second["request_id"] == response.headers["X-Request-ID"]
    assert second["changes"] == {
        "email": {"from": "user@example.com", "to": None},
        "last_name": {"from": "Doe", "to": "Roe"},
    }
    assert len(await get_history(client, PATIENT_PATH)) == 1, "the patient itself does not change"
    response = await client.post(
        PATIENTS, json={"patient_last_name": "Doe", "patient_profile": {"unique_id": "prof123", "email": "a@b.c"}}
    )
    third = (await get_history(client, profile))[0]
    assert (third["version"], third["request_id"]) == (3, response.headers["X-Request-ID"])
    for nested in ({"unique_id": "prof123"}, {"unique_id": "prof123", "email": "a@b.c", "last_name": " Roe "}):
        assert (await client.post(PATIENTS, json={"patient_last_name": "Doe", "patient_profile": nested})).is_success
        assert (await client.put(PATIENT_PATH, json={"patient_title": None, "patient_profile": nested})).is_success
    assert len(await get_history(client, profile)) == 3


@pytest.mark.usefixtures("_patient")
async def test_change_that_changes_nothing_has_no_entry(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A request that leaves a record as it is, or is refused, writes no journal entry."""
    before = await dump_tables(connection)
    same: list[dict[str, Any]] = [
        {},
        EXAMPLE_PATIENT,
        (await client.get(PATIENT_PATH)).json(),
        {"hospital_ids": ["hos456", "hos123"]},
    ]
    for body in same:
        assert (await client.put(PATIENT_PATH, json=body)).status_code == 200
    for kind in RESOURCE_EXAMPLES[1:]:
        for unchanged in (await client.get(kind.path)).json():
            path = f"{kind.path}{unchanged['unique_id']}/"
            assert (await client.patch(path, json=unchanged)).status_code == 200
    for method, path, body, status in (
        ("POST", PATIENTS, {"unique_id": "own", "patient_last_name": "Roe"}, 409),
        ("PUT", PATIENT_PATH, {"patient_title": "Dr.", "hospital_ids": ["hos9"]}, 422),
        (
            "PUT",
            PATIENT_PATH,
            {"patient_title": "Dr.", "patient_profile": {"unique_id": "new"}, "doctor_ids": ["doc9"]},
            422,
        ),
        ("DELETE", f"{PROFILES}prof123/", {}, 409),
    ):
        assert (await client.request(method, path, json=body)).status_code == status
    assert await dump_tables(connection) == before


async def make_entries_fail(connection: asyncpg.Connection, resource: str) -> None:
    """Make every entry about a resource fail."""
    await connection.execute(
        f"""
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room'; END $$;
        CREATE TRIGGER fail BEFORE INSERT ON journal FOR EACH ROW
            WHEN (new.resource = '{resource}') EXECUTE FUNCTION fail()
        """
    )


async def remove_failure(connection: asyncpg.Connection) -> None:
    await connection.execute("DROP TRIGGER fail ON journal; DROP FUNCTION fail")


@pytest.mark.parametrize("kind", RESOURCE_EXAMPLES, ids=lambda kind: kind.name)
async def test_a_change_that_cannot_be_journaled_is_not_made(
    client: httpx.AsyncClient, connection: asyncpg.Connection, kind: ResourceExample
) -> None:
    """If the journal entry cannot be written, nothing is created, changed, deleted or restored."""
    await client.post(kind.path, json=kind.create_body)
    await client.put(kind.record_path, json=kind.update_body)
    steps: list[tuple[str, str, dict[str, Any] | None]] = [
        ("POST", kind.path, kind.minimal_body),
        ("PUT", kind.record_path, kind.minimal_body),
        ("POST", f"{kind.record_path}restore/", {"version": 2}),
        ("DELETE", kind.record_path, None),
        ("POST", f"{kind.record_path}restore/", {"version": 1}),
    ]
    for method, path, body in steps:
        await make_entries_fail(connection, kind.table)
        before = await dump_tables(connection)
        response = await client.request(method, path, json=body, headers={"Idempotency-Key": f"{method}-{path}"})
        assert response.status_code == 500, (method, path)
        assert await dump_tables(connection) == before
        await remove_failure(connection)
        assert (await client.request(method, path, json=body)).is_success, "the trigger was not the cause"


async def test_a_nested_profile_that_cannot_be_journaled_is_not_stored(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """If the profile's entry cannot be written, neither the profile nor its patient is stored."""
    body = {"patient_last_name": "Doe", "patient_profile": {"unique_id": "prof", "email": "a@b.c"}}
    await client.post(PATIENTS, json={**body, "unique_id": "own"})
    await make_entries_fail(connection, "profiles")
    before = await dump_tables(connection)
    nested = {"patient_title": "Dr.", "patient_profile": {"unique_id": "prof", "email": None}}
    for method, path in (("POST", PATIENTS), ("PUT", PATIENT_PATH)):
        assert (await client.request(method, path, json={"patient_last_name": "Roe", **nested})).status_code == 500
    assert await dump_tables(connection) == before
    await remove_failure(connection)
    assert (await client.put(PATIENT_PATH, json=nested)).status_code == 200, "the trigger was not the cause"
