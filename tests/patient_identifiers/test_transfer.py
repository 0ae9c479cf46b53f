"""Identifiers in imported and exported files."""

import json
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.patient_identifiers.support import PATIENTS, ZA_ID, ZA_ID_STORED, register, values_of
from tests.transfer.support import run_cli_on

FOLDER = {"type": "folder", "value": "GH/12", "hospital_id": "hos123"}


def lines(*patients: dict[str, Any]) -> str:
    return "".join(f"{json.dumps({'patient_last_name': 'Doe', **patient})}\n" for patient in patients)


@pytest.mark.usefixtures("hospitals_and_doctors")
@pytest.mark.parametrize("is_empty", [True, False], ids=["into_empty_tables", "into_filled_tables"])
async def test_imported_identifiers_are_checked_and_found(
    client: httpx.AsyncClient, database_url: str, connection: asyncpg.Connection, *, is_empty: bool
) -> None:
    """Each line is checked like a request. A taken identifier, also by an earlier line, is an error of its line."""
    if not is_empty:
        await register(client, "stored", {"type": "passport", "value": "T1"})
    text = lines(
        {"unique_id": "a", "patient_identifiers": [ZA_ID], "hospital_ids": ["hos123"]},
        {"unique_id": "b", "patient_identifiers": [{"type": "za_id", "value": "8001015009087"}]},
        {"unique_id": "c", "patient_identifiers": [{"type": "za_id", "value": "8001015009088"}]},
        {"unique_id": "d", "patient_identifiers": [{**FOLDER, "hospital_id": "nowhere"}]},
        {"unique_id": "e", "patient_identifiers": [{"type": "folder", "value": "7"}], "hospital_ids": ["hos456"]},
        {"unique_id": "f", "patient_identifiers": [{"type": "passport", "value": "t-1"}]},
        {"unique_id": "g", "patient_identifiers": []},
    )
    result = await run_cli_on(database_url, "import", "-", "--on-error", "skip", stdin=text)
    assert "Stored" in result.stdout, result.stderr
    rejected = ["b", "c", "d", *([] if is_empty else ["f"])]
    for unique_id in "abcdefg":
        response = await client.get(f"{PATIENTS}{unique_id}/")
        assert response.status_code == (404 if unique_id in rejected else 200), (unique_id, result.stderr)
    assert await values_of(client, "e") == ["7"]
    found = await client.post(f"{PATIENTS}search/", json={"patient_identifier": ["8001015009087", "7"]})
    assert [patient["unique_id"] for patient in found.json()] == ["a", "e"]
    taken = {"patient_last_name": "Roe", "patient_identifiers": [ZA_ID]}
    assert (await client.post(PATIENTS, json=taken)).status_code == 409
    assert await connection.fetchval("SELECT patient_identifiers FROM patients WHERE unique_id = 'g'") is None
    assert (await run_cli_on(database_url, "journal", "verify")).returncode == 0
    update = lines({"unique_id": "a", "patient_identifiers": []}, {"unique_id": "g", "patient_town": "Soweto"})
    updated = await run_cli_on(database_url, "import", "-", "--update", stdin=update)
    assert "2 updated" in updated.stdout, updated.stdout
    assert (await client.post(PATIENTS, json=taken)).status_code == 201


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_columns_of_tables_contain_identifiers(client: httpx.AsyncClient, database_url: str) -> None:
    """A column has the values of a type, under its usual names, or the JSON of the API. Bad values can be dropped."""
    text = (
        "id,surname,ID Number,Passport No.,patient_identifiers.folder,clinic\n"
        "a,Doe,800101 5009 087,,F1,hos123\n"
        "b,Roe,n/a,X 77,,\n"
        "c,Poe,8001015009088,X 78,,\n"
    )
    result = await run_cli_on(database_url, "import", "-", "--drop-bad-values", stdin=text)
    assert "3 created" in result.stdout, result.stderr + result.stdout
    assert await values_of(client, "a") == ["F1", "800101 5009 087"]
    assert await values_of(client, "b") == ["X 77"]
    assert await values_of(client, "c") == ["X 78"]
    refused = await run_cli_on(database_url, "import", "-", stdin="surname,identifiers\nDoe,nonsense\n")
    assert "patient_identifiers" in refused.stderr
    added = await run_cli_on(database_url, "identifier-types", "add", "staff_no", "--uniqueness", "register")
    assert added.returncode == 0
    own_type = await run_cli_on(
        database_url, "import", "-", stdin="unique_id,patient_last_name,patient_identifiers.staff_no\nd,Doe,S-1\n"
    )
    assert "1 created" in own_type.stdout, own_type.stderr
    assert await values_of(client, "d") == ["S-1"]


@pytest.mark.usefixtures("hospitals_and_doctors")
@pytest.mark.parametrize("file_format", ["ndjson", "csv"])
async def test_exports_have_identifiers_if_asked(
    client: httpx.AsyncClient, database_url: str, tmp_path: Path, file_format: str
) -> None:
    """`--include identifiers`, and a directory of all resources, have them; importing such a file changes nothing."""
    await register(client, "a", ZA_ID, FOLDER)
    await register(client, "b")
    path = tmp_path / f"patients.{file_format}"
    assert (await run_cli_on(database_url, "export", "--output", path)).returncode == 0
    assert "5009" not in path.read_text()
    path.unlink()
    await run_cli_on(database_url, "export", "--output", path, "--include", "identifiers")
    assert "800101 5009 087" in path.read_text()
    again = await run_cli_on(database_url, "import", "--update", path)
    assert "2 unchanged" in again.stdout, again.stdout + again.stderr
    await run_cli_on(database_url, "export", "--directory", tmp_path / "all", "--format", file_format)
    assert "800101 5009 087" in (tmp_path / "all" / path.name).read_text()


async def test_imports_over_http_take_identifiers(client: httpx.AsyncClient) -> None:
    """The services write the lines, so a line with a wrong identifier is rejected and the others are stored."""
    text = lines(
        {"unique_id": "a", "patient_identifiers": [ZA_ID]},
        {"unique_id": "b", "patient_identifiers": [ZA_ID]},
        {"unique_id": "c", "patient_identifiers": [{"type": "za_id", "value": "1"}]},
    )
    response = await client.post(
        f"{PATIENTS}import/?on_error=skip", content=text, headers={"Content-Type": "application/x-ndjson"}
    )
    results = [json.loads(line) for line in response.text.splitlines()] if response.text[0] == "{" else response.json()
    results = results if isinstance(results, list) else results["results"]
    statuses = {result["unique_id"] or result["line"]: result["status"] for result in results if "status" in result}
    assert "created" in statuses.values(), response.text
    assert sorted(statuses.values()) == ["created", "rejected", "rejected"], response.text
    assert (await client.get(f"{PATIENTS}a/?include=identifiers")).json()["patient_identifiers"] == [ZA_ID_STORED]
