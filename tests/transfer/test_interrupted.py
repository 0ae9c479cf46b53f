"""Imports that are killed, and imports beside the service's own writes."""

import asyncio
import json
import signal
import subprocess
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.processes import await_blocked, deadlocks, run_command
from tests.support import dump
from tests.transfer.support import PATIENTS, command, imported, ndjson, patients, people, running

pytestmark = pytest.mark.usefixtures("directory")

MANY = 12_000


async def writing(connection: asyncpg.Connection) -> None:
    """Wait until an import has written some of its patients, in a transaction that is still open."""
    async with asyncio.timeout(60):
        while not await connection.fetchval(
            "SELECT pg_relation_size('patients') > 500000 AND EXISTS (SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()"
            " AND query ~ 'staged_patients')"
        ):
            await connection.execute("SELECT pg_sleep(0.02)")


async def alone(connection: asyncpg.Connection) -> None:
    """Wait until PostgreSQL has noticed that the import has gone."""
    async with asyncio.timeout(60):
        while await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ~ 'staged_patients'"
            " AND pid <> pg_backend_pid()"
        ):
            await connection.execute("SELECT pg_sleep(0.02)")


ENDS = {
    signal.SIGKILL: (-signal.SIGKILL, b""),
    signal.SIGINT: (130, b"Interrupted: nothing was stored.\n"),
    signal.SIGTERM: (143, b"Interrupted: nothing was stored.\n"),
}
"""The status with which each signal ends an import, and what it says."""


@pytest.mark.parametrize("number", ENDS)
async def test_killed_halfway(
    number: int, database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """Nothing is there, not of a single line, and it says so if it can; the same file is then imported as if nothing
    had been.
    """
    file = tmp_path / "patients.ndjson"
    file.write_text(ndjson(people(MANY, hospital_ids=["hos123"], patient_profile={"unique_id": "parent"})))
    before = await dump(connection)
    with running("import", str(file), "--on-error", "skip", url=database_url, stderr=subprocess.PIPE) as process:
        await writing(connection)
        process.send_signal(number)
        _, stderr = await asyncio.to_thread(process.communicate, timeout=30)
    assert (process.returncode, stderr) == ENDS[signal.Signals(number)]
    await alone(connection)
    assert await dump(connection) == before
    run = await imported(database_url, file)
    assert f"{MANY:,} created" in run.stdout
    assert len(await patients(client)) == MANY


async def test_interrupted_after_it_was_stored(database_url: str, connection: asyncpg.Connection) -> None:
    """It says so: while statistics are gathered nothing is undone any more."""
    with running("import", "-", url=database_url, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        async with connection.transaction():
            await connection.execute("LOCK TABLE patients IN SHARE UPDATE EXCLUSIVE MODE")  # as ANALYZE does
            assert process.stdin is not None
            process.stdin.write(ndjson(people(3)).encode())
            process.stdin.close()
            await await_blocked(connection)
            process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(process.wait, 30) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b"Interrupted: all that is right was stored before.\n"
    assert await connection.fetchval("SELECT count(*) FROM patients") == 3


def test_interrupted_while_it_starts(database_url: str, tmp_path: Path) -> None:
    """Ctrl-C while its modules are loaded ends it, without a traceback."""
    early = """
import os, signal, sys

class CtrlC:
    def find_spec(self, name, *_):
        if name == "app.cli.import_":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, CtrlC())
"""
    (tmp_path / "sitecustomize.py").write_text(early)
    run = run_command("import", "-", given="", DATABASE_URL=database_url, PYTHONPATH=str(tmp_path))
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")


async def test_a_connection_that_breaks(database_url: str, connection: asyncpg.Connection, tmp_path: Path) -> None:
    """It is told, in a line, and nothing is there."""
    file = tmp_path / "patients.ndjson"
    file.write_text(ndjson(people(MANY)))
    importing = asyncio.create_task(command(database_url, "import", file))
    await writing(connection)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query ~ 'staged_patients' AND pid <> pg_backend_pid()"
    )
    run = await importing
    assert run.returncode == 1
    assert run.stderr.startswith("The database cannot be reached")
    assert "Traceback" not in run.stderr
    assert await connection.fetchval("SELECT count(*) FROM patients") == 0


async def test_beside_other_writers(
    database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """An import that changes patients, while the service changes the same ones the other way round: both end well."""
    await imported(database_url, "-", given=ndjson(people(MANY // 2, hospital_ids=["hos123"])))
    file = tmp_path / "patients.ndjson"
    file.write_text(ndjson(people(MANY // 2, patient_town="Imported", hospital_ids=["hos456"])))
    answers: list[int] = []
    stop = asyncio.Event()

    async def change(place: int) -> None:
        while not stop.is_set():
            place = (place - 1) % (MANY // 2)
            body = {"patient_region": "Changed", "patient_profile": {"unique_id": "parent", "email": f"{place}@x.org"}}
            answers.append((await client.put(f"{PATIENTS}pat{place}/", json=body)).status_code)

    writers = [asyncio.create_task(change(place)) for place in (1000, 3000, 5000)]
    try:
        run = await imported(database_url, file, "--update")
    finally:
        stop.set()
        await asyncio.gather(*writers)
    assert f"0 created, {MANY // 2:,} updated" in run.stdout
    # who waits for a patient that the import holds until its end is told to come back
    assert set(answers) <= {200, 503}
    assert answers.count(200) > 3
    listed = await patients(client)
    assert {one["patient_town"] for one in listed} == {"Imported"}
    assert {json.dumps(one["patient_hospital"]) for one in listed} == {
        json.dumps([{"unique_id": "hos456", "hospital_name": "St. Mary's"}])
    }
    # both of them in the journal: as often as they were changed
    assert await connection.fetchval("SELECT count(*) FROM patients") == MANY // 2
    flawed = await connection.fetchval(
        "SELECT count(*) FROM patients p WHERE version <> (SELECT max(version) FROM journal j"
        " WHERE j.resource = 'patients' AND j.unique_id = p.unique_id)"
    )
    assert flawed == 0
    await deadlocks(connection)


async def test_the_same_patients_at_once(database_url: str, client: httpx.AsyncClient) -> None:
    """Two imports of one file: whoever comes second finds all of it there."""
    file = ndjson(people(3000))
    first, second = await asyncio.gather(*(imported(database_url, "-", given=file) for _ in range(2)))
    assert sorted(("3,000 created" in run.stdout, "3,000 unchanged" in run.stdout) for run in (first, second)) == [
        (False, True),
        (True, False),
    ]
    assert len(await patients(client)) == 3000


async def test_the_service_goes_on(
    database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """While an import runs, others of the same names are created and found; and those that it brought, afterwards."""
    file = tmp_path / "patients.ndjson"
    lines = [{"unique_id": "one", "patient_last_name": "Xolotlan"}, *people(MANY, patient_first_name="Quetzal")]
    file.write_text(ndjson(lines))
    importing = asyncio.create_task(command(database_url, "import", file))
    await writing(connection)
    answer = await client.post(PATIENTS, json={"patient_first_name": "Quetzal", "patient_last_name": "Doe"})
    assert answer.status_code == 201, answer.text
    assert not importing.done(), "the import was over too soon for this test"
    found = await client.post(f"{PATIENTS}search/", json={"search": "quetzla"})
    assert [one["unique_id"] for one in found.json()] == [answer.json()["unique_id"]]
    assert (await importing).returncode == 0
    found = await client.post(f"{PATIENTS}search/", json={"search": "xolotlna"})
    assert [one["unique_id"] for one in found.json()] == ["one"]


async def test_imports_follow_each_other(database_url: str, client: httpx.AsyncClient) -> None:
    """Two that change the same patients in opposite order both end well."""
    await imported(database_url, "-", given=ndjson(people(4000)))
    first = people(4000, patient_town="One", patient_profile={"unique_id": "parent", "email": "one@example.com"})
    second = people(4000, patient_region="Two", patient_profile={"unique_id": "parent", "email": "two@example.com"})
    await asyncio.gather(
        imported(database_url, "-", "--update", given=ndjson(first)),
        imported(database_url, "-", "--update", given=ndjson(reversed(second))),
    )
    assert {(one["patient_town"], one["patient_region"]) for one in await patients(client)} == {("One", "Two")}


async def test_interrupted_while_a_pipe_says_nothing(database_url: str, connection: asyncpg.Connection) -> None:
    """Ctrl-C ends it at once, and its transaction with it."""
    with running("import", "-", url=database_url, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(ndjson(people(3000)).encode())
        process.stdin.flush()
        async with asyncio.timeout(60):
            while not await connection.fetchval("SELECT pg_relation_size('patients') > 100000"):
                await connection.execute("SELECT pg_sleep(0.02)")
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 20) == 130
    await alone(connection)
    assert await connection.fetchval("SELECT count(*) FROM patients") == 0
