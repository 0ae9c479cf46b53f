"""A merge is undone: the merged record is as it was, and the survivor loses what nobody has changed since."""

from typing import Any

import httpx
import pytest

from tests.merging.support import (
    PATIENTS,
    change,
    create,
    linked,
    merged,
    read,
    unmerge,
    unmerged,
    without_times,
)
from tests.processes import run_cli

pytestmark = pytest.mark.usefixtures("hospitals_and_doctors")


async def test_both_records_are_as_they_were(client: httpx.AsyncClient, database_url: str) -> None:
    """Without changes since, both records are what they were before the merge, and the journal is valid."""
    one = await create(client, "one", patient_town="Durban", hospital_ids=["hos123"], doctor_ids=["doc123"])
    two = await create(
        client,
        "two",
        patient_town="Paarl",
        patient_date_of_birth="1980-02-03",
        patient_latitude="1.5",
        hospital_ids=["hos123", "hos456"],
        patient_profile={"unique_id": "p2", "first_name": "Ann"},
    )
    await merged(client, "one", "two", choose={"patient_town": "loser"})
    response = await unmerged(client, "two")
    assert without_times(response["patient"]) == without_times(two)
    assert response["patient"] == await read(client, "two")
    assert (response["survivor"], response["kept"]) == ("one", [])
    assert without_times(await read(client, "one")) == without_times(one)
    newest = (await client.get(f"{PATIENTS}two/history/")).json()[0]
    assert (newest["version"], newest["action"], newest["merge"]) == (3, "unmerged", {"unmerged_from": "one"})
    newest = (await client.get(f"{PATIENTS}one/history/")).json()[0]
    assert (newest["action"], newest["merge"]) == ("updated", {"unmerged": "two"})
    verified = run_cli("journal", "verify", DATABASE_URL=database_url)
    assert verified.returncode == 0, verified.stdout


async def test_what_was_changed_since_stays_and_is_listed(client: httpx.AsyncClient) -> None:
    """Fields and links that the merge changed stay if somebody has changed them since, also to the same value again."""
    await create(client, "one", patient_title="Dr.", hospital_ids=["hos123"])
    await create(
        client,
        "two",
        patient_town="Paarl",
        patient_region="Cape",
        patient_race="Blue",
        hospital_ids=["hos456", "hos789"],
        doctor_ids=["doc123"],
        patient_profile={"unique_id": "p2"},
    )
    await merged(client, "one", "two")
    await change(client, "one", patient_town="Durban", patient_title="Prof.", hospital_ids=["hos123", "hos456"])
    await change(client, "one", patient_region=None, patient_profile=None)
    await change(client, "one", patient_region="Cape", doctor_ids=["doc123", "doc456"])
    response = await unmerged(client, "two")
    assert response["kept"] == ["hospital_ids", "patient_profile", "patient_region", "patient_town"]
    assert linked(response["patient"]) == ["hos456", "hos789"]
    one = await read(client, "one")
    values = [one[f"patient_{name}"] for name in ("town", "title", "region", "race", "profile")]
    assert values == ["Durban", "Prof.", "Cape", None, None]
    assert (linked(one), linked(one, "doctor")) == (["hos123"], ["doc456"])


async def test_last_name_of_the_survivor_stays(client: httpx.AsyncClient) -> None:
    """If the survivor had no name without what the merge gave to it, its names stay."""
    await create(client, "one", patient_last_name=None, patient_first_name="Ann", patient_town=None)
    await create(client, "two", patient_last_name="Roe", patient_town="Paarl")
    await merged(client, "one", "two")
    await change(client, "one", patient_first_name=None)
    response = await unmerged(client, "two")
    assert response["kept"] == ["patient_last_name"]
    one = await read(client, "one")
    assert (one["patient_first_name"], one["patient_last_name"], one["patient_town"]) == (None, "Roe", None)


async def test_merges_are_undone_from_the_newest(client: httpx.AsyncClient) -> None:
    """An older merge is a 409 that names what to undo first, in a chain and for two merges into one patient."""
    originals = [await create(client, f"p{number}", patient_title=f"T{number}") for number in range(4)]
    loser = {"choose": {"patient_title": "loser"}}
    await merged(client, "p1", "p0", **loser)
    await merged(client, "p1", "p2", **loser)
    await merged(client, "p3", "p1", **loser)
    for unique_id, first in (("p0", "p1"), ("p2", "p1")):
        refused = await unmerge(client, unique_id)
        assert (refused.status_code, refused.json()["undo_first"]) == (409, first)
    assert (await unmerged(client, "p1"))["kept"] == []
    refused = await unmerge(client, "p0")
    assert (refused.status_code, refused.json()["undo_first"]) == (409, "p2")
    for unique_id in ("p2", "p0"):
        assert (await unmerged(client, unique_id))["kept"] == []
    for original in originals:
        assert without_times(await read(client, original["unique_id"])) == without_times(original)


async def test_merge_and_undo_again(client: httpx.AsyncClient) -> None:
    """A merge can be made and undone several times, also with the roles swapped, and ids of undone merges are free."""
    one = await create(client, "one", patient_town="Durban")
    two = await create(client, "two", patient_race="Blue")
    for survivor, loser in (("one", "two"), ("two", "one"), ("one", "two")):
        await merged(client, survivor, loser)
        assert (await unmerged(client, loser))["kept"] == []
    for original in (one, two):
        assert without_times(await read(client, original["unique_id"])) == without_times(original)
    await change(client, "two", patient_town="Paarl")
    await client.delete(f"{PATIENTS}two/")
    assert (await client.get(f"{PATIENTS}two/")).status_code == 404
    assert (await client.post(f"{PATIENTS}two/restore/", json={"version": 1})).status_code == 200


@pytest.mark.parametrize("unique_id", ["one", "gone"])
async def test_what_is_not_merged_cannot_be_undone(client: httpx.AsyncClient, unique_id: str) -> None:
    """Undoing is a 409 for a patient that is not merged, or deleted, and a 404 for an unknown one."""
    await create(client, unique_id)
    if unique_id == "gone":
        await client.delete(f"{PATIENTS}gone/")
    assert (await unmerge(client, unique_id)).status_code == 409
    assert (await unmerge(client, "never")).status_code == 404


async def test_deleted_survivor_is_restored_first(client: httpx.AsyncClient) -> None:
    """Undoing is a 409 while the survivor is deleted. A restored earlier state counts as changed since."""
    await create(client, "one")
    await create(client, "two", patient_town="Paarl")
    await merged(client, "one", "two")
    await client.delete(f"{PATIENTS}one/")
    refused = await unmerge(client, "two")
    assert (refused.status_code, "Restore it" in refused.json()["detail"]) == (409, True)
    await client.post(f"{PATIENTS}one/restore/", json={"version": 1})
    assert (await unmerged(client, "two"))["kept"] == ["patient_town"]
    assert (await read(client, "one"))["patient_town"] is None


@pytest.mark.parametrize("skip_missing", [False, True])
async def test_missing_links_are_named(client: httpx.AsyncClient, skip_missing: bool) -> None:  # noqa: FBT001
    """A hospital, doctor or profile of the merged patient that no longer exists is a 422, or is left out."""
    await create(client, "one")
    profile = {"unique_id": "p2"}
    await create(client, "two", hospital_ids=["hos123"], doctor_ids=["doc123"], patient_profile=profile)
    await merged(client, "one", "two")
    await change(client, "one", hospital_ids=[], doctor_ids=[], patient_profile=None)
    for path in ("/hospitals/hospitals/hos123/", "/doctors/doctors/doc123/", "/profiles/profiles/p2/"):
        assert (await client.delete(path)).status_code == 204
    response = await unmerge(client, "two", skip_missing=skip_missing)
    if not skip_missing:
        assert response.status_code == 422
        errors = {error["type"] for error in response.json()["errors"]}
        assert errors == {"missing_hospital", "missing_doctor", "missing_profile"}
        assert (await client.get(f"{PATIENTS}two/")).status_code == 410
        return
    assert response.status_code == 200
    two = await read(client, "two")
    assert (linked(two), linked(two, "doctor"), two["patient_profile"]) == ([], [], None)


async def test_repeated_request_is_replayed(client: httpx.AsyncClient) -> None:
    """A repeat with the same Idempotency-Key gets the same response; without one, there is nothing left to undo."""
    await create(client, "one")
    await create(client, "two")
    await merged(client, "one", "two")
    request: dict[str, Any] = {"json": {}, "headers": {"Idempotency-Key": "once"}}
    first = await client.post(f"{PATIENTS}two/unmerge/", **request)
    replayed = await client.post(f"{PATIENTS}two/unmerge/", **request)
    assert (first.status_code, first.json()) == (200, replayed.json())
    assert replayed.headers["Idempotency-Replayed"] == "true"
    assert (await unmerge(client, "two")).status_code == 409


async def test_patients_are_compared_again(client: httpx.AsyncClient) -> None:
    """After a merge is undone, the pair is open again, and patients are found by search and matching."""
    person = {"patient_first_name": "Nomvula", "patient_date_of_birth": "1980-02-03", "patient_town": "Paarl"}
    await create(client, "one", **person)
    await create(client, "two", **person)
    await merged(client, "one", "two")
    assert (await client.get("/patients/duplicates/")).json() == []
    await unmerged(client, "two")
    assert (await client.get("/patients/duplicates/", params={"status": "merged"})).json() == []
    (pair,) = (await client.get("/patients/duplicates/")).json()
    assert (pair["patients"], pair["status"]) == (["one", "two"], "open")


async def test_deletion_that_was_undone_changes_nothing(client: httpx.AsyncClient) -> None:
    """A survivor that was deleted and restored as it was loses all that the merge gave to it."""
    one = await create(client, "one")
    await create(client, "two", patient_town="Paarl", hospital_ids=["hos123"])
    await merged(client, "one", "two")
    await client.delete(f"{PATIENTS}one/")
    await client.post(f"{PATIENTS}one/restore/", json={"version": 2})
    assert (await unmerged(client, "two"))["kept"] == []
    assert without_times(await read(client, "one")) == without_times(one)
