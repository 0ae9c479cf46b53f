"""Exports: whole, of one moment, into files that can be imported; and on record."""

import asyncio
import csv
import gzip
import io
import json
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.processes import run_command
from tests.support import EXAMPLE
from tests.transfer.support import COLUMNS, PATIENTS, command, imported, ndjson, patient, people, running

pytestmark = pytest.mark.usefixtures("directory")

ODD: dict[str, Any] = {
    "unique_id": "odd",
    "patient_first_name": 'Zoë "Z"; 王',
    "patient_last_name": "=1+1",
    "patient_physical_address": "One\r\nTwo, and\n\\Three\\",
    "patient_latitude": "-0.000001",
    "hospital_ids": [],
}


async def fill(client: httpx.AsyncClient) -> None:
    """Records with everything and nothing, changed and not."""
    for body in ({**EXAMPLE, "unique_id": "all"}, ODD, {"unique_id": "none", "patient_first_name": "N"}):
        assert (await client.post(PATIENTS, json=body)).status_code == 201
    assert (await client.put(f"{PATIENTS}all/", json={"patient_town": "Durban"})).status_code == 200
    assert (await client.post("/profiles/profiles/", json={"unique_id": "alone"})).status_code == 201


def contents(directory: Path) -> dict[str, bytes]:
    """The files of a directory."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def names(directory: Path) -> set[str]:
    """What a directory holds."""
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("form", ["ndjson", "csv"])
async def test_round_trip(
    form: str, database_url: str, another_url: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """What is exported makes the same records in an empty database, whose journal verifies; its export is the same."""
    await fill(client)
    await imported(database_url, "-", given=ndjson(people(2500, hospital_ids=["hos123"], doctor_ids=["doc456"])))
    first, second = tmp_path / "first", tmp_path / "second"
    exported = await command(database_url, "export", "--format", form, "--directory", first)
    assert exported.returncode == 0, exported.stderr
    assert f"{first}/patients.{form}: 2,503 records" in exported.stderr
    await imported(another_url, first)
    verified = await command(another_url, "journal", "verify")
    assert "patients: 2503 records, 2503 entries" in verified.stdout
    assert verified.returncode == 0
    await command(another_url, "export", "--format", form, "--directory", second)
    files = contents(first)
    assert set(files) == {f"{resource}.{form}" for resource in ("hospitals", "doctors", "profiles", "patients")}
    assert contents(second) == files


async def test_what_is_written(database_url: str, client: httpx.AsyncClient) -> None:
    """NDJSON is what the list streams, byte for byte; CSV the same in cells."""
    await fill(client)
    streamed = await client.get(PATIENTS, headers={"Accept": "application/x-ndjson"})
    exported = await command(database_url, "export")
    assert exported.stdout == streamed.text
    assert exported.stderr == "patients: 3 records\n"
    as_said = await command(database_url, "export", "--output", "-")
    assert (as_said.stdout, as_said.stderr) == (exported.stdout, exported.stderr)
    one = await command(database_url, "export", "--filter", "patient_last_name==1+1")
    assert one.stderr == "patients: 1 record\n"
    rows = list(csv.reader(io.StringIO((await command(database_url, "export", "--format", "csv")).stdout, newline="")))
    assert rows[0] == list(COLUMNS)
    cells = [dict(zip(COLUMNS, row, strict=True)) for row in rows[1:]]
    assert cells[0]["hospital_ids"] == "hos123|hos456"
    assert cells[0]["patient_profile.email"] == "user@example.com"
    assert cells[1]["patient_profile.unique_id"] == ""
    assert cells[2]["patient_last_name"] == "'=1+1", "which no spreadsheet runs"


async def test_filters(database_url: str, client: httpx.AsyncClient) -> None:
    """Those of the list; and the same errors."""
    await fill(client)
    await imported(database_url, "-", given=ndjson(people(1200, patient_town="Soweto", hospital_ids=["hos123"])))

    async def ids(*filters: str) -> list[str]:
        options = [option for each in filters for option in ("--filter", each)]
        run = await command(database_url, "export", *options)
        assert run.returncode == 0, run.stderr
        return [json.loads(line)["unique_id"] for line in run.stdout.splitlines()]

    assert len(await ids("patient_town=soweto", "patient_town=durban")) == 1201
    assert await ids("hospital_id=hos123", "patient_town=Durban") == ["all"]
    assert await ids("patient_mobile_number=123456789") == ["all"]
    for wrong, message in {
        "patient_twon=Soweto": "--filter patient_twon: There is no such field or parameter\n",
        "patient_gender=x": "--filter patient_gender.0: Must be Male, Female, Other or Unknown (or M, F, O, U)\n",
        "limit=10": "limit is no filter.\n",
        "Soweto": "A filter is NAME=VALUE, as hospital_id=hos123.\n",
    }.items():
        refused = await command(database_url, "export", "--filter", wrong)
        assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", message)
    other = await command(database_url, "export", "--resource", "hospitals", "--filter", "hospital_name=x")
    assert other.stderr == "--filter hospital_name: There is no such field or parameter\n"


async def test_one_moment(database_url: str, client: httpx.AsyncClient) -> None:
    """What is changed, created or deleted while it is written changes nothing of an export that has begun."""
    await imported(database_url, "-", given=ndjson(people(5000, patient_race="x" * 100)))
    before = (await client.get(PATIENTS, headers={"Accept": "application/x-ndjson"})).text
    with running("export", url=database_url, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        begun = process.stdout.read(1000)  # the pipe is full long before the end
        assert (await client.delete(f"{PATIENTS}pat999/")).status_code == 204
        assert (await client.put(f"{PATIENTS}pat998/", json={"patient_last_name": "Later"})).status_code == 200
        new = {"unique_id": "zzz", "patient_last_name": "New"}
        assert (await client.post(PATIENTS, json=new)).status_code == 201
        rest = process.stdout.read()
    assert process.returncode == 0
    assert (begun + rest).decode() == before
    assert (await patient(client, "pat998"))["patient_last_name"] == "Later"


async def test_files(database_url: str, client: httpx.AsyncClient, tmp_path: Path) -> None:
    """They are their owner's alone, packed where their name says so, and alike where the records are."""
    await fill(client)
    for name in ("one.csv.gz", "two.csv.gz"):
        run = await command(database_url, "export", "--format", "csv", "--output", tmp_path / name)
        assert run.returncode == 0, run.stderr
    one = tmp_path / "one.csv.gz"
    assert stat.S_IMODE(one.stat().st_mode) == 0o600
    assert one.read_bytes() == (tmp_path / "two.csv.gz").read_bytes()
    with gzip.open(one, "rt", newline="", encoding="utf-8") as unpacked:
        assert len(list(csv.reader(unpacked))) == 4
    assert set(contents(tmp_path)) == {"one.csv.gz", "two.csv.gz"}
    (tmp_path / "file").write_text("")
    refused = await command(database_url, "export", "--output", tmp_path / "file" / "patients.csv")
    assert refused.returncode == 1
    assert "cannot be written" in refused.stderr
    for option in ("--output", "--directory"):
        nowhere = tmp_path / ("no" if option == "--output" else "file") / "here"
        refused = await command(database_url, "export", option, nowhere)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"{nowhere} cannot be written: No")
        assert not nowhere.parent.is_dir()
    both = await command(database_url, "export", "--directory", tmp_path, "--filter", "patient_town=x")
    assert both.returncode == 1


async def test_a_broken_export_leaves_no_file(database_url: str, tmp_path: Path) -> None:
    """A file that has its name is whole."""
    await imported(database_url, "-", given=ndjson(people(10)))
    connection = await asyncpg.connect(database_url)
    await connection.execute("REVOKE ALL ON audit FROM PUBLIC; ALTER TABLE audit RENAME TO gone")
    run = await command(database_url, "export", "--output", tmp_path / "patients.ndjson")
    await connection.close()
    assert run.returncode != 0
    assert contents(tmp_path) == {}


async def test_where_a_file_goes(database_url: str, tmp_path: Path) -> None:
    """In place of a file that is there; into a pipe; and nothing is left of what was interrupted."""
    await imported(database_url, "-", given=ndjson(people(30)))
    target = tmp_path / "target.csv"
    target.touch(0o666)
    assert (await command(database_url, "export", "--output", target)).returncode == 0
    assert target.read_text().startswith("unique_id,"), "and in the format of its name"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = asyncio.create_task(asyncio.to_thread(pipe.read_text))
    assert (await command(database_url, "export", "--output", pipe)).returncode == 0
    assert len((await reading).splitlines()) == 30
    full = await command(database_url, "export", "--output", "/dev/full")
    assert full.stderr == "/dev/full cannot be written: No space left on device.\n"
    await imported(database_url, "-", given=ndjson(people(20_000)))
    whole = tmp_path / "whole.ndjson"
    with running("export", "--output", str(whole), url=database_url, stderr=subprocess.DEVNULL) as process:
        while not any(name.startswith(".whole") for name in names(tmp_path)):
            await asyncio.to_thread(process.poll)
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM
    assert names(tmp_path) == {"target.csv", "pipe"}


async def test_a_reader_that_goes(database_url: str) -> None:
    """`export | head` ends with a word, not with a traceback."""
    await imported(database_url, "-", given=ndjson(people(5000)))
    with running("export", url=database_url, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        assert process.stderr.read().decode() == "Whoever was to read it has gone: the export is not whole.\n"
    assert process.returncode == 1


async def test_it_is_on_record(database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Who asks who has seen a patient hears of it."""
    await fill(client)
    await command(database_url, "export")
    await command(database_url, "export", "--resource", "hospitals")
    rows = await connection.fetch(
        "SELECT principal, method, route, resource, ids FROM audit WHERE principal = 'export'"
    )
    assert [tuple(row) for row in rows] == [("export", "RUN", "export", "patients", ["all", "none", "odd"])]
    report = await command(database_url, "access-report", "odd")
    assert "Exported the record into a file" in report.stdout


def test_commands_need_a_database(tmp_path: Path) -> None:
    """Where there is none they say so."""
    for arguments in (("export",), ("import", "-")):
        run = run_command(*arguments, PATIENTS_DATA_DIR=str(tmp_path))
        assert run.returncode == 1
        assert "There is no database in" in run.stderr


async def test_progress_on_a_terminal(database_url: str, tmp_path: Path) -> None:
    """A bar with the rate and the time left, where somebody looks; elsewhere only what it comes to."""
    file = tmp_path / "patients.ndjson"
    file.write_text(ndjson(people(4000)))
    shown, terminal = os.openpty()
    wide = {"TERM": "xterm", "COLUMNS": "120"}
    with running("import", str(file), "--dry-run", url=database_url, stderr=terminal, environment=wide) as process:
        os.close(terminal)
        drawn = b""
        while True:
            try:
                drawn += os.read(shown, 65536)
            except OSError:  # the other end is closed
                break
        assert process.stdout is not None
        assert b"4,000 to be created" in process.stdout.read()
    os.close(shown)
    assert "2,000 records" in drawn.decode()
    assert "/s" in drawn.decode()
