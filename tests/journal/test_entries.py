"""Entries of the journal: each change of each record has one, written with it or not at all."""

from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import pytest

from app.journal.schemas import Entry
from tests.support import EXAMPLE, KINDS, Kind, dump

PATIENTS = "/patients/patients/"
PROFILES = "/profiles/profiles/"
ONE = f"{PATIENTS}own/"
EXAMPLE_RECORD = {
    "profile_id": "prof123",
    **{name: value for name, value in EXAMPLE.items() if name != "patient_profile"},
    "hospital_ids": ["hos123", "hos456"],
    "doctor_ids": ["doc123"],
}
"""What the journal holds of the contract's example, beside the dates."""


async def history(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    """The entries of a record, newest first; each is as the OpenAPI document says."""
    answer = await client.get(f"{path}history/")
    assert answer.status_code == 200, answer.text
    entries: list[dict[str, Any]] = answer.json()
    for entry in entries:
        assert list(entry) == list(Entry.model_fields)
        Entry.model_validate(entry)
    assert [entry["version"] for entry in entries] == list(range(len(entries), 0, -1))
    return entries


async def changed(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    """The `changes` of a PUT of the patient."""
    answer = await client.put(ONE, json=body)
    assert answer.status_code == 200, answer.text
    entry = (await history(client, ONE))[0]
    assert entry["request_id"] == answer.headers["X-Request-ID"]
    changes: dict[str, Any] = entry["changes"]
    return changes


async def count(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM journal"))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.fixture
async def _patient(client: httpx.AsyncClient, directory: None) -> None:  # noqa: ARG001  # its hospitals
    """The patient of the contract's example, as `own`."""
    assert (await client.post(PATIENTS, json={**EXAMPLE, "unique_id": "own"})).status_code == 201


async def test_each_change_has_an_entry(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Creating, changing, deleting and restoring any record is written down: what, when, by whom, in which request."""
    for kind in KINDS:
        steps: list[tuple[str, str, str, dict[str, Any] | None]] = [
            ("created", "POST", kind.path, kind.own),
            ("updated", "PUT", kind.one, kind.change),
            ("updated", "PATCH", kind.one, kind.least),
            ("deleted", "DELETE", kind.one, None),
            ("restored", "POST", f"{kind.one}restore/", {"version": 2}),
        ]
        before = await count(connection)
        for version, (action, method, path, body) in enumerate(steps, 1):
            began = datetime.now(UTC)
            answer = await client.request(method, path, json=body)
            assert answer.is_success, answer.text
            entry = (await history(client, kind.one))[0]
            assert (entry["version"], entry["action"], entry["actor"]) == (version, action, "local")
            assert entry["request_id"] == answer.headers["X-Request-ID"]
            assert began <= moment(entry["time"]) <= datetime.now(UTC)
            if action == "deleted":
                assert entry["record"] is None
            else:
                now = answer.json()
                dates = {name: now[name] for name in ("date_created", "last_updated")}
                fields = kind.change if action == "restored" or method == "PUT" else kind.least
                links: dict[str, list[str]] = {"hospital_ids": [], "doctor_ids": []} if kind.name == "patient" else {}
                assert entry["record"] == {**fields, **dates, **links}
            assert await count(connection) == before + version, "one, and none of another record"


async def test_entry_is_written_in_the_transaction_of_the_change(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A record and its newest entry come from one transaction."""
    for kind in KINDS:
        newest = (
            f"SELECT r.xmin = j.xmin FROM {kind.table} r JOIN journal j USING (unique_id, version)"  # noqa: S608
            f" WHERE j.resource = '{kind.table}'"
        )
        for method, path, body in (
            ("POST", kind.path, kind.own),
            ("PUT", kind.one, kind.change),
            ("POST", f"{kind.one}restore/", {"version": 1}),
        ):
            assert (await client.request(method, path, json=body)).is_success
            assert [row[0] for row in await connection.fetch(newest)] == [True]


async def test_request_id_of_the_client(client: httpx.AsyncClient) -> None:
    """An `X-Request-ID` that the client sends is the entry's."""
    await client.post(
        PATIENTS, json={"unique_id": "own", "patient_last_name": "Doe"}, headers={"X-Request-ID": "mine-1"}
    )
    await client.delete(ONE, headers={"X-Request-ID": "mine-2"})
    assert [entry["request_id"] for entry in await history(client, ONE)] == ["mine-2", "mine-1"]


@pytest.mark.usefixtures("_patient")
async def test_record_is_what_the_patient_was(client: httpx.AsyncClient) -> None:
    """An entry's record has the patient's own fields, and the sorted ids of what it is linked to; no nulls."""
    (entry,) = await history(client, ONE)
    now = (await client.get(ONE)).json()
    dates = {name: now[name] for name in ("date_created", "last_updated")}
    assert entry["record"] == {**EXAMPLE_RECORD, **dates}
    body = {
        "patient_profile": None,
        "patient_title": None,
        "hospital_ids": ["hos789", "hos123", "hos456"],
        "doctor_ids": [],
    }
    await client.put(ONE, json=body)
    record = (await history(client, ONE))[0]["record"]
    assert "profile_id" not in record
    assert "patient_title" not in record
    assert (record["hospital_ids"], record["doctor_ids"]) == (["hos123", "hos456", "hos789"], [])


@pytest.mark.usefixtures("_patient")
async def test_changes_are_from_and_to(client: httpx.AsyncClient) -> None:
    """An entry tells of each field that became another value what it was and what it is; `null` where there is none."""
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
        assert await changed(client, body) == changes


async def test_changes_of_creation_and_deletion(client: httpx.AsyncClient) -> None:
    """A creation changes from nothing, a deletion to nothing, a restore from nothing again."""
    for kind in KINDS:
        await client.post(kind.path, json=kind.own)
        await client.delete(kind.one)
        await client.post(f"{kind.one}restore/", json={"version": 1})
        restored, deleted, created = await history(client, kind.one)
        was = {name: value for name, value in created["record"].items() if name != "last_updated"}
        assert created["changes"] == {name: {"from": None, "to": value} for name, value in was.items()}
        assert deleted["changes"] == {name: {"from": value, "to": None} for name, value in was.items()}
        assert restored["changes"] == created["changes"]


@pytest.mark.usefixtures("_patient")
async def test_later_names_do_not_change_what_was(client: httpx.AsyncClient) -> None:
    """A hospital, doctor or profile that changes later changes no entry of a patient, and writes none of it."""
    before = (await client.get(f"{ONE}history/")).content
    for path, change in (
        ("/hospitals/hospitals/hos123/", {"hospital_name": "Renamed"}),
        ("/doctors/doctors/doc123/", {"doctor_first_name": "Renamed"}),
        (f"{PROFILES}prof123/", {"first_name": "Renamed"}),
    ):
        assert (await client.put(path, json=change)).status_code == 200
        assert (await client.get(f"{ONE}history/")).content == before


@pytest.mark.usefixtures("_patient")
async def test_nested_profile_has_entries_of_its_own(client: httpx.AsyncClient) -> None:
    """A profile created or changed with its patient is written down in its own history; unchanged, it is not."""
    profile = f"{PROFILES}prof123/"
    (first,) = await history(client, profile)
    assert first["action"] == "created"
    assert first["request_id"] == (await history(client, ONE))[0]["request_id"]
    answer = await client.put(
        ONE, json={"patient_profile": {"unique_id": "prof123", "email": None, "last_name": "Roe"}}
    )
    second = (await history(client, profile))[0]
    assert (second["action"], second["actor"]) == ("updated", "local")
    assert second["request_id"] == answer.headers["X-Request-ID"]
    assert second["changes"] == {
        "email": {"from": "user@example.com", "to": None},
        "last_name": {"from": "Doe", "to": "Roe"},
    }
    assert len(await history(client, ONE)) == 1, "the patient itself has not changed"
    answer = await client.post(
        PATIENTS, json={"patient_last_name": "Doe", "patient_profile": {"unique_id": "prof123", "email": "a@b.c"}}
    )
    third = (await history(client, profile))[0]
    assert (third["version"], third["request_id"]) == (3, answer.headers["X-Request-ID"])
    for nested in ({"unique_id": "prof123"}, {"unique_id": "prof123", "email": "a@b.c", "last_name": " Roe "}):
        assert (await client.post(PATIENTS, json={"patient_last_name": "Doe", "patient_profile": nested})).is_success
        assert (await client.put(ONE, json={"patient_title": None, "patient_profile": nested})).is_success
    assert len(await history(client, profile)) == 3


@pytest.mark.usefixtures("_patient")
async def test_change_that_changes_nothing_has_no_entry(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """Whatever leaves a record as it is, a refusal too, writes nothing into the journal."""
    before = await dump(connection)
    same: list[dict[str, Any]] = [{}, EXAMPLE, (await client.get(ONE)).json(), {"hospital_ids": ["hos456", "hos123"]}]
    for body in same:
        assert (await client.put(ONE, json=body)).status_code == 200
    for kind in KINDS[1:]:
        for unchanged in (await client.get(kind.path)).json():
            path = f"{kind.path}{unchanged['unique_id']}/"
            assert (await client.patch(path, json=unchanged)).status_code == 200
    for method, path, body, status in (
        ("POST", PATIENTS, {"unique_id": "own", "patient_last_name": "Roe"}, 409),
        ("PUT", ONE, {"patient_title": "Dr.", "hospital_ids": ["hos9"]}, 422),
        ("PUT", ONE, {"patient_title": "Dr.", "patient_profile": {"unique_id": "new"}, "doctor_ids": ["doc9"]}, 422),
        ("DELETE", f"{PROFILES}prof123/", {}, 409),
    ):
        assert (await client.request(method, path, json=body)).status_code == status
    assert await dump(connection) == before


async def fail_on_journal(connection: asyncpg.Connection, resource: str) -> None:
    """Make every entry about a resource fail."""
    await connection.execute(
        f"""
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room'; END $$;
        CREATE TRIGGER fail BEFORE INSERT ON journal FOR EACH ROW
            WHEN (new.resource = '{resource}') EXECUTE FUNCTION fail()
        """
    )


async def mend(connection: asyncpg.Connection) -> None:
    await connection.execute("DROP TRIGGER fail ON journal; DROP FUNCTION fail")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_what_cannot_be_written_down_is_not_done(
    client: httpx.AsyncClient, connection: asyncpg.Connection, kind: Kind
) -> None:
    """Where the journal takes no entry, nothing is created, changed, deleted or restored."""
    await client.post(kind.path, json=kind.own)
    await client.put(kind.one, json=kind.change)
    steps: list[tuple[str, str, dict[str, Any] | None]] = [
        ("POST", kind.path, kind.least),
        ("PUT", kind.one, kind.least),
        ("POST", f"{kind.one}restore/", {"version": 2}),
        ("DELETE", kind.one, None),
        ("POST", f"{kind.one}restore/", {"version": 1}),
    ]
    for method, path, body in steps:
        await fail_on_journal(connection, kind.table)
        before = await dump(connection)
        answer = await client.request(method, path, json=body, headers={"Idempotency-Key": f"{method}-{path}"})
        assert answer.status_code == 500, (method, path)
        assert await dump(connection) == before
        await mend(connection)
        assert (await client.request(method, path, json=body)).is_success, "it was the trigger"


async def test_nested_profile_that_cannot_be_written_down(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """Where the profile's entry cannot be written, neither the profile nor its patient is stored."""
    body = {"patient_last_name": "Doe", "patient_profile": {"unique_id": "prof", "email": "a@b.c"}}
    await client.post(PATIENTS, json={**body, "unique_id": "own"})
    await fail_on_journal(connection, "profiles")
    before = await dump(connection)
    nested = {"patient_title": "Dr.", "patient_profile": {"unique_id": "prof", "email": None}}
    for method, path in (("POST", PATIENTS), ("PUT", ONE)):
        assert (await client.request(method, path, json={"patient_last_name": "Roe", **nested})).status_code == 500
    assert await dump(connection) == before
    await mend(connection)
    assert (await client.put(ONE, json=nested)).status_code == 200, "it was the trigger"
