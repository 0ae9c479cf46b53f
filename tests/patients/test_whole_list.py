"""The list of all patients, 100,000 of them: whole, in constant memory, and never a well-formed part of it."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import ExitStack
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from tests.processes import RawRequest, port_of, reset_peak_memory, resident_bytes, send_concurrently
from tests.support import ServiceProcess, database_url_for, eventually, temporary_database

LIST = "/patients/patients/"
PATIENT_COUNT = 100_000
STALLED_READER_SECONDS = 2.0
MEGABYTE = 1024 * 1024
INSERT_PATIENTS = """
    INSERT INTO patients (unique_id, patient_title, patient_first_name, patient_last_name, patient_town,
        patient_physical_address, patient_date_of_birth, patient_gender, patient_latitude, patient_longitude)
    SELECT format('pat%s', to_char(n, 'FM000000')), 'Dr.', 'Zoë', 'Doe ' || n, 'Sample Town', n || ' Street Name',
        date '1950-01-01' + n % 20000, 'Female', -33.924870, 18.424055
    FROM generate_series(0, $1 - 1) n
"""
DROP_SECONDARY_INDEXES = """
    SELECT string_agg(format('DROP INDEX %s;', indexrelid::regclass), '') FROM pg_index
    WHERE indrelid = 'patients'::regclass AND NOT indisunique
"""

Serve = Callable[..., ServiceProcess]


async def insert_patients(connection: asyncpg.Connection) -> None:
    """Insert patients pat000000, pat000001, …, of which every tenth is linked to two hospitals and a doctor."""
    # without triggers and the indexes of filters and searches, which would take two thirds of the time
    await connection.execute("SET session_replication_role = replica")
    await connection.execute(await connection.fetchval(DROP_SECONDARY_INDEXES))
    await connection.execute(INSERT_PATIENTS, PATIENT_COUNT)
    await connection.execute(
        """
        INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hos1', 'General Hospital'), ('hos2', 'New Hospital');
        INSERT INTO doctors (unique_id, doctor_first_name) VALUES ('doc1', 'Dr. Smith');
        INSERT INTO patient_hospitals SELECT unique_id, h FROM patients, (VALUES ('hos1'), ('hos2')) hospitals (h)
            WHERE unique_id LIKE '%0';
        INSERT INTO patient_doctors SELECT unique_id, 'doc1' FROM patients WHERE unique_id LIKE '%0';
        ANALYZE
        """
    )


def listed_ids(body: bytes) -> list[str]:
    """Return the ids of a list, which has to be one valid JSON document."""
    listed: list[str] = json.loads(body, object_hook=lambda record: record["unique_id"])
    return listed


@pytest.fixture(scope="module")
async def filled_database(module_database_url: str) -> str:
    """Return the name of a database of 100,000 patients, to which nobody is connected."""
    connection = await asyncpg.connect(module_database_url)
    await insert_patients(connection)
    await connection.close()
    return urlsplit(module_database_url).path.removeprefix("/")


@pytest.fixture
async def database_url(postgres_url: str, filled_database: str) -> AsyncIterator[str]:
    """Yield a copy of the database of 100,000 patients."""
    async with temporary_database(postgres_url, template=filled_database) as url:
        yield url


def stream_list_chunks(client: httpx.Client) -> Generator[bytes, None, None]:
    with client.stream("GET", LIST) as response:
        assert response.status_code == 200
        yield from response.iter_raw(65536)


@pytest.mark.alone
def test_whole_list_in_constant_memory(serve: Serve, database_url: str) -> None:
    """The whole list has all patients once and in order, begins at once, and needs memory independent of it."""
    served = serve(DATABASE_URL=database_url)
    pid = served.process.pid
    first_bytes = []
    with httpx.Client(base_url=served.url, timeout=30) as client:
        for _ in range(3):
            began = time.perf_counter()
            stream = stream_list_chunks(client)
            next(stream)
            first_bytes.append(time.perf_counter() - began)
            stream.close()  # reads no further, which must harm nobody
        resident = resident_bytes(pid)
        reset_peak_memory(pid)
        began = time.perf_counter()
        body = b"".join(stream_list_chunks(client))
        whole_list_seconds = time.perf_counter() - began
    grown = resident_bytes(pid, peak=True) - resident
    assert min(first_bytes) < whole_list_seconds / 10, "the list begins only when much of it is read"
    assert listed_ids(body) == [f"pat{number:06}" for number in range(PATIENT_COUNT)]
    assert len(body) > 50 * MEGABYTE, "the list is too short to notice a server that holds it all"
    assert grown < 50 * MEGABYTE


@pytest.mark.alone
async def test_stalled_readers_hold_no_connection_and_little_memory(serve: Serve, database_url: str) -> None:
    """20 clients that request the whole list and read nothing hold no connection of the pool and little memory."""
    served = serve(DATABASE_URL=database_url, PATIENTS_POOL_SIZE="2")
    pid = served.process.pid
    with ExitStack() as stack:
        resident = resident_bytes(pid)
        for _ in range(20):
            reader = stack.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", port_of(served.url)))
            reader.sendall(RawRequest("GET", LIST).to_bytes())
        until = time.monotonic() + STALLED_READER_SECONDS
        slowest = 0.0
        while time.monotonic() < until:
            body = {"patient_last_name": "Doe"}
            one, page, changed = await send_concurrently(
                served.url,
                [
                    RawRequest("GET", f"{LIST}pat050000/"),
                    RawRequest("GET", f"{LIST}?limit=10"),
                    RawRequest("PUT", f"{LIST}pat000000/", body),
                ],
            )
            assert [one.status, page.status, changed.status] == [200, 200, 200]
            slowest = max(slowest, one.seconds, page.seconds, changed.seconds)
        grown = resident_bytes(pid) - resident
        assert slowest < 1.5
        assert grown < 100 * MEGABYTE


@pytest.mark.crowd
async def test_database_loss_midway_truncates_the_response(
    serve: Serve, postgres_url: str, database_url: str, connection: asyncpg.Connection
) -> None:
    """A list that cannot be finished is a truncated response, which every client notices, not a shorter list."""
    served = serve(DATABASE_URL=database_url)
    administration = await asyncpg.connect(database_url_for(postgres_url, "postgres"))
    name = await connection.fetchval("SELECT current_database()")
    received = b""

    async def read_on() -> None:
        nonlocal received
        async for chunk in chunks:
            received += chunk

    async with httpx.AsyncClient(base_url=served.url, timeout=30) as client, client.stream("GET", LIST) as response:
        assert response.status_code == 200
        chunks = response.aiter_raw()
        received += await anext(chunks)
        await administration.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await administration.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            await read_on()
    await administration.close()
    assert received.startswith(b'[{"unique_id":"pat000000"')
    with pytest.raises(json.JSONDecodeError):
        json.loads(received)
    # the client may notice the end before the log line is written and read
    await asyncio.to_thread(eventually, lambda: any(line.get("route") == LIST for line in served.log_entries()))
    entry = next(line for line in served.log_entries() if line.get("route") == LIST)
    assert entry["complete"] is False


@pytest.mark.crowd
async def test_whole_list_under_concurrent_inserts_and_deletes(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """Patients that stay are listed once each, whatever is inserted and deleted around them meanwhile."""
    served = serve(DATABASE_URL=database_url)
    body = bytearray()  # appending to bytes would copy the whole list so far for each chunk
    changes = 0
    await connection.execute("SET session_replication_role = replica")  # without triggers, as above
    async with httpx.AsyncClient(base_url=served.url, timeout=30) as client, client.stream("GET", LIST) as response:
        async for chunk in response.aiter_bytes(2 * MEGABYTE):
            body += chunk
            if changes < 9:  # delete the numbers that end in 1, then in 2, …, and insert new ids beside the others
                changes += 1
                await connection.execute("DELETE FROM patients WHERE unique_id LIKE 'pat%' || $1", str(changes))
                await connection.execute(
                    "INSERT INTO patients (unique_id, patient_last_name)"
                    " SELECT unique_id || side || $1, 'New' FROM patients, (VALUES ('-'), ('~')) sides (side)"
                    " WHERE unique_id LIKE 'pat_____0'",
                    str(changes),
                )
    listed = listed_ids(bytes(body))
    assert listed == sorted(set(listed)), "the list is in order and without duplicates"
    assert [unique_id for unique_id in listed if len(unique_id) == 9 and unique_id.endswith("0")] == [
        f"pat{number:06}" for number in range(0, PATIENT_COUNT, 10)
    ]
    assert changes == 9
    new_suffixes = {unique_id[-2:] for unique_id in listed if len(unique_id) > 9}
    original_count = sum(1 for unique_id in listed if len(unique_id) == 9)
    assert len(new_suffixes) > 2, "the changes did not happen during the read"
    assert original_count < PATIENT_COUNT


@pytest.mark.crowd
def test_reader_disconnect_is_logged_as_incomplete_not_as_error(serve: Serve, database_url: str) -> None:
    """A client that disconnects midway is logged as an incomplete response, not an error; the pool stays whole."""
    served = serve(DATABASE_URL=database_url, PATIENTS_POOL_SIZE="1")
    with httpx.Client(base_url=served.url, timeout=30) as client:
        for _ in range(3):
            stream = stream_list_chunks(client)
            next(stream)
            stream.close()
        assert client.get(f"{LIST}pat000001/").status_code == 200
    served.process.terminate()
    served.process.wait(20)
    assert [line for line in served.log_entries() if line["level"] not in {"info", "warning"}] == []
