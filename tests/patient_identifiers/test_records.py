"""Identifiers in histories, restored and deleted patients, and erasures."""

import asyncpg
import httpx
import pytest

from tests.patient_identifiers.support import INCLUDED, PATIENTS, ZA_ID, register, values_of
from tests.transfer.support import run_cli_on

FOLDER = {"type": "folder", "value": "12", "hospital_id": "hos123"}


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_identifiers_are_restored(client: httpx.AsyncClient) -> None:
    """Deleted patients release their identifiers, lists of them show these, and a restoration brings them back."""
    await register(client, "a", ZA_ID, FOLDER)
    await client.put(f"{PATIENTS}a/", json={"patient_identifiers": []})
    assert (await client.post(f"{PATIENTS}a/restore/", json={"version": 1})).status_code == 200
    assert await values_of(client, "a") == ["12", "800101 5009 087"]
    assert (await client.delete(f"{PATIENTS}a/")).status_code == 204
    (deleted,) = (await client.get(PATIENTS, params={"deleted": "true", **INCLUDED})).json()
    assert [each["value"] for each in deleted["patient_identifiers"]] == ["12", "800101 5009 087"]
    await register(client, "b", ZA_ID)
    taken = await client.post(f"{PATIENTS}a/restore/", json={"version": 1})
    assert taken.status_code == 409
    assert [(error["loc"], error["type"]) for error in taken.json()["errors"]] == [
        (["body", "version"], "patient_identifier_taken")
    ]
    await client.put(f"{PATIENTS}b/", json={"patient_identifiers": []})
    assert (await client.delete("/hospitals/hospitals/hos123/")).status_code == 204
    missing = await client.post(f"{PATIENTS}a/restore/", json={"version": 1})
    assert [error["type"] for error in missing.json()["errors"]] == ["missing_hospital"]
    restored = await client.post(f"{PATIENTS}a/restore/", json={"version": 1, "skip_missing": True})
    assert restored.status_code == 200
    assert await values_of(client, "a") == ["800101 5009 087"]


async def test_an_erasure_removes_identifiers_and_the_journal_stays_verifiable(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str
) -> None:
    """Nothing of them remains in any table, and `journal verify` finds the journal intact before and after."""
    await register(client, "a", ZA_ID)
    await register(client, "b", {"type": "passport", "value": "X1"})
    assert (await run_cli_on(database_url, "journal", "verify")).returncode == 0
    assert (await run_cli_on(database_url, "erase", "patient", "a", "--reason", "asked to", "--yes")).returncode == 0
    assert (await run_cli_on(database_url, "journal", "verify")).returncode == 0
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in tables:
        rows = str(await connection.fetch(f"SELECT t::text FROM {table} t"))  # noqa: S608
        assert "8001015009087" not in rows, table
        assert "800101 5009 087" not in rows, table
    assert await values_of(client, "b") == ["X1"]


async def test_operators_add_types(client: httpx.AsyncClient, database_url: str) -> None:
    """An added type is checked and unique as it says, at once. Names and checkers that cannot be used are refused."""
    add = ("identifier-types", "add")
    for arguments, part in (
        (("Bad Name",), "lower-case"),
        (("pesel", "--checker", "pl.nonsense"), "no module"),
        (("pesel", "--checker", "os"), "no module"),
        (("pesel", "--country", "Poland"), "two letters"),
        (("za_id",), "already"),
    ):
        refused = await run_cli_on(database_url, *add, *arguments)
        assert refused.returncode == 1
        assert part in refused.stderr
    added = await run_cli_on(
        database_url, *add, "pesel", "--checker", "pl.pesel", "--uniqueness", "register", "--country", "pl"
    )
    assert added.returncode == 0, added.stderr
    assert "pesel" in (await run_cli_on(database_url, "identifier-types", "list")).stdout
    assert '"pl.pesel"' in (await run_cli_on(database_url, "identifier-types", "list", "--json")).stdout
    body = {"patient_last_name": "Doe", "patient_identifiers": [{"type": "pesel", "value": "44051401359"}]}
    created = await client.post(PATIENTS, json=body, params=INCLUDED)
    assert created.json()["patient_identifiers"][0]["country"] == "PL"
    assert (await client.post(PATIENTS, json=body)).status_code == 409
    body["patient_identifiers"] = [{"type": "pesel", "value": "44051401358"}]
    assert (await client.post(PATIENTS, json=body)).status_code == 422


async def test_a_merge_unites_identifiers_and_its_undoing_gives_them_back(client: httpx.AsyncClient) -> None:
    """The survivor has the identifiers of both. The loser gets its own back; what was added since stays."""
    await register(client, "survivor", {"type": "passport", "value": "A1"}, {"type": "medical_aid", "value": "7"})
    await register(client, "loser", ZA_ID, {"type": "medical_aid", "value": "7", "use": "old"})
    merged = await client.post(f"{PATIENTS}survivor/merge/", json={"from": "loser"})
    assert merged.status_code == 200, merged.text
    assert await values_of(client, "survivor") == ["7", "A1", "800101 5009 087"]
    new = [{"type": "other", "value": "later"}, {"type": "passport", "value": "A1"}, {**ZA_ID, "use": "usual"}]
    assert (await client.put(f"{PATIENTS}survivor/", json={"patient_identifiers": new})).status_code == 200
    undone = await client.post(f"{PATIENTS}loser/unmerge/", json={})
    assert undone.status_code == 200, undone.text
    assert await values_of(client, "survivor") == ["later", "A1"]
    assert await values_of(client, "loser") == ["7", "800101 5009 087"]
