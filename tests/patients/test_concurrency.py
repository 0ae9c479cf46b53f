"""Many concurrent requests, over real connections to services in their own processes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import httpx
import pytest

from tests.processes import (
    RawRequest,
    TimedResponse,
    count_deadlocks,
    free_port,
    running_cli,
    send_concurrently,
    wait_until_blocked,
    wait_until_ready,
)
from tests.support import ServiceProcess

pytestmark = pytest.mark.crowd

PATIENTS = "/patients/patients/"
PAIR_COUNT = 8
"""Number of pairs of hospitals and doctors to choose from."""

Serve = Callable[..., ServiceProcess]
JsonObject = dict[str, Any]


@pytest.fixture(scope="module")
async def shared_url(module_database_url: str) -> AsyncIterator[str]:
    """Yield a database that the tests of this file share, and check that no deadlock happened in it."""
    yield module_database_url
    connection = await asyncpg.connect(module_database_url)
    assert await count_deadlocks(connection) == 0
    await connection.close()


@pytest.fixture(scope="module")
def service_url(shared_url: str) -> Iterator[str]:
    """Yield a service of two processes on the shared database."""
    port = free_port()
    with running_cli("serve", "--port", str(port), "--workers", "2", DATABASE_URL=shared_url) as process:
        wait_until_ready(process, f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def shared_connection(shared_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection to the shared database, which it empties first."""
    connection = await asyncpg.connect(shared_url)
    await connection.execute(
        """
        ALTER TABLE journal DISABLE TRIGGER append_only;
        TRUNCATE patients, profiles, hospitals, doctors, journal CASCADE;
        ALTER TABLE journal ENABLE TRIGGER append_only;
        """
    )
    yield connection
    await connection.close()


async def insert_pairs(connection: asyncpg.Connection) -> None:
    """Insert hospitals and doctors 0 to 8, and the patient to link to them."""
    await connection.execute(
        """
        INSERT INTO hospitals (unique_id, hospital_name) SELECT 'hos' || n, 'Hospital' FROM generate_series(0, 8) n;
        INSERT INTO doctors (unique_id, doctor_first_name) SELECT 'doc' || n, 'Doctor' FROM generate_series(0, 8) n;
        INSERT INTO patients (unique_id, patient_last_name, patient_race) VALUES ('pat', 'Doe', '0');
        INSERT INTO patient_hospitals VALUES ('pat', 'hos0'), ('pat', 'hos1');
        INSERT INTO patient_doctors VALUES ('pat', 'doc0'), ('pat', 'doc1');
        """
    )


def pair_body(number: int) -> JsonObject:
    """Return a body that links a patient to one pair of hospitals and doctors, and has its number in a field."""
    return {
        "patient_race": str(number),
        "hospital_ids": [f"hos{number + 1}", f"hos{number}"],
        "doctor_ids": [f"doc{number}", f"doc{number + 1}"],
    }


def shown_pair(patient: JsonObject) -> tuple[str, list[str], list[str]]:
    hospitals = [hospital["unique_id"] for hospital in patient["patient_hospital"]]
    return patient["patient_race"], hospitals, [doctor["unique_id"] for doctor in patient["patient_doctor"]]


VALID_PAIRS = [(str(n), [f"hos{n}", f"hos{n + 1}"], [f"doc{n}", f"doc{n + 1}"]) for n in range(PAIR_COUNT)]


def count_statuses(responses: list[TimedResponse]) -> Counter[int]:
    return Counter(response.status for response in responses)


async def read_while_running(
    task: Awaitable[list[TimedResponse]], read: Callable[[], Awaitable[None]], reader_count: int
) -> list[TimedResponse]:
    """Await the task while `reader_count` readers keep reading, and return its result."""
    running = asyncio.ensure_future(task)

    async def keep_reading() -> None:
        while not running.done():
            await read()

    await asyncio.gather(*(keep_reading() for _ in range(reader_count)))
    return await running


async def test_concurrent_upserts_create_each_profile_once(
    service_url: str, shared_connection: asyncpg.Connection
) -> None:
    """20 requests for each of 20 new profiles, all at once, create 400 patients, and each profile once."""
    calls = [
        RawRequest(
            "POST",
            PATIENTS,
            {
                "patient_last_name": f"Doe {number}",
                "patient_profile": {"unique_id": f"prof{number % 20}", "first_name": f"Given by {number}"},
            },
        )
        for number in range(400)
    ]
    responses = await send_concurrently(service_url, calls)
    assert count_statuses(responses) == {201: 400}
    for number, response in enumerate(responses):
        assert response.json()["patient_last_name"] == f"Doe {number}"
        assert response.json()["patient_profile"]["first_name"] == f"Given by {number}", (
            "the response does not show what was sent"
        )
    by_profile = await shared_connection.fetch(
        "SELECT pr.unique_id, count(*) AS patients FROM profiles pr JOIN patients p ON p.profile_id = pr.unique_id"
        " GROUP BY 1"
    )
    assert {row["unique_id"]: row["patients"] for row in by_profile} == {f"prof{number}": 20 for number in range(20)}
    assert await shared_connection.fetchval("SELECT count(*) FROM patients") == 400
    assert await shared_connection.fetchval("SELECT count(*) FROM profiles") == 20


async def replace_links_400_times(url: str) -> None:
    """Send 400 concurrent PUTs and reads beside them, and check that each response shows a pair as it was sent."""
    seen: list[tuple[str, list[str], list[str]]] = []
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:

        async def read() -> None:
            response = await client.get(f"{PATIENTS}pat/")
            assert response.status_code == 200
            seen.append(shown_pair(response.json()))

        calls = [RawRequest("PUT", f"{PATIENTS}pat/", pair_body(number % PAIR_COUNT)) for number in range(400)]
        responses = await read_while_running(send_concurrently(url, calls), read, reader_count=8)
    assert count_statuses(responses) == {200: 400}
    for number, response in enumerate(responses):
        assert shown_pair(response.json()) == VALID_PAIRS[number % PAIR_COUNT]
    assert len(seen) >= 10
    assert [shown for shown in seen if shown not in VALID_PAIRS] == []
    assert len({race for race, _, _ in seen}) > 1, "the reads did not happen between the writes"


async def test_concurrent_link_replacements_are_never_mixed(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """In one process, the default, 400 concurrent replacements of hospitals and doctors succeed and are never mixed."""
    await insert_pairs(connection)
    await replace_links_400_times(serve(DATABASE_URL=database_url).url)
    assert await connection.fetchval("SELECT version FROM patients") > 1
    assert await count_deadlocks(connection) == 0


async def test_concurrent_link_replacements_through_two_processes_are_never_mixed(
    service_url: str, shared_connection: asyncpg.Connection
) -> None:
    """In two processes, 400 concurrent replacements of hospitals and doctors succeed and are never mixed."""
    await insert_pairs(shared_connection)
    await replace_links_400_times(service_url)


async def test_concurrent_creates_with_one_id_create_one_patient(
    service_url: str, shared_connection: asyncpg.Connection
) -> None:
    """Of 50 concurrent POSTs of one unique_id, one creates the patient; the others are conflicts and store nothing."""
    responses = await send_concurrently(
        service_url,
        [
            RawRequest(
                "POST",
                PATIENTS,
                {"unique_id": "chosen", "patient_last_name": f"Doe {n}", "patient_profile": {"unique_id": f"prof{n}"}},
            )
            for n in range(50)
        ],
    )
    assert count_statuses(responses) == {201: 1, 409: 49}
    (winner,) = (response.json() for response in responses if response.status == 201)
    stored = await shared_connection.fetch("SELECT unique_id, patient_last_name, profile_id FROM patients")
    profile = winner["patient_profile"]["unique_id"]
    assert [tuple(row) for row in stored] == [("chosen", winner["patient_last_name"], profile)]
    assert [row["unique_id"] for row in await shared_connection.fetch("SELECT unique_id FROM profiles")] == [profile]


async def test_concurrent_linking_and_deletion_stay_consistent(
    service_url: str, shared_connection: asyncpg.Connection
) -> None:
    """If a hospital or doctor is deleted while patients are linked to it, the deletion or the links are refused."""
    await shared_connection.execute(
        """
        INSERT INTO hospitals (unique_id, hospital_name) SELECT 'hos' || n, 'Hospital' FROM generate_series(0, 19) n;
        INSERT INTO doctors (unique_id, doctor_first_name) SELECT 'doc' || n, 'Doctor' FROM generate_series(0, 19) n;
        INSERT INTO patients (unique_id, patient_last_name)
            SELECT target || n, 'Doe' FROM (VALUES ('hos'), ('doc')) targets (target), generate_series(0, 19) n
        """
    )
    targets = [(f"hos{n}", "hospital_ids", "/hospitals/hospitals/") for n in range(20)]
    targets += [(f"doc{n}", "doctor_ids", "/doctors/doctors/") for n in range(20)]
    by_target = [
        (
            RawRequest("POST", PATIENTS, {"patient_last_name": "Doe", field: [target]}),
            RawRequest("DELETE", f"{path}{target}/"),
            RawRequest("PUT", f"{PATIENTS}{target}/", {field: [target]}),
        )
        for target, field, path in targets
    ]
    responses = await send_concurrently(service_url, [call for calls in by_target for call in calls])
    stored = await shared_connection.fetch("TABLE patient_hospitals UNION ALL TABLE patient_doctors")
    links = Counter(row[1] for row in stored)
    for number, (target, _, _) in enumerate(targets):
        created, deleted, changed = (response.status for response in responses[3 * number : 3 * number + 3])
        assert created in {201, 409, 422}
        assert changed in {200, 409, 422}
        assert links[target] == (created == 201) + (changed == 200), (
            "the stored links are not those of the successful responses"
        )
        assert deleted == (409 if links[target] else 204)


async def test_link_waits_for_a_hospital_deletion_and_is_refused(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A link to a hospital that another transaction is deleting waits for it, and is then refused."""
    await connection.execute("INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hos', 'Hospital')")
    async with connection.transaction():
        await connection.execute("DELETE FROM hospitals")
        body = {"patient_last_name": "Doe", "hospital_ids": ["hos"], "patient_profile": {"unique_id": "prof"}}
        posting = asyncio.ensure_future(client.post(PATIENTS, json=body))
        await wait_until_blocked(connection)
    assert (await posting).status_code in {409, 422}
    for table in ("patients", "profiles"):
        assert await connection.fetch(f"TABLE {table}") == []


async def test_hospital_deletion_waits_for_a_link_and_is_refused(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """Deleting a hospital that another transaction links waits for it, and then says how many patients are linked."""
    await connection.execute(
        "INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hos', 'Hospital');"
        "INSERT INTO patients (unique_id, patient_last_name) VALUES ('pat', 'Doe')"
    )
    async with connection.transaction():
        await connection.execute("INSERT INTO patient_hospitals VALUES ('pat', 'hos')")
        deleting = asyncio.ensure_future(client.delete("/hospitals/hospitals/hos/"))
        await wait_until_blocked(connection)
    response = await deleting
    assert response.status_code == 409
    assert response.json()["detail"].startswith("1 patient is linked")


async def test_concurrent_updates_and_deletions_of_patients_stay_consistent(
    service_url: str, shared_connection: asyncpg.Connection
) -> None:
    """Patients changed and deleted at once are deleted once, and each change is made before that or is a 404."""
    await insert_pairs(shared_connection)
    await shared_connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name) SELECT 'pat' || n, 'Doe' FROM generate_series(0, 19) n"
    )
    by_patient = [
        (
            RawRequest(
                "PUT", f"{PATIENTS}pat{n}/", {**pair_body(n % PAIR_COUNT), "patient_profile": {"unique_id": f"prof{n}"}}
            ),
            RawRequest("DELETE", f"{PATIENTS}pat{n}/"),
            RawRequest("PUT", f"{PATIENTS}pat{n}/", pair_body((n + 1) % PAIR_COUNT)),
            RawRequest("DELETE", f"{PATIENTS}pat{n}/"),
        )
        for n in range(20)
    ]
    responses = await send_concurrently(service_url, [call for calls in by_patient for call in calls])
    for n in range(20):
        first, deleted, second, deleted_too = (response.status for response in responses[4 * n : 4 * n + 4])
        assert sorted([deleted, deleted_too]) == [204, 404]
        assert {first, second} <= {200, 404}
        profiles = await shared_connection.fetchval("SELECT count(*) FROM profiles WHERE unique_id = $1", f"prof{n}")
        assert profiles == (first == 200), "a refused change left its profile behind"
    assert [row["unique_id"] for row in await shared_connection.fetch("SELECT unique_id FROM patients")] == ["pat"]


async def test_concurrent_upserts_and_deletions_of_profiles_stay_consistent(
    service_url: str, shared_connection: asyncpg.Connection
) -> None:
    """Profiles deleted while patients are created with them are either deleted and unused, or kept and in use."""
    made = await send_concurrently(
        service_url, [RawRequest("POST", "/profiles/profiles/", {"unique_id": f"prof{n}"}) for n in range(40)]
    )
    assert {response.status for response in made} == {201}
    by_profile = []
    for n in range(40):
        profile = {"unique_id": f"prof{n}"} | ({"first_name": "Jane"} if n % 2 else {})
        post = RawRequest("POST", PATIENTS, {"patient_last_name": "Doe", "patient_profile": profile})
        by_profile.append((post, RawRequest("DELETE", f"/profiles/profiles/prof{n}/"), post))
    responses = await send_concurrently(service_url, [call for calls in by_profile for call in calls])
    patients = Counter(row["profile_id"] for row in await shared_connection.fetch("SELECT profile_id FROM patients"))
    profiles = {row["unique_id"] for row in await shared_connection.fetch("SELECT unique_id FROM profiles")}
    for n in range(40):
        first, deleted, second = (response.status for response in responses[3 * n : 3 * n + 3])
        assert {first, second} <= {201, 409}
        assert patients[f"prof{n}"] == [first, second].count(201)
        assert deleted == (409 if patients[f"prof{n}"] else 204)
        assert (f"prof{n}" in profiles) is (deleted == 409)
