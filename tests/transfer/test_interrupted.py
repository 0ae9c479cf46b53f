"""Imports that are killed, and imports that run beside the service's own writes."""

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path

import asyncpg
import httpx
import pytest

from app.db.database import STALL_TIMEOUT_SECONDS
from tests.processes import count_deadlocks, run_cli, wait_until_blocked
from tests.support import dump_tables
from tests.transfer.support import (
    PATIENTS,
    cli_process,
    list_patients,
    ndjson,
    patient_bodies,
    reading_transaction,
    run_cli_on,
    run_import,
)

pytestmark = pytest.mark.usefixtures("hospitals_and_doctors")

RECORD_COUNT = 5_000
TERMINATE_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
"""SQL that breaks all other connections to the database."""


async def await_writing(connection: asyncpg.Connection) -> None:
    """Wait until an import has written some of its patients in a transaction that is still open."""
    async with asyncio.timeout(60):
        while not await connection.fetchval(
            "SELECT pg_relation_size('journal') > 500000 AND EXISTS (SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()"
            " AND query ~ 'staged_patients')"
        ):
            await connection.execute("SELECT pg_sleep(0.02)")


async def await_import_ended(connection: asyncpg.Connection) -> None:
    """Wait until PostgreSQL has noticed that the import has ended."""
    async with asyncio.timeout(60):
        while await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_xid IS NOT NULL"
            " AND pid <> pg_backend_pid()"
        ):
            await connection.execute("SELECT pg_sleep(0.02)")


EXPECTED_EXITS = {
    signal.SIGKILL: (-signal.SIGKILL, b""),
    signal.SIGINT: (130, b"Interrupted: nothing was stored.\n"),
    signal.SIGTERM: (143, b"Interrupted: nothing was stored.\n"),
}
"""The exit status and the message of an import for each signal."""


@pytest.mark.parametrize("number", EXPECTED_EXITS)
async def test_a_killed_import_stores_nothing_and_can_be_repeated(
    number: int, database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """A killed import stores nothing and says so if it can, and the same file can then be imported."""
    file = tmp_path / "patients.ndjson"
    file.write_text(
        ndjson(patient_bodies(RECORD_COUNT, hospital_ids=["hos123"], patient_profile={"unique_id": "parent"}))
    )
    before = await dump_tables(connection)
    async with reading_transaction(database_url):
        with cli_process(
            "import", str(file), "--on-error", "skip", url=database_url, stderr=subprocess.PIPE
        ) as process:
            await await_writing(connection)
            process.send_signal(number)
            _, stderr = await asyncio.to_thread(process.communicate, timeout=30)
    assert (process.returncode, stderr) == EXPECTED_EXITS[signal.Signals(number)]
    await await_import_ended(connection)
    assert await dump_tables(connection) == before
    run = await run_import(database_url, file)
    assert f"{RECORD_COUNT:,} created" in run.stdout
    assert len(await list_patients(client)) == RECORD_COUNT


@pytest.mark.parametrize(
    ("is_interrupted", "status", "message"),
    [
        (True, 130, "Interrupted: all valid lines had already been stored.\n"),
        (
            False,
            1,
            "The import failed at its end: all valid lines had already been stored.\nThe database cannot be reached",
        ),
    ],
    ids=["interrupted", "connections broken"],
)
async def test_an_import_that_ends_early_after_its_commit_says_that_all_is_stored(
    database_url: str, connection: asyncpg.Connection, *, is_interrupted: bool, status: int, message: str
) -> None:
    """If an import is interrupted or fails after its commit, while it analyzes tables, it says that all is stored."""
    # an import into an empty table would need the lock before its commit
    await run_import(database_url, "-", stdin=ndjson([{"patient_last_name": "Before"}]))
    with cli_process("import", "-", url=database_url, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        async with connection.transaction():
            await connection.execute("LOCK TABLE patients IN SHARE UPDATE EXCLUSIVE MODE")  # as ANALYZE does
            assert process.stdin is not None
            process.stdin.write(ndjson(patient_bodies(3)).encode())
            process.stdin.close()
            await wait_until_blocked(connection)
            if is_interrupted:
                process.send_signal(signal.SIGINT)
            else:
                await connection.execute(TERMINATE_OTHERS)
            assert await asyncio.to_thread(process.wait, 30) == status
        assert process.stderr is not None
        assert process.stderr.read().decode().startswith(message)
    assert await connection.fetchval("SELECT count(*) FROM patients") == 4


def test_an_interruption_during_startup_has_no_traceback(database_url: str, tmp_path: Path) -> None:
    """Ctrl-C while modules are loaded ends the import without a traceback."""
    early = """
import os, signal, sys

class CtrlC:
    def find_spec(self, name, *_):
        if name == "app.cli.import_":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, CtrlC())
"""
    (tmp_path / "sitecustomize.py").write_text(early)
    run = run_cli("import", "-", stdin_text="", DATABASE_URL=database_url, PYTHONPATH=str(tmp_path))
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")


async def test_a_broken_connection_stores_nothing(
    database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """If its connection breaks, an import says so in one line and stores nothing."""
    file = tmp_path / "patients.ndjson"
    file.write_text(ndjson(patient_bodies(RECORD_COUNT)))
    importing = asyncio.create_task(run_cli_on(database_url, "import", file))
    await await_writing(connection)
    await connection.execute(TERMINATE_OTHERS)
    run = await importing
    assert run.returncode == 1
    assert run.stderr.startswith("The database cannot be reached")
    assert "Traceback" not in run.stderr
    assert await connection.fetchval("SELECT count(*) FROM patients") == 0


async def test_an_import_and_concurrent_writers_both_succeed(
    database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """An import and concurrent writers that change the same patients in the opposite order all succeed."""
    await run_import(database_url, "-", stdin=ndjson(patient_bodies(RECORD_COUNT // 2, hospital_ids=["hos123"])))
    file = tmp_path / "patients.ndjson"
    file.write_text(ndjson(patient_bodies(RECORD_COUNT // 2, patient_town="Imported", hospital_ids=["hos456"])))
    responses: list[int] = []
    stop = asyncio.Event()

    async def change(place: int) -> None:
        while not stop.is_set():
            place = (place - 1) % (RECORD_COUNT // 2)
            body = {"patient_region": "Changed", "patient_profile": {"unique_id": "parent", "email": f"{place}@x.org"}}
            responses.append((await client.put(f"{PATIENTS}pat{place}/", json=body)).status_code)

    writers = [asyncio.create_task(change(place)) for place in (1000, 3000, 5000)]
    try:
        run = await run_import(database_url, file, "--update")
    finally:
        stop.set()
        await asyncio.gather(*writers)
    assert f"0 created, {RECORD_COUNT // 2:,} updated" in run.stdout
    # a write that waits for a patient that the import has locked until its end gets a 503
    assert set(responses) <= {200, 503}
    assert responses.count(200) > 3
    listed = await list_patients(client)
    assert {one["patient_town"] for one in listed} == {"Imported"}
    assert {json.dumps(one["patient_hospital"]) for one in listed} == {
        json.dumps([{"unique_id": "hos456", "hospital_name": "St. Mary's"}])
    }
    # both are in the journal, once per change
    assert await connection.fetchval("SELECT count(*) FROM patients") == RECORD_COUNT // 2
    flawed = await connection.fetchval(
        "SELECT count(*) FROM patients p WHERE version <> (SELECT max(version) FROM journal j"
        " WHERE j.resource = 'patients' AND j.unique_id = p.unique_id)"
    )
    assert flawed == 0
    await count_deadlocks(connection)


async def test_concurrent_imports_of_one_file_create_once(database_url: str, client: httpx.AsyncClient) -> None:
    """Of two concurrent imports of one file, the second finds all records unchanged."""
    file = ndjson(patient_bodies(3000))
    first, second = await asyncio.gather(*(run_import(database_url, "-", stdin=file) for _ in range(2)))
    assert sorted(("3,000 created" in run.stdout, "3,000 unchanged" in run.stdout) for run in (first, second)) == [
        (False, True),
        (True, False),
    ]
    assert len(await list_patients(client)) == 3000


async def test_names_are_created_and_found_during_an_import(
    database_url: str, client: httpx.AsyncClient, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """During an import others can create and find the same names, and the imported names are found afterwards."""
    file = tmp_path / "patients.ndjson"
    lines = [
        {"unique_id": "one", "patient_last_name": "Xolotlan"},
        *patient_bodies(RECORD_COUNT, patient_first_name="Quetzal"),
    ]
    file.write_text(ndjson(lines))
    importing = asyncio.create_task(run_cli_on(database_url, "import", file))
    await await_writing(connection)
    response = await client.post(PATIENTS, json={"patient_first_name": "Quetzal", "patient_last_name": "Doe"})
    assert response.status_code == 201, response.text
    assert not importing.done(), "the import ended too early for this test"
    found = await client.post(f"{PATIENTS}search/", json={"search": "quetzla"})
    assert [one["unique_id"] for one in found.json()] == [response.json()["unique_id"]]
    assert (await importing).returncode == 0
    found = await client.post(f"{PATIENTS}search/", json={"search": "xolotlna"})
    assert [one["unique_id"] for one in found.json()] == ["one"]


async def test_imports_in_opposite_order_both_succeed(database_url: str, client: httpx.AsyncClient) -> None:
    """Two imports that change the same patients in opposite order both succeed."""
    await run_import(database_url, "-", stdin=ndjson(patient_bodies(4000)))
    first = patient_bodies(
        4000, patient_town="One", patient_profile={"unique_id": "parent", "email": "one@example.com"}
    )
    second = patient_bodies(
        4000, patient_region="Two", patient_profile={"unique_id": "parent", "email": "two@example.com"}
    )
    await asyncio.gather(
        run_import(database_url, "-", "--update", stdin=ndjson(first)),
        run_import(database_url, "-", "--update", stdin=ndjson(reversed(second))),
    )
    assert {(one["patient_town"], one["patient_region"]) for one in await list_patients(client)} == {("One", "Two")}


async def test_an_interruption_while_waiting_for_input_ends_at_once(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """Ctrl-C ends an import that waits for input, and its transaction, at once."""
    with cli_process("import", "-", url=database_url, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(ndjson(patient_bodies(3000)).encode())
        process.stdin.flush()
        async with asyncio.timeout(60):
            while not await connection.fetchval("SELECT pg_relation_size('journal') > 100000"):
                await connection.execute("SELECT pg_sleep(0.02)")
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 20) == 130
    await await_import_ended(connection)
    assert await connection.fetchval("SELECT count(*) FROM patients") == 0


def kill_child(pid: int) -> None:
    """Kill the only child of a process."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)


async def test_an_import_whose_reading_process_is_killed_stores_nothing(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """An import says so if the process that reads its file is killed, as the kernel does when memory is full."""
    with cli_process("import", "-", url=database_url, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(ndjson(patient_bodies(3000)).encode())
        process.stdin.flush()
        async with asyncio.timeout(60):
            while not await connection.fetchval("SELECT pg_relation_size('journal') > 100000"):
                await connection.execute("SELECT pg_sleep(0.02)")
        kill_child(process.pid)
        _, stderr = await asyncio.to_thread(process.communicate, timeout=30)
    assert process.returncode == 1
    assert b"The process that reads the file was killed" in stderr
    await await_import_ended(connection)
    assert await connection.fetchval("SELECT count(*) FROM patients") == 0


async def test_tables_that_take_long_to_analyze_make_no_import_fail(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """When everything is stored, an import waits for as long as ANALYZE takes, also for tables that come later."""
    await run_import(database_url, "-", stdin=ndjson(patient_bodies(1)))
    async with connection.transaction():
        # ANALYZE waits for this lock, and writes do not
        await connection.execute(
            "LOCK TABLE patients, patient_hospitals, patient_doctors, journal IN SHARE UPDATE EXCLUSIVE MODE"
        )
        importing = asyncio.create_task(run_import(database_url, "-", stdin=ndjson(patient_bodies(2))))
        await wait_until_blocked(connection)
        with pytest.raises(TimeoutError):  # longer than a request waits for a connection
            await asyncio.wait_for(asyncio.shield(importing), STALL_TIMEOUT_SECONDS + 0.5)
    assert (await importing).stdout.splitlines()[1:] == ["Stored."]
