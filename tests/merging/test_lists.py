"""Lists and exports of merged patients, each with the patient that it was merged into."""

import csv
import io
import json
from pathlib import Path

import httpx
import pytest

from app.auth.scopes import Scope
from tests.auth.support import client_for, make_key, secured_app
from tests.hospital_scope.conftest import REGULAR_SCOPES
from tests.merging.support import PATIENTS, create, merged, read, unmerged
from tests.processes import run_cli

pytestmark = pytest.mark.usefixtures("hospitals_and_doctors")


async def test_merged_patients_are_listed_until_they_are_separated(client: httpx.AsyncClient) -> None:
    """A merged patient is listed in its last state, newest merge first and in pages, and not among deleted ones."""
    profile = {"unique_id": "p2", "first_name": "Ann"}
    await create(client, "one")
    two = await create(client, "two", hospital_ids=["hos123"], patient_profile=profile)
    await create(client, "three")
    await create(client, "gone")
    await client.delete(f"{PATIENTS}gone/")
    await merged(client, "one", "two")
    await merged(client, "one", "three")
    page = await client.get(PATIENTS, params={"merged": "true", "limit": 1, "count": "exact"})
    assert ([each["unique_id"] for each in page.json()], page.headers["X-Total-Count"]) == (["three"], "2")
    (listed,) = (await client.get(page.links["next"]["url"])).json()
    (entry, _) = (await client.get(f"{PATIENTS}two/history/")).json()
    assert listed == {**two, "version": 1, "date_merged": entry["time"], "merged_into": "one"}
    found = (await client.post(f"{PATIENTS}search/", json={"merged": True})).json()
    assert [each["unique_id"] for each in found] == ["three", "two"]
    assert [each["unique_id"] for each in (await client.get(PATIENTS, params={"deleted": "true"})).json()] == ["gone"]
    await unmerged(client, "three")
    assert (await client.get(PATIENTS, params={"merged": "true"})).json() == [listed]
    fields = await client.get(PATIENTS, params={"merged": "true", "fields": "unique_id"})
    assert fields.json() == [{name: listed[name] for name in ("unique_id", "version", "date_merged", "merged_into")}]


@pytest.mark.parametrize("other", [{"deleted": "true"}, {"search": "doe"}, {"hospital_id": "hos123"}])
async def test_merged_is_not_combined_with_other_conditions(client: httpx.AsyncClient, other: dict[str, str]) -> None:
    """`merged` together with filters, a search or `deleted` is a 422; `merged=false` changes nothing."""
    refused = await client.get(PATIENTS, params={"merged": "true", **other})
    assert (refused.status_code, refused.json()["errors"][0]["type"]) == (422, "deleted_alone")
    assert (await client.get(PATIENTS, params={"merged": "false", "deleted": "false"})).status_code == 200


async def test_listing_merged_patients_needs_the_scope_that_separates_them(database_url: str) -> None:
    """`merged=true` needs `patients:merge`, and a restricted principal sees the merged patients of its hospitals."""
    async with secured_app(database_url, rate_limit="off") as app:
        free = await make_key(database_url, *REGULAR_SCOPES, name="free")
        async with client_for(app, free) as client:
            await create(client, "one")
            await create(client, "two", hospital_ids=["hos123"])
            await create(client, "three", hospital_ids=["hos456"])
            await merged(client, "one", "two")
            await merged(client, "one", "three")
        reader = await make_key(database_url, Scope.PATIENTS_READ, name="reader")
        async with client_for(app, reader) as client:
            assert (await client.get(PATIENTS, params={"merged": "true"})).status_code == 403
        scopes = Scope.PATIENTS_READ, Scope.PATIENTS_MERGE
        limited = await make_key(database_url, *scopes, name="limited", hospitals=["hos456"])
        async with client_for(app, limited) as client:
            (listed,) = (await client.get(PATIENTS, params={"merged": "true"})).json()
            assert listed["unique_id"] == "three"


async def test_export_of_merged_patients_names_the_survivors(client: httpx.AsyncClient, database_url: str) -> None:
    """`export --merged` writes the merged patients with `merged_into`; other exports leave them out."""
    await create(client, "one")
    await create(client, "two", hospital_ids=["hos123", "hos456"])
    await merged(client, "one", "two")
    lines = run_cli("export", "--merged", DATABASE_URL=database_url).stdout.splitlines()
    (exported,) = map(json.loads, lines)
    assert (exported["unique_id"], exported["merged_into"], exported["version"]) == ("two", "one", 1)
    table = run_cli("export", "--merged", "--format", "csv", DATABASE_URL=database_url).stdout
    (row,) = csv.DictReader(io.StringIO(table))
    assert (row["unique_id"], row["merged_into"], row["hospital_ids"]) == ("two", "one", "hos123|hos456")
    everything = run_cli("export", DATABASE_URL=database_url).stdout.splitlines()
    assert [json.loads(line)["unique_id"] for line in everything] == [(await read(client, "one"))["unique_id"]]
    refused = run_cli("export", "--merged", "--resource", "hospitals", DATABASE_URL=database_url)
    assert (refused.returncode, "Only patients" in refused.stderr) == (1, True)


async def test_import_of_a_merged_id_is_rejected(client: httpx.AsyncClient, database_url: str, tmp_path: Path) -> None:
    """A line with the id of a merged patient is rejected, by the command with --update and over HTTP."""
    await create(client, "one")
    await create(client, "two")
    await merged(client, "one", "two")
    line = json.dumps({"unique_id": "two", "patient_last_name": "Roe"})
    file = tmp_path / "patients.ndjson"
    file.write_text(line)
    done = run_cli("import", str(file), "--update", DATABASE_URL=database_url)
    assert (done.returncode, "deleted or merged" in done.stderr + done.stdout) == (1, True)
    response = await client.post(
        f"{PATIENTS}import/?update=true", content=line, headers={"Content-Type": "application/x-ndjson"}
    )
    (result,) = map(json.loads, response.text.splitlines())
    assert (result["status"], result["errors"][0]["type"]) == ("rejected", "identifier_retired")
    assert (await client.get(f"{PATIENTS}two/")).json()["merged_into"] == "one"
