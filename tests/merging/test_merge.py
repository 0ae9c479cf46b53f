"""Two records of one person become one: what the survivor gets, and what is left of the other one."""

import asyncio
import json

import asyncpg
import httpx
import pytest

from app.changes.numbering import FeedPosition
from app.changes.reading import Change
from app.webhooks.messages import change_message, is_event_pattern
from tests.merging.support import PATIENTS, change, create, linked, merge, merged, read
from tests.processes import run_cli
from tests.support import dump_tables

pytestmark = pytest.mark.usefixtures("hospitals_and_doctors")
ABSENT_TAG = '"AAAAAAAAAAAAAAAAAAAAAA"'


async def test_survivor_keeps_its_values_and_gets_what_it_lacks(client: httpx.AsyncClient) -> None:
    """By default, values of the survivor stay, missing ones come from the other record, and links are united."""
    await create(
        client,
        "one",
        patient_town="Durban",
        hospital_ids=["hos123"],
        patient_profile={"unique_id": "p1"},
    )
    profile = {"unique_id": "p2", "first_name": "Ann"}
    hospitals = ["hos123", "hos456"]
    await create(
        client,
        "two",
        patient_town="Paarl",
        patient_race="Blue",
        hospital_ids=hospitals,
        doctor_ids=["doc123"],
        patient_profile=profile,
    )
    outcome = await merged(client, "one", "two")
    assert (outcome["patient_town"], outcome["patient_race"]) == ("Durban", "Blue")
    assert (linked(outcome), linked(outcome, "doctor")) == (hospitals, ["doc123"])
    assert outcome["patient_profile"]["unique_id"] == "p1"
    assert outcome == await read(client, "one")
    assert (await client.get("/profiles/profiles/p2/")).status_code == 200


async def test_values_are_chosen_field_by_field(client: httpx.AsyncClient) -> None:
    """A chosen side counts even if it has no value, and a patient without profile gets that of the other one."""
    await create(client, "one", patient_first_name="Ann", patient_town="Durban", patient_title="Dr.")
    await create(
        client,
        "two",
        patient_last_name="Roe",
        patient_region="Cape",
        patient_title="Ms",
        patient_profile={"unique_id": "p2"},
    )
    choose = {
        "patient_last_name": "loser",
        "patient_first_name": "survivor",
        "patient_town": "loser",
        "patient_region": "survivor",
        "patient_title": "loser",
        "patient_profile": "loser",
    }
    outcome = await merged(client, "one", "two", choose=choose)
    assert [outcome[f"patient_{name}"] for name in ("first_name", "last_name", "town", "region", "title")] == [
        "Ann",
        "Roe",
        None,
        None,
        "Ms",
    ]
    assert outcome["patient_profile"]["unique_id"] == "p2"


@pytest.mark.parametrize(
    ("body", "location", "error"),
    [
        ({}, ["body", "from"], "missing"),
        ({"from": "one"}, ["body", "from"], "same_record"),
        ({"from": "never"}, ["body", "from"], "unknown_patient"),
        ({"from": "gone"}, ["body", "from"], "unknown_patient"),
        ({"from": "two", "choose": {"patient_town": "both"}}, ["body", "choose", "patient_town"], "literal_error"),
        ({"from": "two", "choose": {"hospital_ids": "loser"}}, ["body", "choose", "hospital_ids"], "extra_forbidden"),
        (
            {"from": "two", "choose": {"patient_last_name": "loser", "patient_first_name": "survivor"}},
            ["body", "choose"],
            "name_missing",
        ),
        ({"from": "two", "dry_run": "yes"}, ["body", "dry_run"], "bool_type"),
    ],
)
async def test_invalid_merges_say_what_to_change(
    client: httpx.AsyncClient, connection: asyncpg.Connection, body: dict[str, object], location: list[str], error: str
) -> None:
    """A merge with itself, with no patient, or that leaves no name is a 422 at its place, and stores nothing."""
    await create(client, "one")
    await create(client, "two", patient_last_name=None, patient_first_name="Ann")
    await create(client, "gone")
    await client.delete(f"{PATIENTS}gone/")
    before = await dump_tables(connection)
    response = await client.post(f"{PATIENTS}one/merge/", json=body)
    assert response.status_code == 422
    assert [(each["loc"], each["type"]) for each in response.json()["errors"]] == [(location, error)]
    assert await dump_tables(connection) == before


async def test_dry_run_shows_the_outcome_and_stores_nothing(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A dry run returns what the merge returns, and the ETag with which the merge itself can be sent."""
    await create(client, "one", hospital_ids=["hos123"])
    await create(client, "two", patient_town="Paarl", hospital_ids=["hos456"])
    before = await dump_tables(connection)
    tried = await merge(client, "one", "two", dry_run=True)
    assert await dump_tables(connection) == before
    response = await client.post(
        f"{PATIENTS}one/merge/", json={"from": "two"}, headers={"If-Match": tried.headers["ETag"]}
    )
    assert {**tried.json(), "last_updated": None} == {**response.json(), "last_updated": None}
    assert response.headers["ETag"] == (await client.get(f"{PATIENTS}one/")).headers["ETag"]


async def test_merged_patient_is_gone_and_its_history_stays(client: httpx.AsyncClient) -> None:
    """Requests for the merged patient get a 410 that names the survivor; its history and accesses stay readable."""
    await create(client, "one")
    two = await create(client, "two", patient_town="Paarl", patient_first_name="Ann")
    await merged(client, "one", "two")
    for method, path, body in (
        ("GET", "", None),
        ("HEAD", "", None),
        ("PUT", "", {"patient_town": "Durban"}),
        ("PATCH", "", {"patient_town": "Durban"}),
        ("DELETE", "", None),
        ("POST", "restore/", {"version": 1}),
        ("POST", "merge/", {"from": "one"}),
    ):
        response = await client.request(method, f"{PATIENTS}two/{path}", json=body)
        assert (method, path, response.status_code) == (method, path, 410)
        if method != "HEAD":
            assert response.json()["merged_into"] == "one"
    newest, first = (await client.get(f"{PATIENTS}two/history/")).json()
    assert (newest["version"], newest["action"], newest["record"]) == (2, "merged", None)
    assert newest["merge"] == {"merged_into": "one"}
    assert "merge" not in first
    assert first["record"]["patient_town"] == two["patient_town"]
    assert (await client.get(f"{PATIENTS}two/history/2/")).json() == newest
    assert (await client.get(f"{PATIENTS}two/access/")).json()[1]["action"] == "merged"
    survivor = (await client.get(f"{PATIENTS}one/history/")).json()[0]
    assert (survivor["action"], survivor["merge"]) == ("updated", {"merged_from": "two"})
    assert survivor["changes"].keys() == {"patient_town", "patient_first_name"}
    retired = await client.post(PATIENTS, json={"unique_id": "two", "patient_last_name": "Doe"})
    assert (retired.status_code, "merged" in retired.json()["detail"]) == (409, True)


async def test_merged_patient_leaves_lists_search_matching_and_queue(client: httpx.AsyncClient) -> None:
    """No list, search, count, comparison or open pair contains a merged patient, and its pair has the status merged."""
    person = {"patient_first_name": "Nomvula", "patient_date_of_birth": "1980-02-03", "patient_town": "Paarl"}
    for unique_id in ("one", "two", "three"):
        await create(client, unique_id, **person)
    assert len((await client.get("/patients/duplicates/")).json()) == 3
    await merged(client, "one", "two")
    listed = await client.get(PATIENTS, params={"count": "exact"})
    assert [patient["unique_id"] for patient in listed.json()] == ["one", "three"]
    assert listed.headers["X-Total-Count"] == "2"
    found = (await client.get(PATIENTS, params={"search": "nomvula", "limit": 10})).json()
    assert {patient["unique_id"] for patient in found} == {"one", "three"}
    matches = (await client.post(f"{PATIENTS}match/", json={"patient_last_name": "Doe", **person})).json()
    assert {match["patient"]["unique_id"] for match in matches} == {"one", "three"}
    assert (await client.get(PATIENTS, params={"deleted": "true"})).json() == []
    (pair,) = (await client.get("/patients/duplicates/")).json()
    assert pair["patients"] == ["one", "three"]
    (pair,) = (await client.get("/patients/duplicates/", params={"status": "merged"})).json()
    assert (pair["patients"], pair["status"]) == (["one", "two"], "merged")


async def test_repeated_merge_returns_the_same(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A repeat changes nothing, with or without Idempotency-Key; another survivor is a 409 that names the first."""
    for unique_id in ("one", "two", "three"):
        await create(client, unique_id)
    request = {"json": {"from": "two"}, "headers": {"Idempotency-Key": "once"}}
    first = await client.post(f"{PATIENTS}one/merge/", **request)  # type: ignore[arg-type]
    before = await dump_tables(connection)
    replayed = await client.post(f"{PATIENTS}one/merge/", **request)  # type: ignore[arg-type]
    assert replayed.headers["Idempotency-Replayed"] == "true"
    repeated = await client.post(f"{PATIENTS}one/merge/", json={"from": "two"}, headers={"If-Match": ABSENT_TAG})
    assert first.json() == replayed.json() == repeated.json()
    refused = await merge(client, "three", "two")
    assert (refused.status_code, refused.json()["merged_into"]) == (409, "one")
    assert await dump_tables(connection) == before


async def test_chain_names_the_patient_that_is_left(client: httpx.AsyncClient) -> None:
    """After merges one after another, each merged patient names the one that stands for it now."""
    for unique_id in ("one", "two", "three"):
        await create(client, unique_id)
    await merged(client, "two", "one")
    await merged(client, "three", "two")
    for unique_id in ("one", "two"):
        assert (await client.get(f"{PATIENTS}{unique_id}/")).json()["merged_into"] == "three"
    refused = await merge(client, "two", "three")
    assert (refused.status_code, refused.json()["merged_into"]) == (410, "three")
    await client.delete(f"{PATIENTS}three/")
    assert (await client.get(f"{PATIENTS}one/")).json()["merged_into"] == "three"
    assert (await client.get(f"{PATIENTS}three/")).status_code == 404


async def test_preconditions_of_both_records_hold(client: httpx.AsyncClient) -> None:
    """`If-Match` is the ETag of the survivor, `from_etag` that of the other one, and either is a 412 if it is old."""
    await create(client, "one")
    await create(client, "two", patient_profile={"unique_id": "p2", "first_name": "Ann"})
    tags = [(await client.get(f"{PATIENTS}{unique_id}/")).headers["ETag"] for unique_id in ("one", "two")]
    await change(client, "one", patient_town="Paarl")
    body = {"from": "two", "from_etag": tags[1]}
    assert (await client.post(f"{PATIENTS}one/merge/", json=body, headers={"If-Match": tags[0]})).status_code == 412
    tags[0] = (await client.get(f"{PATIENTS}one/")).headers["ETag"]
    await client.patch("/profiles/profiles/p2/", json={"first_name": "Eve"})
    refused = await client.post(f"{PATIENTS}one/merge/", json=body, headers={"If-Match": tags[0]})
    assert (refused.status_code, "from_etag" in refused.json()["detail"]) == (412, True)
    body["from_etag"] = (await client.get(f"{PATIENTS}two/")).headers["ETag"]
    assert (await client.post(f"{PATIENTS}one/merge/", json=body, headers={"If-Match": tags[0]})).status_code == 200


async def test_feed_reports_the_merge_and_then_the_survivor(client: httpx.AsyncClient) -> None:
    """A merge is `merged` with `into`, then `updated`; undoing it is `updated`, then `unmerged`."""
    await create(client, "one")
    await create(client, "two")
    cursor = (await client.get("/changes/", params={"after": "now"})).headers["Next-Cursor"]
    await merged(client, "one", "two")
    await client.post(f"{PATIENTS}two/unmerge/", json={})
    changes = (await client.get("/changes/", params={"after": cursor})).json()
    assert [(each["unique_id"], each["version"], each["action"], each.get("into")) for each in changes] == [
        ("two", 2, "merged", "one"),
        ("one", 2, "updated", None),
        ("one", 3, "updated", None),
        ("two", 3, "unmerged", None),
    ]
    assert ["into" in each for each in changes] == [True, False, False, False]


async def test_concurrent_merges_agree(client: httpx.AsyncClient, database_url: str) -> None:
    """Of merges in both directions one succeeds; of merges of one patient into two, too; nothing is half done."""
    for unique_id in ("one", "two", "three"):
        await create(client, unique_id, patient_town=unique_id)
    both = await asyncio.gather(merge(client, "one", "two"), merge(client, "two", "one"))
    assert sorted(response.status_code for response in both) in ([200, 409], [200, 410], [200, 422])
    survivor = next(one for one, response in zip(("one", "two"), both, strict=True) if response.status_code == 200)
    await create(client, "four")
    into_two = await asyncio.gather(merge(client, survivor, "four"), merge(client, "three", "four"))
    assert sorted(response.status_code for response in into_two) == [200, 409]
    assert run_cli("journal", "verify", DATABASE_URL=database_url).returncode == 0


async def test_webhooks_name_the_survivor() -> None:
    """The message about a merge has `into`, and endpoints can ask for merges."""
    merge_change = Change(FeedPosition(7, 1), "patients", "two", 2, "merged", "2026-11-30T08:30:00Z", into="one")
    message = json.loads(change_message("end", merge_change, with_position=True).body)
    assert message["type"] == "patient.merged"
    assert message["data"] == {"resource": "patients", "unique_id": "two", "version": 2, "position": 7, "into": "one"}
    assert [is_event_pattern(f"{name}.unmerged") for name in ("patient", "hospital")] == [True, False]
