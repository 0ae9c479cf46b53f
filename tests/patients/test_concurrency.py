"""Many requests in the same moment, over real connections to services in processes of their own."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import httpx
import pytest

from tests.conftest import free_port
from tests.processes import Answer, Call, at_once, await_blocked, await_ready, command_running, deadlocks
from tests.support import Served, database_named

pytestmark = pytest.mark.alone

PATIENTS = "/patients/patients/"
PAIRS = 8
"""How many pairs of hospitals and doctors there are to choose from."""

Serve = Callable[..., Served]
Row = dict[str, Any]


@pytest.fixture(scope="module")
async def shared_url(server: str) -> AsyncIterator[str]:
    """A database that the tests of this file share; no deadlock happens in it."""
    name = f"test_{secrets.token_hex(4)}"
    administration = await asyncpg.connect(database_named(server, "postgres"))
    await administration.execute(f"CREATE DATABASE {name} TEMPLATE patients")
    try:
        yield database_named(server, name)
        connection = await asyncpg.connect(database_named(server, name))
        assert await deadlocks(connection) == 0
        await connection.close()
    finally:
        await administration.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await administration.close()


@pytest.fixture(scope="module")
def url(shared_url: str) -> Iterator[str]:
    """A service of two processes on it."""
    port = free_port()
    with command_running("serve", "--port", str(port), "--workers", "2", DATABASE_URL=shared_url) as process:
        await_ready(process, f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def shared(shared_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the shared database, which is empty."""
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
    """Hospitals and doctors 0 to 8, and the patient who is to be linked to them."""
    await connection.execute(
        """
        INSERT INTO hospitals (unique_id, hospital_name) SELECT 'hos' || n, 'Hospital' FROM generate_series(0, 8) n;
        INSERT INTO doctors (unique_id, doctor_first_name) SELECT 'doc' || n, 'Doctor' FROM generate_series(0, 8) n;
        INSERT INTO patients (unique_id, patient_last_name, patient_race) VALUES ('pat', 'Doe', '0');
        INSERT INTO patient_hospitals VALUES ('pat', 'hos0'), ('pat', 'hos1');
        INSERT INTO patient_doctors VALUES ('pat', 'doc0'), ('pat', 'doc1');
        """
    )


def pair(number: int) -> Row:
    """A body that moves a patient to one pair of hospitals and doctors, and says which one in a field of its own."""
    return {
        "patient_race": str(number),
        "hospital_ids": [f"hos{number + 1}", f"hos{number}"],
        "doctor_ids": [f"doc{number}", f"doc{number + 1}"],
    }


def pair_shown(patient: Row) -> tuple[str, list[str], list[str]]:
    hospitals = [hospital["unique_id"] for hospital in patient["patient_hospital"]]
    return patient["patient_race"], hospitals, [doctor["unique_id"] for doctor in patient["patient_doctor"]]


WHOLE_PAIRS = [(str(n), [f"hos{n}", f"hos{n + 1}"], [f"doc{n}", f"doc{n + 1}"]) for n in range(PAIRS)]


def statuses(answers: list[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


async def while_running(
    task: Awaitable[list[Answer]], read: Callable[[], Awaitable[None]], readers: int
) -> list[Answer]:
    """Await the task with so many readers reading again and again beside it."""
    running = asyncio.ensure_future(task)

    async def keep_reading() -> None:
        while not running.done():
            await read()

    await asyncio.gather(*(keep_reading() for _ in range(readers)))
    return await running


async def test_concurrent_upserts_of_the_same_profiles(url: str, shared: asyncpg.Connection) -> None:
    """20 requests for each of 20 new profiles, all at once: 400 patients are created, and each profile once."""
    calls = [
        Call(
            "POST",
            PATIENTS,
            {
                "patient_last_name": f"Doe {number}",
                "patient_profile": {"unique_id": f"prof{number % 20}", "first_name": f"Given by {number}"},
            },
        )
        for number in range(400)
    ]
    answers = await at_once(url, calls)
    assert statuses(answers) == {201: 400}
    for number, answer in enumerate(answers):
        assert answer.json()["patient_last_name"] == f"Doe {number}"
        assert answer.json()["patient_profile"]["first_name"] == f"Given by {number}", "what was sent is answered"
    by_profile = await shared.fetch(
        "SELECT pr.unique_id, count(*) AS patients FROM profiles pr JOIN patients p ON p.profile_id = pr.unique_id"
        " GROUP BY 1"
    )
    assert {row["unique_id"]: row["patients"] for row in by_profile} == {f"prof{number}": 20 for number in range(20)}
    assert await shared.fetchval("SELECT count(*) FROM patients") == 400
    assert await shared.fetchval("SELECT count(*) FROM profiles") == 20


async def replace_links_400_times(url: str) -> None:
    """400 PUTs in flight at once, and reads beside them: every answer and every read shows a pair as it was sent."""
    seen: list[tuple[str, list[str], list[str]]] = []
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:

        async def read() -> None:
            answer = await client.get(f"{PATIENTS}pat/")
            assert answer.status_code == 200
            seen.append(pair_shown(answer.json()))

        calls = [Call("PUT", f"{PATIENTS}pat/", pair(number % PAIRS)) for number in range(400)]
        answers = await while_running(at_once(url, calls), read, readers=8)
    assert statuses(answers) == {200: 400}
    for number, answer in enumerate(answers):
        assert pair_shown(answer.json()) == WHOLE_PAIRS[number % PAIRS]
    assert len(seen) >= 10
    assert [shown for shown in seen if shown not in WHOLE_PAIRS] == []
    assert len({race for race, _, _ in seen}) > 1, "the reads fell between the writes"


async def test_concurrent_replacements_of_one_patients_links(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """In one process, the default, 400 concurrent replacements of hospitals and doctors succeed, and none is mixed."""
    await insert_pairs(connection)
    await replace_links_400_times(serve(DATABASE_URL=database_url).url)
    assert await connection.fetchval("SELECT version FROM patients") > 1
    assert await deadlocks(connection) == 0


async def test_concurrent_replacements_through_two_processes(url: str, shared: asyncpg.Connection) -> None:
    """In two processes too."""
    await insert_pairs(shared)
    await replace_links_400_times(url)


async def test_one_id_chosen_by_many(url: str, shared: asyncpg.Connection) -> None:
    """Of 50 POSTs of one unique_id one creates the patient; the others are conflicts, and nothing of them is stored."""
    answers = await at_once(
        url,
        [
            Call(
                "POST",
                PATIENTS,
                {"unique_id": "chosen", "patient_last_name": f"Doe {n}", "patient_profile": {"unique_id": f"prof{n}"}},
            )
            for n in range(50)
        ],
    )
    assert statuses(answers) == {201: 1, 409: 49}
    (winner,) = (answer.json() for answer in answers if answer.status == 201)
    stored = await shared.fetch("SELECT unique_id, patient_last_name, profile_id FROM patients")
    profile = winner["patient_profile"]["unique_id"]
    assert [tuple(row) for row in stored] == [("chosen", winner["patient_last_name"], profile)]
    assert [row["unique_id"] for row in await shared.fetch("SELECT unique_id FROM profiles")] == [profile]


async def test_deletion_of_what_is_being_linked(url: str, shared: asyncpg.Connection) -> None:
    """Hospitals and doctors deleted while patients are linked to them: one or the other happens, and says so."""
    await shared.execute(
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
            Call("POST", PATIENTS, {"patient_last_name": "Doe", field: [target]}),
            Call("DELETE", f"{path}{target}/"),
            Call("PUT", f"{PATIENTS}{target}/", {field: [target]}),
        )
        for target, field, path in targets
    ]
    answers = await at_once(url, [call for calls in by_target for call in calls])
    stored = await shared.fetch("TABLE patient_hospitals UNION ALL TABLE patient_doctors")
    links = Counter(row[1] for row in stored)
    for number, (target, _, _) in enumerate(targets):
        created, deleted, changed = (answer.status for answer in answers[3 * number : 3 * number + 3])
        assert created in {201, 409, 422}
        assert changed in {200, 409, 422}
        assert links[target] == (created == 201) + (changed == 200), "what was answered is stored, and nothing else"
        assert deleted == (409 if links[target] else 204)


async def test_link_to_a_hospital_whose_deletion_is_under_way(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A patient linked to a hospital that another transaction is deleting waits for it, and is then refused."""
    await connection.execute("INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hos', 'Hospital')")
    async with connection.transaction():
        await connection.execute("DELETE FROM hospitals")
        body = {"patient_last_name": "Doe", "hospital_ids": ["hos"], "patient_profile": {"unique_id": "prof"}}
        posting = asyncio.ensure_future(client.post(PATIENTS, json=body))
        await await_blocked(connection)
    assert (await posting).status_code in {409, 422}
    for table in ("patients", "profiles"):
        assert await connection.fetch(f"TABLE {table}") == []


async def test_deletion_of_a_hospital_that_is_being_linked(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """The deletion of a hospital that another transaction links waits for it, and then says how many are linked."""
    await connection.execute(
        "INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hos', 'Hospital');"
        "INSERT INTO patients (unique_id, patient_last_name) VALUES ('pat', 'Doe')"
    )
    async with connection.transaction():
        await connection.execute("INSERT INTO patient_hospitals VALUES ('pat', 'hos')")
        deleting = asyncio.ensure_future(client.delete("/hospitals/hospitals/hos/"))
        await await_blocked(connection)
    answer = await deleting
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("1 patient is linked")


async def test_changes_of_patients_that_are_deleted(url: str, shared: asyncpg.Connection) -> None:
    """Patients changed and deleted at once: each is deleted once, its changes are made before that or not found."""
    await insert_pairs(shared)
    await shared.execute(
        "INSERT INTO patients (unique_id, patient_last_name) SELECT 'pat' || n, 'Doe' FROM generate_series(0, 19) n"
    )
    by_patient = [
        (
            Call("PUT", f"{PATIENTS}pat{n}/", {**pair(n % PAIRS), "patient_profile": {"unique_id": f"prof{n}"}}),
            Call("DELETE", f"{PATIENTS}pat{n}/"),
            Call("PUT", f"{PATIENTS}pat{n}/", pair((n + 1) % PAIRS)),
            Call("DELETE", f"{PATIENTS}pat{n}/"),
        )
        for n in range(20)
    ]
    answers = await at_once(url, [call for calls in by_patient for call in calls])
    for n in range(20):
        first, deleted, second, deleted_too = (answer.status for answer in answers[4 * n : 4 * n + 4])
        assert sorted([deleted, deleted_too]) == [204, 404]
        assert {first, second} <= {200, 404}
        profiles = await shared.fetchval("SELECT count(*) FROM profiles WHERE unique_id = $1", f"prof{n}")
        assert profiles == (first == 200), "a change that was not made leaves no profile behind"
    assert [row["unique_id"] for row in await shared.fetch("SELECT unique_id FROM patients")] == ["pat"]


async def test_upserts_of_profiles_that_are_deleted(url: str, shared: asyncpg.Connection) -> None:
    """Profiles deleted while patients are created with them: deleted and nobody has it, or kept and somebody has."""
    made = await at_once(url, [Call("POST", "/profiles/profiles/", {"unique_id": f"prof{n}"}) for n in range(40)])
    assert {answer.status for answer in made} == {201}
    by_profile = []
    for n in range(40):
        profile = {"unique_id": f"prof{n}"} | ({"first_name": "Jane"} if n % 2 else {})
        post = Call("POST", PATIENTS, {"patient_last_name": "Doe", "patient_profile": profile})
        by_profile.append((post, Call("DELETE", f"/profiles/profiles/prof{n}/"), post))
    answers = await at_once(url, [call for calls in by_profile for call in calls])
    patients = Counter(row["profile_id"] for row in await shared.fetch("SELECT profile_id FROM patients"))
    profiles = {row["unique_id"] for row in await shared.fetch("SELECT unique_id FROM profiles")}
    for n in range(40):
        first, deleted, second = (answer.status for answer in answers[3 * n : 3 * n + 3])
        assert {first, second} <= {201, 409}
        assert patients[f"prof{n}"] == [first, second].count(201)
        assert deleted == (409 if patients[f"prof{n}"] else 204)
        assert (f"prof{n}" in profiles) is (deleted == 409)
