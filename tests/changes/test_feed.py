"""`GET /changes/`: what the feed lists, in which order, and how it is paged."""

import json
from typing import Any

import asyncpg
import httpx
import pytest

from tests.changes.conftest import CHANGES, Follower, insert_patients_of, summary

PATIENTS = "/patients/patients/"
HOSPITALS = "/hospitals/hospitals/"
DOCTORS = "/doctors/doctors/"
PROFILES = "/profiles/profiles/"


async def create(client: httpx.AsyncClient, path: str, **body: Any) -> None:
    assert (await client.post(path, json=body)).status_code == 201


async def test_every_kind_of_change_is_listed_once_and_in_order(client: httpx.AsyncClient) -> None:
    """Creations, updates, deletions and restores are listed with the versions that the history has."""
    await create(client, PATIENTS, unique_id="pat", patient_last_name="Doe")
    await client.put(f"{PATIENTS}pat/", json={"patient_last_name": "Roe"})
    await client.put(f"{PATIENTS}pat/", json={"patient_last_name": "Roe"})  # changes nothing
    await client.delete(f"{PATIENTS}pat/")
    await client.post(f"{PATIENTS}pat/restore/", json={"version": 1})
    response = await client.get(CHANGES)
    changes = response.json()
    assert summary(changes) == [
        (action, "patients", "pat", version)
        for version, action in enumerate(("created", "updated", "deleted", "restored"), start=1)
    ]
    assert [change["position"] for change in changes] == [1, 2, 3, 4]
    history = (await client.get(f"{PATIENTS}pat/history/")).json()
    assert [change["time"] for change in changes] == [entry["time"] for entry in reversed(history)]
    assert (await client.get(CHANGES, params={"after": response.headers["Next-Cursor"]})).json() == []


async def test_pages_follow_each_other_without_gaps(client: httpx.AsyncClient) -> None:
    """Pages of any size list the same changes as one page, and `after=now` begins after them."""
    for number in range(7):
        await create(client, HOSPITALS, unique_id=f"hos{number}", hospital_name="Clinic")
    whole = await Follower(client).read()
    assert len(whole) == 7
    assert await Follower(client).read_all(limit=2) == whole
    newest = Follower(client, "now")
    assert await newest.read() == []
    await create(client, HOSPITALS, unique_id="new", hospital_name="Clinic")
    assert summary(await newest.read()) == [("created", "hospitals", "new", 1)]


async def test_resources_can_be_chosen(client: httpx.AsyncClient) -> None:
    """`resource` selects the changes of one or more resources, and the cursor can be used with any selection."""
    await create(client, HOSPITALS, unique_id="hos", hospital_name="Clinic")
    await create(client, DOCTORS, unique_id="doc", doctor_first_name="Ann")
    await create(client, PATIENTS, unique_id="pat", patient_last_name="Doe")
    assert [c["resource"] for c in await Follower(client, resource="doctors").read_all(limit=1)] == ["doctors"]
    both = Follower(client, resource=["patients", "hospitals"])
    assert [change["resource"] for change in await both.read()] == ["hospitals", "patients"]
    assert await Follower(client, both.cursor).read() == []


@pytest.mark.parametrize(
    ("path", "change", "because", "link"),
    [
        (HOSPITALS, {"hospital_name": "Renamed"}, "hospitals", {"hospital_ids": ["one"]}),
        (DOCTORS, {"doctor_first_name": "Eve"}, "doctors", {"doctor_ids": ["one"]}),
        (PROFILES, {"first_name": "Eve"}, "profiles", {"patient_profile": {"unique_id": "one"}}),
    ],
)
async def test_patients_that_show_a_changed_record_are_affected(
    client: httpx.AsyncClient, path: str, change: dict[str, str], because: str, link: dict[str, Any]
) -> None:
    """A change of a record that patients show is followed by a change that lists these patients, also if restored."""
    await create(client, path, unique_id="one", **dict.fromkeys(change, "First"))
    follower = Follower(client, "now")
    await follower.read()
    await client.put(f"{path}one/", json=dict.fromkeys(change, "Second"))
    assert summary(await follower.read()) == [("updated", because, "one", 2)]  # no patient shows it
    for patient in ("pat2", "pat1"):
        await create(client, PATIENTS, unique_id=patient, patient_last_name="Doe", **link)
    await follower.read_all()
    await client.put(f"{path}one/", json=change)
    await client.post(f"{path}one/restore/", json={"version": 1})
    changes = await follower.read_all()
    assert [change["action"] for change in changes] == ["updated", "affected", "restored", "affected"]
    for version, affected in ((3, changes[1]), (4, changes[3])):
        assert affected["because"] == {"resource": because, "unique_id": "one", "version": version}
        assert affected["patients"] == ["pat1", "pat2"]
        assert summary([affected]) == [("affected", "patients", None, None)]
    assert [c["action"] for c in await Follower(client, resource="patients").read()].count("affected") == 2


async def test_pages_before_the_end_are_not_empty(client: httpx.AsyncClient) -> None:
    """Changes whose patients no longer show the record are listed without patients, so that no page is empty."""
    await create(client, HOSPITALS, unique_id="hos", hospital_name="Clinic")
    await create(client, PATIENTS, unique_id="pat", patient_last_name="Doe", hospital_ids=["hos"])
    for number in range(6):
        await client.put(f"{HOSPITALS}hos/", json={"hospital_name": f"Name {number}"})
    await client.get(CHANGES)
    await client.delete(f"{PATIENTS}pat/")
    changes = await Follower(client, resource="patients", limit=1).read_all()
    assert [change["action"] for change in changes] == ["created", *["affected"] * 6, "deleted"]
    assert [change["patients"] for change in changes[1:-1]] == [[]] * 6


async def test_too_many_affected_patients_are_not_listed(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """If more than 250 patients show a changed record, the change says so instead of listing them."""
    await create(client, HOSPITALS, unique_id="hos", hospital_name="Clinic")
    await insert_patients_of(connection, "hos", 250)
    follower = Follower(client, "now")
    await follower.read()
    await client.put(f"{HOSPITALS}hos/", json={"hospital_name": "Renamed"})
    (_, affected) = await follower.read()
    assert len(affected["patients"]) == 250
    await create(client, PATIENTS, unique_id="one-more", patient_last_name="Doe", hospital_ids=["hos"])
    await client.put(f"{HOSPITALS}hos/", json={"hospital_name": "Renamed again"})
    *_, affected = await follower.read()
    assert (affected["action"], affected["patients"]) == ("affected", None)
    assert affected["because"] == {"resource": "hospitals", "unique_id": "hos", "version": 3}


async def test_a_page_lists_only_so_many_affected_patients(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A page of changes that affect many patients ends before it exceeds a megabyte, and the next one continues."""
    await create(client, HOSPITALS, unique_id="hos", hospital_name="Clinic")
    await insert_patients_of(connection, "hos", 250, "p" * 60)
    follower = Follower(client, "now", limit=1000)
    await follower.read()
    for number in range(70):
        await client.put(f"{HOSPITALS}hos/", json={"hospital_name": f"Name {number}"})
    pages = []
    while page := await follower.read():
        pages.append(page)
    assert all(len(json.dumps(page)) < 600_000 for page in pages)
    assert len(pages) == 3
    changes = [change for page in pages for change in page]
    assert [change["action"] for change in changes] == ["updated", "affected"] * 70
    assert [change["position"] for change in changes] == list(range(2, 142))
    assert {len(change["patients"]) for change in changes if change["action"] == "affected"} == {250}


async def test_a_late_commit_gets_a_later_position(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A transaction that stays open delays nobody, and its change is listed when it commits."""
    insert = (
        "INSERT INTO journal (resource, unique_id, version, action, actor, record) "
        "VALUES ('doctors', 'slow', 1, 'created', 'local', '{}')"
    )
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(insert)
    await create(client, HOSPITALS, unique_id="quick", hospital_name="Clinic")
    follower = Follower(client)
    assert [change["unique_id"] for change in await follower.read()] == ["quick"]
    await transaction.commit()
    assert [change["unique_id"] for change in await follower.read()] == ["slow"]


async def test_more_changes_than_one_batch_are_numbered(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """Any number of pending changes is numbered, in batches, and each is listed once."""
    await connection.execute(
        "INSERT INTO journal (resource, unique_id, version, action, actor, record) "
        "SELECT 'doctors', 'doc' || i, 1, 'created', 'local', '{}' FROM generate_series(1, 12000) i"
    )
    positions = [change["position"] for change in await Follower(client).read_all(limit=1000)]
    assert positions == list(range(1, 12001))


async def test_records_can_be_included(client: httpx.AsyncClient) -> None:
    """`include=record` adds each record as it is now, or null if it is gone."""
    await create(client, PATIENTS, unique_id="pat", patient_last_name="Doe")
    await create(client, DOCTORS, unique_id="doc", doctor_first_name="Ann")
    await client.delete(f"{DOCTORS}doc/")
    await client.put(f"{PATIENTS}pat/", json={"patient_last_name": "Roe"})
    changes = await Follower(client, include="record").read()
    patient = (await client.get(f"{PATIENTS}pat/")).json()
    assert [change["record"] for change in changes] == [patient, None, None, patient]


@pytest.mark.parametrize(
    ("parameters", "location", "code"),
    [
        ({"after": "nonsense"}, "after", "cursor"),
        ({"limit": "0"}, "limit", "greater_than_equal"),
        ({"wait": "26"}, "wait", "less_than_equal"),
        ({"resource": "nurses"}, "resource", "literal_error"),
        ({"cursor": "x"}, "cursor", "extra_forbidden"),
    ],
)
async def test_wrong_parameters_are_named(
    client: httpx.AsyncClient, parameters: dict[str, str], location: str, code: str
) -> None:
    """A wrong parameter is a 422 that names it."""
    response = await client.get(CHANGES, params=parameters)
    assert response.status_code == 422
    assert [(error["loc"][1], error["type"]) for error in response.json()["errors"]] == [(location, code)]


async def test_a_wrong_last_event_is_named(client: httpx.AsyncClient) -> None:
    """A `Last-Event-ID` that is no cursor is a 422 that names the header, also beside a parameter."""
    response = await client.get(CHANGES, params={"after": "now"}, headers={"Last-Event-ID": "nonsense"})
    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["header", "Last-Event-ID"]


async def test_cursors_of_lists_and_of_the_feed_are_not_interchangeable(client: httpx.AsyncClient) -> None:
    """A cursor of a list is refused by the feed, and the other way round."""
    for number in range(2):
        await create(client, HOSPITALS, unique_id=f"hos{number}", hospital_name="Clinic")
    list_cursor = (await client.get(HOSPITALS, params={"limit": 1})).headers["Next-Cursor"]
    feed_cursor = (await client.get(CHANGES)).headers["Next-Cursor"]
    assert (await client.get(CHANGES, params={"after": list_cursor})).status_code == 422
    assert (await client.get(HOSPITALS, params={"cursor": feed_cursor})).status_code == 422


async def test_a_cursor_of_another_past_has_expired(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A cursor is a 410 if the database no longer has the change, or has another one, at its position."""
    follower = Follower(client)
    for number in range(3):
        await create(client, HOSPITALS, unique_id=f"hos{number}", hospital_name="Clinic")
        await follower.read()
    cursors = [follower.cursor]
    for statement in (
        "UPDATE changes SET batch = batch + 1 WHERE position = 3",  # other changes were numbered after a restore
        "DELETE FROM changes WHERE position = 3",  # the backup is older
    ):
        await connection.execute(statement)
        response = await client.get(CHANGES, params={"after": cursors[0]})
        assert response.status_code == 410
        assert "new copy" in response.json()["detail"]


async def test_no_cursor_of_before_is_valid_in_a_restored_dump(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """In a restored dump, cursors are a 410 although their changes are there: clients may have seen later records."""
    await create(client, HOSPITALS, unique_id="hos", hospital_name="Clinic")
    follower = Follower(client)
    await follower.read()
    await connection.execute(  # like a restore, which creates new tables with the same rows
        "CREATE TABLE restored (LIKE changes INCLUDING ALL); INSERT INTO restored SELECT * FROM changes;"
        "DROP TABLE changes; ALTER TABLE restored RENAME TO changes"
    )
    assert (await client.get(CHANGES, params={"after": follower.cursor})).status_code == 410
    again = Follower(client)
    assert summary(await again.read()) == [("created", "hospitals", "hos", 1)]
    await create(client, HOSPITALS, unique_id="new", hospital_name="Clinic")
    assert summary(await again.read()) == [("created", "hospitals", "new", 1)]
