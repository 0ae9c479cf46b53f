"""An erased person leaves no data in patients that are, or were, merged with the erased one."""

import asyncio
import subprocess

import asyncpg
import httpx

from tests.journal.test_erasure import database_text
from tests.merging.support import PATIENTS, change, create, merge, merged, read, unmerged
from tests.processes import run_cli
from tests.support import dump_tables


async def erase(database_url: str, unique_id: str) -> subprocess.CompletedProcess[str]:
    """Run the command that erases a patient."""
    options = ("--reason", "asked for it", "--yes", "--former-profiles", "erase")
    return await asyncio.to_thread(run_cli, "erase", "patient", unique_id, *options, DATABASE_URL=database_url)


async def verify(database_url: str) -> str:
    """Verify the journal and return what the command printed."""
    verified = await asyncio.to_thread(run_cli, "journal", "verify", DATABASE_URL=database_url)
    assert verified.returncode == 0, verified.stdout
    return verified.stdout


async def test_patients_that_are_merged_are_erased_together(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str
) -> None:
    """The erasure of a survivor erases all that were merged into it, with their profiles, and frees their ids."""
    for number in range(3):
        profile = {"unique_id": f"marker-prof-{number}", "first_name": "Marker"}
        await create(client, f"marker-{number}", patient_town=f"Marker{number}", patient_profile=profile)
    await merged(client, "marker-1", "marker-0")
    await merged(client, "marker-2", "marker-1")
    done = await erase(database_url, "marker-2")
    assert (done.returncode, done.stdout.count("Removed the patient"), done.stdout.count("profile")) == (0, 3, 3)
    assert "marker" not in await database_text(connection)
    assert "3 patients" not in await verify(database_url)
    for number in range(3):
        assert (await client.get(f"{PATIENTS}marker-{number}/")).status_code == 404
        await create(client, f"marker-{number}")


async def test_merged_patient_is_not_erased_alone(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str
) -> None:
    """A patient that is merged into another one cannot be erased alone, because its data are in the other one."""
    await create(client, "one")
    await create(client, "two", patient_town="Paarl")
    await merged(client, "one", "two")
    before = await dump_tables(connection)
    refused = await erase(database_url, "two")
    assert (refused.returncode, "merged into another one" in refused.stderr) == (1, True)
    assert await dump_tables(connection) == before


async def test_erased_patient_leaves_a_former_survivor(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str
) -> None:
    """The history of a patient loses what an erased one had given to it, keeps its own edits, and stays valid."""
    await create(client, "one", patient_title="Dr.")
    profile = {"unique_id": "marker-prof", "first_name": "Marker"}
    fields = {"patient_town": "Marker", "patient_region": "Marker", "patient_title": "Marker"}
    await create(client, "marker", **fields, patient_profile=profile)
    for _ in range(2):
        response = await client.post(
            f"{PATIENTS}one/merge/",
            json={"from": "marker", "choose": {"patient_title": "loser"}},
            headers={"Idempotency-Key": "a"},
        )
    assert response.headers["Idempotency-Replayed"] == "true"
    await change(client, "one", patient_region="Cape")
    await unmerged(client, "marker")
    assert (await erase(database_url, "marker")).returncode == 0
    assert "marker" not in await database_text(connection)
    assert "redacted" in await verify(database_url)
    history = (await client.get(f"{PATIENTS}one/history/")).json()
    assert [entry["record"].get("patient_title") for entry in history] == ["Dr."] * 4
    assert [entry["record"].get("patient_region") for entry in history] == ["Cape", "Cape", None, None]
    assert history[2]["merge"]["merged_from"].startswith("erased_")
    assert (await client.post(f"{PATIENTS}one/restore/", json={"version": 2})).status_code == 200
    assert (await read(client, "one"))["patient_region"] is None
    await verify(database_url)


async def test_version_without_a_name_is_not_restored(client: httpx.AsyncClient, database_url: str) -> None:
    """A version whose only name an erased patient had given is a 422, and the others can be restored."""
    await create(client, "one", patient_last_name=None, patient_first_name="Ann")
    await create(client, "two", patient_last_name="Roe")
    await merged(client, "one", "two")
    await change(client, "one", patient_first_name=None)
    await unmerged(client, "two")
    assert (await erase(database_url, "two")).returncode == 0
    refused = await client.post(f"{PATIENTS}one/restore/", json={"version": 3})
    assert (refused.status_code, refused.json()["errors"][0]["type"]) == (422, "name_missing")
    assert (await client.post(f"{PATIENTS}one/restore/", json={"version": 2})).status_code == 200


async def test_erased_survivor_leaves_a_former_loser(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str
) -> None:
    """The history of a patient that was merged once does not name an erased survivor, and it can be merged again."""
    await create(client, "marker", patient_town="Marker")
    await create(client, "two", patient_region="Cape")
    await create(client, "three")
    await merged(client, "marker", "two")
    await unmerged(client, "two")
    assert (await erase(database_url, "marker")).returncode == 0
    assert "marker" not in await database_text(connection)
    await verify(database_url)
    steps = [entry.get("merge") for entry in (await client.get(f"{PATIENTS}two/history/")).json()]
    assert [sorted(step) for step in steps if step] == [["unmerged_from"], ["merged_into"]]
    assert (await merge(client, "three", "two")).status_code == 200
    assert (await unmerged(client, "two"))["kept"] == []
    assert (await client.get(f"{PATIENTS}two/access/")).status_code == 200
