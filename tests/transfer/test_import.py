"""Imports of records that are new, existing, changed, deleted or invalid."""

import csv
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.processes import run_cli
from tests.support import EXAMPLE_PATIENT, dump_tables
from tests.transfer.support import PATIENTS, get_patient, list_patients, ndjson, patient_bodies, run_cli_on, run_import

pytestmark = pytest.mark.usefixtures("hospitals_and_doctors")

INVALID_BODIES: tuple[dict[str, Any], ...] = (
    {},
    {"patient_first_name": " "},
    {"patient_last_name": "x" * 151},
    {"patient_last_name": "Doe\u0000"},
    {"patient_last_name": 7},
    {"patient_last_name": None, "patient_first_name": None},
    {"patient_last_name": "Doe", "patient_gender": "x"},
    {"patient_last_name": "Doe", "patient_date_of_birth": "1980-13-01"},
    {"patient_last_name": "Doe", "patient_date_of_birth": "2999-01-01"},
    {"patient_last_name": "Doe", "patient_email_address": "nobody"},
    {"patient_last_name": "Doe", "patient_mobile_number": "12"},
    {"patient_last_name": "Doe", "patient_latitude": "91", "patient_longitude": True},
    {"patient_last_name": "Doe", "patient_nickname": "Joe"},
    {"patient_last_name": "Doe", "unique_id": "a b"},
    {"patient_last_name": "Doe", "unique_id": ""},
    {"patient_last_name": "Doe", "hospital_ids": ["hos123", "hos9", "hos8"], "doctor_ids": ["doc9"]},
    {"patient_last_name": "Doe", "hospital_ids": ["a b"]},
    {"patient_last_name": "Doe", "hospital_ids": "hos123"},
    {"patient_last_name": "Doe", "patient_profile": {"email": "a@example.com"}},
    {"patient_last_name": "Doe", "patient_profile": {"unique_id": "p", "email": "nobody", "age": 7}},
    {"patient_last_name": "Doe", "patient_profile": "p"},
)
"""Bodies that the API refuses, each for one or several other reasons."""


def read_errors(file: Path) -> list[tuple[int, str, str, str]]:
    """Return the rows of the file written by `--errors`."""
    with file.open(newline="", encoding="utf-8") as opened:
        return [(int(row["line"]), row["field"], row["message"], row["type"]) for row in csv.DictReader(opened)]


async def test_import_errors_are_those_of_the_api(database_url: str, client: httpx.AsyncClient, tmp_path: Path) -> None:
    """An import reports the same errors with the same messages and locations as posting each line."""
    expected = set()
    for line, body in enumerate(INVALID_BODIES, start=1):
        response = await client.post(PATIENTS, json=body)
        assert response.status_code == 422, body
        for error in response.json()["errors"]:
            expected.add((line, ".".join(map(str, error["loc"][1:])), error["msg"], error["type"]))
    run = await run_cli_on(
        database_url, "import", "-", "--errors", tmp_path / "errors.csv", stdin=ndjson(INVALID_BODIES)
    )
    assert run.returncode == 1
    assert set(read_errors(tmp_path / "errors.csv")) == expected
    count = len(INVALID_BODIES)
    counts = f"0 would be created, 0 would be updated, 0 would be unchanged, {count} rejected"
    assert f"-: {count} records: {counts}" in run.stdout


async def test_invalid_lines_are_reported_and_stop_the_import_or_are_skipped(
    database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """Exactly the invalid lines are reported, and nothing is stored or, with `--on-error skip`, all other lines are."""
    good = iter(patient_bodies(4000, hospital_ids=["hos123"]))
    records: list[dict[str, Any]] = []
    wrong: set[int] = set()
    for place in range(5000):
        if place % 5 == 3:
            wrong.add(place + 1)
            records.append(INVALID_BODIES[place // 5 % len(INVALID_BODIES)])
        else:
            records.append(next(good))
    before = await dump_tables(connection)
    errors = tmp_path / "errors.csv"
    run = await run_cli_on(database_url, "import", "-", "--errors", errors, stdin=ndjson(records))
    assert run.returncode == 1
    assert len(wrong) == 1000
    reported = [line for line, *_ in read_errors(errors)]
    assert set(reported) == wrong
    assert reported == sorted(reported)
    assert "4,000 would be created" in run.stdout
    assert "1,000 rejected" in run.stdout
    assert run.stdout.endswith("Nothing was stored. Correct the rejected lines, or skip them with --on-error skip.\n")
    assert len(run.stderr.splitlines()) == 21, "the first twenty errors, and the number of the others"
    assert await dump_tables(connection) == before

    run = await run_cli_on(database_url, "import", "-", "--on-error", "skip", stdin=ndjson(records))
    assert run.returncode == 1
    assert run.stdout.endswith("Stored, except for the rejected lines.\n")
    assert {one["unique_id"] for one in await list_patients(client)} == {f"pat{place}" for place in range(4000)}


async def test_csv_errors_name_line_and_column(database_url: str, tmp_path: Path) -> None:
    """An error names the line on which the record begins, and the column as its field."""
    file = tmp_path / "patients.csv"
    file.write_text(
        "unique_id,patient_last_name,patient_profile.unique_id,patient_profile.email,hospital_ids,date_created,last_updated\n"
        'a,"Doe\nRoe",,,,,\n'
        "b,Doe,,b@example.com,hos123|hos9,,\n"
        "c,Doe\n"
        "d,Doe,,,,2999-01-01,\n"
        "e,Doe,,,,2020-01-02,2020-01-01\n"
        "f,Doe,,,,yesterday,\n",
        encoding="utf-8",
    )
    await run_cli_on(database_url, "import", file, "--errors", tmp_path / "errors.csv")
    assert [error[:3] for error in read_errors(tmp_path / "errors.csv")] == [
        (4, "patient_profile.unique_id", "Must be given"),
        (5, "", "Has 2 cells, but the file has 7 columns"),
        (6, "date_created", "Must not be in the future"),
        (7, "last_updated", "Must not be before date_created"),
        (8, "date_created", "Must be a date or a timestamp such as 2026-11-30 or 2026-11-30T12:00:00Z"),
    ]


async def test_an_imported_patient_equals_a_posted_one_and_keeps_its_dates(
    database_url: str, client: httpx.AsyncClient
) -> None:
    """An imported patient equals a posted one except that it keeps its dates, and it has a journal entry."""
    dates = {"date_created": "2020-02-03T04:05:06Z", "last_updated": "2021-02-03T04:05:06.070809Z"}
    posted = (await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "posted"})).json()
    await run_import(database_url, "-", stdin=ndjson([{**EXAMPLE_PATIENT, "unique_id": "brought", **dates}]))
    imported_patient = await get_patient(client, "brought")
    assert imported_patient == {**posted, "unique_id": "brought", **dates}
    [entry] = (await client.get(f"{PATIENTS}brought/history/")).json()
    assert (entry["version"], entry["action"], entry["actor"]) == (1, "created", "import")
    found = await client.post(f"{PATIENTS}search/", json={"search": "jon doe"})
    assert "brought" in {one["unique_id"] for one in found.json()}, "its names must be in the vocabulary"


async def test_repeating_an_import_changes_nothing(
    database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """Lines equal to the stored records change nothing, and missing records are added."""
    file = ndjson(
        patient_bodies(2500, hospital_ids=["hos456", "hos123", "hos123"], patient_profile={"unique_id": "parent"})
    )
    await run_import(database_url, "-", stdin=file)
    await client.put("/profiles/profiles/parent/", json={"email": "later@example.com"})
    before = await dump_tables(connection)
    for options in ((), ("--update",)):
        run = await run_import(database_url, "-", *options, stdin=file)
        assert "0 created, 0 updated, 2,500 unchanged, 0 rejected" in run.stdout
        assert await dump_tables(connection) == before
    more = file + ndjson([{"unique_id": "new", "patient_last_name": "Doe"}])
    assert "1 created, 0 updated, 2,500 unchanged" in (await run_import(database_url, "-", stdin=more)).stdout


async def test_existing_records_change_only_with_the_update_option(
    database_url: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Without `--update` a line with other data is an error; with it the given fields change and no others."""
    await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "a"})
    await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "b"})
    before = await get_patient(client, "a")
    change: dict[str, Any] = {
        "unique_id": "a",
        "patient_last_name": "Doe",
        "patient_town": "Durban",
        "hospital_ids": ["hos789"],
        "patient_title": None,
    }
    errors = tmp_path / "errors.csv"
    await run_cli_on(database_url, "import", "-", "--errors", errors, stdin=ndjson([change]))
    message = "A stored patient has this unique_id and other data: use --update to change it"
    assert read_errors(errors) == [(1, "unique_id", message, "identifier_taken")]
    assert await get_patient(client, "a") == before

    lines: list[dict[str, Any]] = [change, {"unique_id": "b"}, {"unique_id": "c", "patient_last_name": "New"}]
    run = await run_import(database_url, "-", "--update", stdin=ndjson(lines))
    assert "1 created, 1 updated, 1 unchanged, 0 rejected" in run.stdout
    after = await get_patient(client, "a")
    assert after["last_updated"] > before["last_updated"]
    hospital = {"unique_id": "hos789", "hospital_name": "New Hospital"}
    changed = {"patient_town": "Durban", "patient_title": None, "patient_hospital": [hospital]}
    assert after == {**before, **changed, "last_updated": after["last_updated"]}
    newest = (await client.get(f"{PATIENTS}a/history/")).json()[0]
    assert set(newest["changes"]) == {"patient_town", "patient_title", "hospital_ids"}
    assert newest["version"] == 2


async def test_a_blank_cell_clears_its_field(database_url: str, client: httpx.AsyncClient, tmp_path: Path) -> None:
    """A missing column leaves its field as it is, and a blank cell clears its field."""
    await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "a"})
    before = await get_patient(client, "a")
    file = tmp_path / "patients.csv"
    file.write_text(
        "unique_id,patient_town,hospital_ids,patient_profile.unique_id,date_created,last_updated\n"
        "a,,,,2001-01-01,2001-01-02\n"
    )
    await run_import(database_url, file, "--update")
    after = await get_patient(client, "a")
    cleared: dict[str, Any] = {"patient_town": None, "patient_hospital": [], "patient_profile": None}
    assert after == {**before, **cleared, "last_updated": after["last_updated"]}, "date_created must not change"
    assert after["last_updated"] > before["last_updated"], "last_updated must be the time of the import"


async def test_nested_profiles_are_imported_line_by_line(database_url: str, client: httpx.AsyncClient) -> None:
    """Nested profiles are created or changed line by line, as if the lines were posted."""
    await client.post("/profiles/profiles/", json={"unique_id": "old", "email": "old@example.com", "last_name": "Doe"})
    lines: list[dict[str, Any]] = [
        {
            "unique_id": "a",
            "patient_last_name": "A",
            "patient_profile": {"unique_id": "old", "email": "new@example.com"},
        },
        {"unique_id": "b", "patient_last_name": "B", "patient_profile": {"unique_id": "p", "first_name": "One"}},
        {"unique_id": "c", "patient_last_name": "C", "patient_profile": {"unique_id": "p", "first_name": "Two"}},
        {"unique_id": "d", "patient_last_name": "D", "patient_profile": {"unique_id": "p", "email": "p@example.com"}},
        {"unique_id": "e", "patient_gender": "wrong", "patient_profile": {"unique_id": "q"}},
        {"unique_id": "f", "patient_last_name": "F", "hospital_ids": ["hos9"], "patient_profile": {"unique_id": "r"}},
    ]
    run = await run_cli_on(database_url, "import", "-", "--on-error", "skip", stdin=ndjson(lines))
    assert "4 created" in run.stdout
    one = {"email": "new@example.com", "first_name": None, "last_name": "Doe"}
    assert (await get_patient(client, "a"))["patient_profile"] == {"unique_id": "old", **one}
    other = {"unique_id": "p", "email": "p@example.com", "first_name": "Two", "last_name": None}
    assert [(await get_patient(client, name))["patient_profile"] for name in "bcd"] == [other] * 3
    history = (await client.get("/profiles/profiles/p/history/")).json()
    assert [entry["action"] for entry in history] == ["updated", "updated", "created"]
    for unique_id in ("q", "r"):
        assert (await client.get(f"/profiles/profiles/{unique_id}/")).status_code == 404, "of invalid lines"

    again = [
        {
            "unique_id": "a",
            "patient_last_name": "A",
            "patient_profile": {"unique_id": "old", "email": "third@example.com"},
        }
    ]
    run = await run_import(database_url, "-", stdin=ndjson(again))
    assert "1 unchanged" in run.stdout
    assert (await get_patient(client, "a"))["patient_profile"]["email"] == "new@example.com"
    await run_import(database_url, "-", "--update", stdin=ndjson(again))
    assert (await get_patient(client, "a"))["patient_profile"]["email"] == "third@example.com"


async def test_deleted_ids_cannot_be_imported_again(
    database_url: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """The id of a deleted patient or profile cannot be imported."""
    await client.post(PATIENTS, json={"unique_id": "a", "patient_last_name": "Doe"})
    await client.delete(f"{PATIENTS}a/")
    await client.post("/profiles/profiles/", json={"unique_id": "p"})
    await client.delete("/profiles/profiles/p/")
    lines: list[dict[str, Any]] = [
        {"unique_id": "a", "patient_last_name": "Doe"},
        {"unique_id": "b", "patient_last_name": "Doe", "patient_profile": {"unique_id": "p"}},
    ]
    errors = tmp_path / "errors.csv"
    await run_cli_on(database_url, "import", "-", "--errors", errors, stdin=ndjson(lines))
    assert [(line, field, kind) for line, field, _, kind in read_errors(errors)] == [
        (1, "unique_id", "identifier_retired"),
        (2, "patient_profile.unique_id", "identifier_retired"),
    ]


async def test_an_update_may_not_remove_required_names(
    database_url: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """An update may leave out a required name but not remove it, and new records need one."""
    await client.post(PATIENTS, json={"unique_id": "a", "patient_last_name": "Doe"})
    await client.post(PATIENTS, json={"unique_id": "b", "patient_last_name": "Doe"})
    lines: list[dict[str, Any]] = [
        {"unique_id": "a", "patient_last_name": None},
        {"unique_id": "b", "patient_town": "Durban"},
        {"unique_id": "c", "patient_town": "Durban"},
        {"unique_id": "d", "patient_last_name": "Doe", "patient_profile": {"email": "x"}},
    ]
    errors = tmp_path / "errors.csv"
    run = await run_cli_on(database_url, "import", "-", "--update", "--errors", errors, stdin=ndjson(lines))
    assert [(line, field, kind) for line, field, _, kind in read_errors(errors)] == [
        (1, "patient_last_name", "name_missing"),
        (3, "patient_last_name", "name_missing"),
        (4, "patient_profile.email", "email"),
        (4, "patient_profile.unique_id", "missing"),
    ]
    assert "1 would be updated" in run.stdout
    hospitals = [{"unique_id": "hos123"}, {"unique_id": "hos9"}]
    options = ("--update", "--resource", "hospitals", "--errors", errors)
    await run_cli_on(database_url, "import", "-", *options, stdin=ndjson(hospitals))
    assert read_errors(errors) == [(2, "hospital_name", "Must be given", "missing")]


async def test_a_repeated_id_is_treated_as_if_lines_were_posted(
    database_url: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """A repeated id is handled as if the lines were posted: the second line finds the first record."""
    lines: list[dict[str, Any]] = [
        {"unique_id": "a", "patient_last_name": "One"},
        {"unique_id": "a", "patient_last_name": "One"},
        {"unique_id": "a", "patient_last_name": "Two"},
    ]
    errors = tmp_path / "errors.csv"
    run = await run_cli_on(database_url, "import", "-", "--on-error", "skip", "--errors", errors, stdin=ndjson(lines))
    assert "1 created, 0 updated, 1 unchanged, 1 rejected" in run.stdout
    assert [(line, kind) for line, *_, kind in read_errors(errors)] == [(3, "identifier_taken")]
    await run_import(database_url, "-", "--update", stdin=ndjson(lines))
    assert (await get_patient(client, "a"))["patient_last_name"] == "Two"


async def test_a_dry_run_checks_everything_and_stores_nothing(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """A dry run checks everything, also in the database, and stores nothing."""
    before = await dump_tables(connection)
    run = await run_import(database_url, "-", "--dry-run", stdin=ndjson(patient_bodies(10)))
    counts = "10 would be created, 0 would be updated, 0 would be unchanged, 0 rejected"
    assert run.stdout == f"-: 10 records: {counts}\nNothing was stored.\n"
    wrong = ndjson([{"patient_last_name": "Doe", "hospital_ids": ["hos9"]}])
    assert (await run_cli_on(database_url, "import", "-", "--dry-run", stdin=wrong)).returncode == 1
    assert await dump_tables(connection) == before


async def test_a_directory_is_imported_in_order_or_not_at_all(
    database_url: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """The files of a directory are imported in the order of their references, and all or none are stored."""
    (tmp_path / "patients.ndjson").write_text(ndjson(patient_bodies(2, hospital_ids=["hosX"], doctor_ids=["docX"])))
    (tmp_path / "doctors.csv").write_text("unique_id,doctor_first_name\ndocX,Ann\n")
    (tmp_path / "hospitals.csv").write_text("unique_id,hospital_name\nhosX,\n")
    run = await run_cli_on(database_url, "import", tmp_path)
    assert run.returncode == 1
    assert "hospitals.csv: line 2: hospital_name: Must not be blank" in run.stderr
    assert (await client.get("/doctors/doctors/docX/")).status_code == 404
    (tmp_path / "hospitals.csv").write_text("unique_id,hospital_name\nhosX,General\n")
    await run_import(database_url, tmp_path)
    assert len(await list_patients(client)) == 2
    (tmp_path / "patients.csv").write_text("unique_id\n")
    assert "several files of one resource" in (await run_cli_on(database_url, "import", tmp_path)).stderr


def test_help_lists_import_and_export_options() -> None:
    """The help lists both commands and their options."""
    assert {"import", "export"} <= set(run_cli("--help").stdout.split())
    assert "--on-error {stop,skip}" in run_cli("import", "--help").stdout


async def test_characters_of_the_format_of_copy_are_stored_as_they_are(
    database_url: str, client: httpx.AsyncClient
) -> None:
    """Backslashes, tabs and line breaks in an imported text, which mean something to COPY, are stored as if posted."""
    texts = (r"\N", "\\", r"C:\temp\new", "before\tafter", "two\nlines", "two\r\nlines", r"\N" + "\t")
    bodies = [
        {"unique_id": f"pat{index}", "patient_last_name": f"Doe {index}", "patient_physical_address": text}
        for index, text in enumerate(texts)
    ]
    posted = [
        (await client.post(PATIENTS, json={**body, "unique_id": f"posted{index}"})).json()
        for index, body in enumerate(bodies)
    ]
    await run_import(database_url, "-", stdin=ndjson(bodies))
    for index, one in enumerate(posted):
        imported = await get_patient(client, f"pat{index}")
        assert imported["patient_physical_address"] == one["patient_physical_address"]
