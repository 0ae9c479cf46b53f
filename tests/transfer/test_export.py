"""Exports: complete snapshots that can be imported again, and that are audited."""

import asyncio
import csv
import gzip
import io
import json
import os
import re
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.processes import run_cli
from tests.support import EXAMPLE_PATIENT
from tests.transfer.support import (
    CSV_COLUMNS,
    PATIENTS,
    cli_process,
    get_patient,
    ndjson,
    patient_bodies,
    run_cli_on,
    run_import,
)

pytestmark = pytest.mark.usefixtures("hospitals_and_doctors")

ODD_PATIENT: dict[str, Any] = {
    "unique_id": "odd",
    "patient_first_name": 'Zoë "Z"; 王',
    "patient_last_name": "=1+1",
    "patient_physical_address": "One\r\nTwo, and\n\\Three\\",
    "patient_latitude": "-0.000001",
    "hospital_ids": [],
}


async def create_records(client: httpx.AsyncClient) -> None:
    """Create records with every field and with few, changed and unchanged."""
    for body in (
        {**EXAMPLE_PATIENT, "unique_id": "all"},
        ODD_PATIENT,
        {"unique_id": "none", "patient_first_name": "N"},
    ):
        assert (await client.post(PATIENTS, json=body)).status_code == 201
    assert (await client.put(f"{PATIENTS}all/", json={"patient_town": "Durban"})).status_code == 200
    assert (await client.post("/profiles/profiles/", json={"unique_id": "alone"})).status_code == 201


def file_contents(directory: Path) -> dict[str, bytes]:
    """Return the contents of the files in a directory."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def file_names(directory: Path) -> set[str]:
    """Return the names of the files in a directory."""
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("file_format", ["ndjson", "csv"])
async def test_export_and_import_round_trip(
    file_format: str, database_url: str, another_url: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """An export makes the same records in an empty database; its journal verifies and its export is identical."""
    await create_records(client)
    await run_import(
        database_url, "-", stdin=ndjson(patient_bodies(2500, hospital_ids=["hos123"], doctor_ids=["doc456"]))
    )
    first, second = tmp_path / "first", tmp_path / "second"
    exported = await run_cli_on(database_url, "export", "--format", file_format, "--directory", first)
    assert exported.returncode == 0, exported.stderr
    assert f"{first}/patients.{file_format}: 2,503 records" in exported.stderr
    await run_import(another_url, first)
    verified = await run_cli_on(another_url, "journal", "verify")
    assert "patients: 2,503 records, 2,503 entries" in verified.stdout
    assert verified.returncode == 0
    await run_cli_on(another_url, "export", "--format", file_format, "--directory", second)
    files = file_contents(first)
    assert set(files) == {f"{resource}.{file_format}" for resource in ("hospitals", "doctors", "profiles", "patients")}
    assert file_contents(second) == files


async def test_ndjson_equals_the_list_and_csv_has_its_cells(database_url: str, client: httpx.AsyncClient) -> None:
    """NDJSON equals the streamed list byte for byte, and CSV has the same values in cells."""
    await create_records(client)
    streamed = await client.get(PATIENTS, headers={"Accept": "application/x-ndjson"})
    exported = await run_cli_on(database_url, "export")
    assert exported.stdout == streamed.text
    count, _, cursor = exported.stderr.strip().partition("\nChanges-Cursor: ")
    assert count == "patients: 3 records"
    as_said = await run_cli_on(database_url, "export", "--output", "-")
    assert as_said.stdout == exported.stdout
    one = await run_cli_on(database_url, "export", "--filter", "patient_last_name==1+1")
    assert one.stderr.startswith("patients: 1 record\n")
    rows = list(
        csv.reader(io.StringIO((await run_cli_on(database_url, "export", "--format", "csv")).stdout, newline=""))
    )
    assert rows[0] == list(CSV_COLUMNS)
    cells = [dict(zip(CSV_COLUMNS, row, strict=True)) for row in rows[1:]]
    assert cells[0]["hospital_ids"] == "hos123|hos456"
    assert cells[0]["patient_profile.email"] == "user@example.com"
    assert cells[1]["patient_profile.unique_id"] == ""
    assert cells[2]["patient_last_name"] == "'=1+1", "the formula must be escaped"
    await client.delete(f"{PATIENTS}{json.loads(exported.stdout.splitlines()[0])['unique_id']}/")
    for after in (cursor, streamed.headers["Changes-Cursor"]):
        changes = (await client.get("/changes/", params={"after": after})).json()
        assert [change["action"] for change in changes] == ["deleted"]


async def test_export_takes_the_filters_of_the_list(database_url: str, client: httpx.AsyncClient) -> None:
    """An export accepts the filters of the list and reports the same errors."""
    await create_records(client)
    await run_import(
        database_url, "-", stdin=ndjson(patient_bodies(1200, patient_town="Soweto", hospital_ids=["hos123"]))
    )

    async def ids(*filters: str) -> list[str]:
        options = [option for each in filters for option in ("--filter", each)]
        run = await run_cli_on(database_url, "export", *options)
        assert run.returncode == 0, run.stderr
        return [json.loads(line)["unique_id"] for line in run.stdout.splitlines()]

    assert len(await ids("patient_town=soweto", "patient_town=durban")) == 1201
    assert await ids("hospital_id=hos123", "patient_town=Durban") == ["all"]
    assert await ids("patient_mobile_number=123456789") == ["all"]
    unknown = "There is no such field or parameter"
    for wrong, message in {
        "patient_twon=Soweto": f"--filter patient_twon: {unknown}; did you mean patient_town?\n",
        "patient_gender=x": "--filter patient_gender.0: Must be Male, Female, Other or Unknown (or M, F, O, U)\n",
        "limit=10": "limit is not a filter.\n",
        "Soweto": "A filter has the form NAME=VALUE, such as hospital_id=hos123.\n",
    }.items():
        refused = await run_cli_on(database_url, "export", "--filter", wrong)
        assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", message)
    other = await run_cli_on(database_url, "export", "--resource", "hospitals", "--filter", "patient_town=x")
    assert other.stderr == f"--filter patient_town: {unknown}; /docs lists all of them\n"


async def test_export_is_a_snapshot(database_url: str, client: httpx.AsyncClient) -> None:
    """Records that are changed, created or deleted during an export do not affect it."""
    await run_import(database_url, "-", stdin=ndjson(patient_bodies(5000, patient_race="x" * 100)))
    before = (await client.get(PATIENTS, headers={"Accept": "application/x-ndjson"})).text
    with cli_process("export", url=database_url, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        begun = process.stdout.read(1000)  # the pipe is full long before the end
        assert (await client.delete(f"{PATIENTS}pat999/")).status_code == 204
        assert (await client.put(f"{PATIENTS}pat998/", json={"patient_last_name": "Later"})).status_code == 200
        new = {"unique_id": "zzz", "patient_last_name": "New"}
        assert (await client.post(PATIENTS, json=new)).status_code == 201
        rest = process.stdout.read()
    assert process.returncode == 0
    assert (begun + rest).decode() == before
    assert (await get_patient(client, "pat998"))["patient_last_name"] == "Later"


async def test_exported_files_are_private_and_reproducible(
    database_url: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Exported files are readable by their owner only, compressed if so named, and identical for identical records."""
    await create_records(client)
    for name in ("one.csv.gz", "two.csv.gz"):
        run = await run_cli_on(database_url, "export", "--format", "csv", "--output", tmp_path / name)
        assert run.returncode == 0, run.stderr
    one = tmp_path / "one.csv.gz"
    assert stat.S_IMODE(one.stat().st_mode) == 0o600
    assert one.read_bytes() == (tmp_path / "two.csv.gz").read_bytes()
    with gzip.open(one, "rt", newline="", encoding="utf-8") as unpacked:
        assert len(list(csv.reader(unpacked))) == 4
    assert set(file_contents(tmp_path)) == {"one.csv.gz", "two.csv.gz"}
    (tmp_path / "file").write_text("")
    refused = await run_cli_on(database_url, "export", "--output", tmp_path / "file" / "patients.csv")
    assert refused.returncode == 1
    assert "cannot be written" in refused.stderr
    for option in ("--output", "--directory"):
        nowhere = tmp_path / ("no" if option == "--output" else "file") / "here"
        refused = await run_cli_on(database_url, "export", option, nowhere)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"{nowhere} cannot be written: No")
        assert not nowhere.parent.is_dir()
    both = await run_cli_on(database_url, "export", "--directory", tmp_path, "--filter", "patient_town=x")
    assert both.returncode == 1


async def test_a_broken_export_leaves_no_file(database_url: str, tmp_path: Path) -> None:
    """A failed export leaves no file under its name."""
    await run_import(database_url, "-", stdin=ndjson(patient_bodies(10)))
    connection = await asyncpg.connect(database_url)
    await connection.execute("REVOKE ALL ON audit FROM PUBLIC; ALTER TABLE audit RENAME TO gone")
    run = await run_cli_on(database_url, "export", "--output", tmp_path / "patients.ndjson")
    await connection.close()
    assert run.returncode != 0
    assert file_contents(tmp_path) == {}


async def test_export_replaces_files_and_leaves_none_when_interrupted(database_url: str, tmp_path: Path) -> None:
    """An export replaces an existing file, writes into a pipe, and leaves nothing if interrupted."""
    await run_import(database_url, "-", stdin=ndjson(patient_bodies(30)))
    target = tmp_path / "target.csv"
    target.touch(0o666)
    assert (await run_cli_on(database_url, "export", "--output", target)).returncode == 0
    assert target.read_text().startswith("unique_id,"), "the format must follow from the file name"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = asyncio.create_task(asyncio.to_thread(pipe.read_text))
    assert (await run_cli_on(database_url, "export", "--output", pipe)).returncode == 0
    assert len((await reading).splitlines()) == 30
    full = await run_cli_on(database_url, "export", "--output", "/dev/full")
    assert full.stderr == "/dev/full cannot be written: No space left on device.\n"
    await run_import(database_url, "-", stdin=ndjson(patient_bodies(20_000)))
    whole = tmp_path / "whole.ndjson"
    with cli_process("export", "--output", str(whole), url=database_url, stderr=subprocess.DEVNULL) as process:
        while not any(name.startswith(".whole") for name in file_names(tmp_path)):
            await asyncio.to_thread(process.poll)
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM
    assert file_names(tmp_path) == {"target.csv", "pipe"}


async def test_a_closed_pipe_ends_the_export_with_a_message(database_url: str) -> None:
    """`export

    head` ends with a message and without a traceback.
    """
    await run_import(database_url, "-", stdin=ndjson(patient_bodies(5000)))
    with cli_process("export", url=database_url, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        assert process.stderr.read().decode() == "The reader has closed the output: the export is incomplete.\n"
    assert process.returncode == 1


async def test_exports_are_audited_and_in_the_access_report(
    database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """An export is audited and in the access report of each exported patient."""
    await create_records(client)
    await run_cli_on(database_url, "export")
    await run_cli_on(database_url, "export", "--resource", "hospitals")
    rows = await connection.fetch(
        "SELECT principal, method, route, resource, ids FROM audit WHERE principal = 'export'"
    )
    assert [tuple(row) for row in rows] == [("export", "RUN", "export", "patients", ["all", "none", "odd"])]
    report = await run_cli_on(database_url, "access-report", "odd")
    assert "Exported the record to a file" in report.stdout


def test_an_export_needs_a_database(tmp_path: Path) -> None:
    """Without a database, an export says so."""
    run = run_cli("export", PATIENTS_DATA_DIR=str(tmp_path))
    assert run.returncode == 1
    assert "There is no database in" in run.stderr


async def test_progress_is_shown_on_a_terminal(database_url: str, tmp_path: Path) -> None:
    """On a terminal, a progress bar with the rate is shown."""
    file = tmp_path / "patients.ndjson"
    file.write_text(ndjson(patient_bodies(8000)))
    shown, terminal = os.openpty()
    wide = {"TERM": "xterm", "COLUMNS": "120"}
    with cli_process("import", str(file), "--dry-run", url=database_url, stderr=terminal, environment=wide) as process:
        os.close(terminal)
        drawn = b""
        while True:
            try:
                drawn += os.read(shown, 65536)
            except OSError:  # the other end is closed
                break
        assert process.stdout is not None
        assert b"8,000 would be created" in process.stdout.read()
    os.close(shown)
    assert re.search("[2468],000 records", drawn.decode())
    assert "/s" in drawn.decode()
