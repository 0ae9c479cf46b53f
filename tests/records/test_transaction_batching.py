"""Concurrent changes share a transaction, and each has the result that it would have alone."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest

from app.auth.principal import Principal
from app.auth.scopes import Scope
from app.db.connection import Connection
from app.db.database import Database
from app.patients.schemas import PatientUpdate
from app.patients.service import PatientService
from tests.auth.support import PATIENTS, PROFILES, client_for, make_key, secured_app
from tests.journal.conftest import command, serving_url
from tests.processes import wait_until_blocked
from tests.support import SentStatement, recorded_statements

__all__ = ["command", "serving_url"]

CONCURRENT_REQUESTS = 20
Body = dict[str, Any]


def count_writes(sent: list[SentStatement]) -> int:
    """Return the number of statements that write patients."""
    return sum("INTO patients" in text or "UPDATE patients" in text for text, _ in sent)


@asynccontextmanager
async def patient_locked(database_url: str, unique_id: str) -> AsyncIterator[None]:
    """Hold the lock of a patient, as a long transaction does."""
    holder = await asyncpg.connect(database_url)
    try:
        async with holder.transaction():
            await holder.execute("SELECT FROM patients WHERE unique_id = $1 FOR UPDATE", unique_id)
            yield
    finally:
        await holder.close()


def new_patient_body(number: int, **other_fields: Any) -> Body:
    """Return the body of a patient with a profile and links."""
    return {
        "unique_id": f"pat-{number:02}",
        "patient_last_name": f"Doe {number}",
        "patient_profile": {"unique_id": f"prof-{number}", "email": f"doe{number}@example.com"},
        "hospital_ids": ["hos123", "hos456"] if number % 2 else ["hos789"],
        "doctor_ids": ["doc123"],
        **other_fields,
    }


async def put_race(client: httpx.AsyncClient, number: int, race: str) -> httpx.Response:
    return await client.put(f"{PATIENTS}pat-{number:02}/", json={"patient_race": race})


async def post_all(client: httpx.AsyncClient, bodies: list[Body]) -> list[httpx.Response]:
    return await asyncio.gather(*(client.post(PATIENTS, json=body) for body in bodies))


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_concurrent_creates_share_transactions(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """20 concurrent creates take fewer transactions, and each returns what a GET returns and has its journal entry."""
    with recorded_statements() as sent:
        responses = await post_all(client, [new_patient_body(number) for number in range(CONCURRENT_REQUESTS)])
    assert 1 <= count_writes(sent) < CONCURRENT_REQUESTS
    for number, response in enumerate(responses):
        assert response.status_code == 201
        patient = response.json()
        body = new_patient_body(number)
        assert patient["unique_id"] == body["unique_id"]
        assert patient["patient_profile"]["email"] == body["patient_profile"]["email"]
        assert [hospital["unique_id"] for hospital in patient["patient_hospital"]] == body["hospital_ids"]
        assert response.headers["Location"] == f"{PATIENTS}{body['unique_id']}/"
        assert (await client.get(response.headers["Location"])).text == response.text
        entry = await connection.fetchrow(
            "SELECT request_id, action FROM journal WHERE resource = 'patients' AND unique_id = $1", body["unique_id"]
        )
        assert tuple(entry) == (response.headers["X-Request-ID"], "created")


@pytest.mark.usefixtures("hospitals_and_doctors")
@pytest.mark.parametrize(
    ("settings", "is_shared"),
    [({"require_if_match": True}, True), ({"transaction_batching": False}, False)],
    ids=["If-Match required", "batching off"],
)
async def test_creates_share_transactions_unless_batching_is_off(
    database_url: str,
    settings: dict[str, bool],
    is_shared: bool,  # noqa: FBT001
) -> None:
    """The setting switches batching off; a creation overwrites nothing, so requiring If-Match does not."""
    async with secured_app(database_url, auth="off", **settings) as app, client_for(app) as client:
        with recorded_statements() as sent:
            responses = await post_all(client, [new_patient_body(number) for number in range(CONCURRENT_REQUESTS)])
    assert {response.status_code for response in responses} == {201}
    assert (count_writes(sent) < CONCURRENT_REQUESTS) == is_shared


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_concurrent_updates_share_transactions(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """20 concurrent updates, some of which change nothing or only links, share transactions with the same results."""
    await post_all(client, [new_patient_body(number) for number in range(CONCURRENT_REQUESTS)])
    changes: list[Body] = [
        {"patient_race": "x", "hospital_ids": ["hos123"]},
        {},
        {"hospital_ids": ["hos456"]},
        {"patient_last_name": "Doe 3", "hospital_ids": ["hos123", "hos456"]},
        {"patient_profile": {"unique_id": "prof-4", "first_name": "Jane"}},
    ]
    paths = [f"{PATIENTS}pat-{number:02}/" for number in range(CONCURRENT_REQUESTS)]
    bodies = [changes[number % 5] if number % 5 != 4 else {} for number in range(CONCURRENT_REQUESTS)]
    bodies[3], bodies[4] = changes[3], changes[4]
    before = [(await client.get(path)).json() for path in paths]
    with recorded_statements() as sent:
        responses = await asyncio.gather(
            *(client.put(path, json=body) for path, body in zip(paths, bodies, strict=True))
        )
    assert 1 <= count_writes(sent) < CONCURRENT_REQUESTS
    for path, body, old, response in zip(paths, bodies, before, responses, strict=True):
        assert response.status_code == 200
        patient = response.json()
        assert (await client.get(path)).text == response.text
        hospitals = body.get("hospital_ids", [hospital["unique_id"] for hospital in old["patient_hospital"]])
        assert [hospital["unique_id"] for hospital in patient["patient_hospital"]] == hospitals
        assert patient["patient_race"] == body.get("patient_race", old["patient_race"])
        same = patient | {"patient_profile": None} == old | {"patient_profile": None}
        version = await connection.fetchval("SELECT version FROM patients WHERE unique_id = $1", old["unique_id"])
        assert (same and version == 1) or (patient["last_updated"] > old["last_updated"] and version == 2)
    assert responses[4].json()["patient_profile"] == before[4]["patient_profile"] | {"first_name": "Jane"}


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_refused_creates_do_not_affect_their_batch(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """Refused creates of different kinds do not affect the others in their batch: all are as if each were alone."""
    await client.post(PATIENTS, json=new_patient_body(90))
    await client.post(PATIENTS, json=new_patient_body(91))
    await client.delete(f"{PATIENTS}pat-91/")
    await client.post(PROFILES, json={"unique_id": "prof-gone"})
    await client.delete(f"{PROFILES}prof-gone/")
    refused: dict[int, tuple[Body, int, str]] = {
        3: (new_patient_body(3, hospital_ids=["hos123", "hos-none"]), 422, "hos-none"),
        7: (new_patient_body(90), 409, "unique_id"),
        11: (new_patient_body(91), 409, "deleted"),
        13: (new_patient_body(13, patient_profile={"unique_id": "prof-gone"}), 409, "profile"),
        17: (new_patient_body(17, patient_last_name=None), 422, "patient_last_name"),
    }
    bodies = [
        refused[number][0] if number in refused else new_patient_body(number) for number in range(CONCURRENT_REQUESTS)
    ]
    responses = await post_all(client, bodies)
    for number, response in enumerate(responses):
        _, status, detail_part = refused.get(number, (None, 201, ""))
        assert response.status_code == status
        assert detail_part in response.text
    good = {f"pat-{number:02}" for number in range(CONCURRENT_REQUESTS) if number not in refused} | {"pat-90"}
    assert set(await connection.fetch("SELECT unique_id FROM patients")) == {(unique_id,) for unique_id in good}
    profiles = {row[0] for row in await connection.fetch("SELECT unique_id FROM profiles")}
    assert profiles == {f"prof-{unique_id.removeprefix('pat-').lstrip('0') or 0}" for unique_id in good} | {"prof-91"}
    entries = await connection.fetchval("SELECT count(*) FROM journal WHERE resource = 'patients'")
    assert entries == len(good) + 2


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_concurrent_changes_of_one_record_are_all_applied(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """Concurrent changes of one patient, or of one profile by several patients, follow each other, and none is lost."""
    await post_all(client, [new_patient_body(number) for number in range(5)])
    same = [client.put(f"{PATIENTS}pat-00/", json={"patient_race": f"race {number}"}) for number in range(10)]
    shared = [
        client.put(f"{PATIENTS}pat-0{number % 4 + 1}/", json={"patient_profile": {"unique_id": "prof", "email": email}})
        for number, email in enumerate(f"{number}@example.com" for number in range(12))
    ]
    responses = await asyncio.gather(*same, *shared)
    assert Counter(response.status_code for response in responses) == {200: 22}
    races = [response.json()["patient_race"] for response in responses[:10]]
    assert races == [f"race {number}" for number in range(10)]
    assert await connection.fetchval("SELECT version FROM patients WHERE unique_id = 'pat-00'") == 11
    assert await connection.fetchval("SELECT version FROM profiles WHERE unique_id = 'prof'") == 12
    of_both = "SELECT array_agg(version ORDER BY version) FROM journal WHERE unique_id = $1 AND resource = $2"
    assert await connection.fetchval(of_both, "pat-00", "patients") == list(range(1, 12))
    assert await connection.fetchval(of_both, "prof", "profiles") == list(range(1, 13))


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_failed_commit_fails_only_its_own_request(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """If the database refuses one of many changes only on commit, that one is an error and the others are stored."""
    await connection.execute(
        """
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.patient_race = 'refused' THEN RAISE EXCEPTION 'no'; END IF; RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON patients DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION fail()
        """
    )
    responses = await post_all(
        client,
        [
            new_patient_body(number, **({"patient_race": "refused"} if number == 5 else {}))
            for number in range(CONCURRENT_REQUESTS)
        ],
    )
    assert [response.status_code for response in responses] == [
        500 if number == 5 else 201 for number in range(CONCURRENT_REQUESTS)
    ]
    assert await connection.fetchval("SELECT count(*) FROM patients") == CONCURRENT_REQUESTS - 1
    assert await connection.fetchval("SELECT count(*) FROM journal WHERE unique_id = 'pat-05'") == 0


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_request_waiting_for_a_lock_does_not_delay_its_batch(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str
) -> None:
    """While one request waits for a lock, the others in its batch finish; it finishes once the lock is released."""
    await post_all(client, [new_patient_body(number) for number in range(CONCURRENT_REQUESTS)])
    async with patient_locked(database_url, "pat-05"):
        puts = [asyncio.create_task(put_race(client, number, "new")) for number in range(CONCURRENT_REQUESTS)]
        others = await asyncio.gather(*(put for number, put in enumerate(puts) if number != 5))
        assert Counter(response.status_code for response in others) == {200: CONCURRENT_REQUESTS - 1}
        await wait_until_blocked(connection, 1)
        assert not puts[5].done()
    assert (await puts[5]).json()["patient_race"] == "new"


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_cancelled_requests_do_not_affect_their_batch(client: httpx.AsyncClient) -> None:
    """If some of many requests are cancelled at any time, all the others succeed and are stored."""
    for pause in range(8):
        posts = [
            asyncio.create_task(client.post(PATIENTS, json=new_patient_body(100 * pause + n + 100)))
            for n in range(CONCURRENT_REQUESTS)
        ]
        for _ in range(pause * 3):
            await asyncio.sleep(0)
        for post in posts[::3]:
            post.cancel()
        responses = await asyncio.gather(*posts, return_exceptions=True)
        for number, response in enumerate(responses):
            if number % 3:
                assert isinstance(response, httpx.Response)
                assert response.status_code == 201
                assert (await client.get(response.headers["Location"])).text == response.text


@pytest.fixture
async def two_clients(database_url: str) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Yield clients with a key each; the second key may not write profiles."""
    scopes = [scope for scope in Scope if scope not in {Scope.ADMIN, Scope.BREAK_GLASS}]
    fewer = [scope for scope in scopes if not scope.startswith("profiles")]
    async with (
        secured_app(database_url, rate_limit="off") as app,
        client_for(app, await make_key(database_url, *scopes, name="all")) as first,
        client_for(app, await make_key(database_url, *fewer, name="fewer")) as second,
    ):
        yield first, second


async def test_batched_writes_keep_their_own_principal_and_scopes(
    two_clients: tuple[httpx.AsyncClient, httpx.AsyncClient], connection: asyncpg.Connection
) -> None:
    """Requests that share a transaction keep their own scopes, and their own principals in journal and audit."""

    def body(number: int) -> Body:
        return {"unique_id": f"pat-{number}", "patient_last_name": "Doe"}

    responses = await asyncio.gather(
        *(two_clients[number % 2].post(PATIENTS, json=body(number)) for number in range(CONCURRENT_REQUESTS))
    )
    assert {response.status_code for response in responses} == {201}
    for number, response in enumerate(responses):
        expected = (("all", "fewer")[number % 2], response.headers["X-Request-ID"])
        journaled = "SELECT split_part(actor, ':', 2), request_id FROM journal WHERE unique_id = $1"
        assert tuple(await connection.fetchrow(journaled, f"pat-{number}")) == expected
        audited = "SELECT split_part(principal, ':', 2), request_id FROM audit WHERE ids = ARRAY[$1::text]"
        assert tuple(await connection.fetchrow(audited, f"pat-{number}")) == expected
    profiles = [
        two_clients[number % 2].put(
            f"{PATIENTS}pat-{number}/", json={"patient_profile": {"unique_id": f"prof-{number}"}}
        )
        for number in range(CONCURRENT_REQUESTS)
    ]
    responses = await asyncio.gather(*profiles)
    assert [response.status_code for response in responses] == [200, 403] * (CONCURRENT_REQUESTS // 2)
    assert await connection.fetchval("SELECT count(*) FROM profiles") == CONCURRENT_REQUESTS // 2


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_lock_timeout_fails_only_the_waiting_request(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str
) -> None:
    """A change that waits for a lock in vain is a 503; requests that arrive meanwhile, or when it fails, succeed."""
    await post_all(client, [new_patient_body(number) for number in range(CONCURRENT_REQUESTS)])
    async with patient_locked(database_url, "pat-00"):
        locked = asyncio.create_task(client.put(f"{PATIENTS}pat-00/", json={"patient_race": "new"}))
        await wait_until_blocked(connection, 1)
        others: list[int] = []

        async def keep_changing(number: int) -> None:
            # several change the same patient, so that some are always waiting
            while not locked.done():
                body = {"patient_race": f"{len(others)}"}
                others.append((await client.put(f"{PATIENTS}pat-{number:02}/", json=body)).status_code)

        await asyncio.gather(*(keep_changing(1 + number % 4) for number in range(CONCURRENT_REQUESTS)))
        assert (await locked).status_code == 503
    assert Counter(others) == {200: len(others)}


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_changes_of_one_record_wait_on_one_connection(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str
) -> None:
    """While a record is locked, only one of its changes waits in PostgreSQL; all succeed once the lock is released."""
    await client.post(PATIENTS, json=new_patient_body(1))
    async with patient_locked(database_url, "pat-01"):
        puts = [asyncio.create_task(put_race(client, 1, str(number))) for number in range(CONCURRENT_REQUESTS)]
        waiting: set[int] = set()
        for _ in range(20):  # 20 times 20 ms, in which several batches would start
            await wait_until_blocked(connection)
            waiting.add(await connection.fetchval("SELECT count(*) FROM pg_locks, pg_sleep(0.02) WHERE NOT granted"))
    assert waiting <= {0, 1}  # none in between, when the transaction of its own begins
    assert {response.status_code for response in await asyncio.gather(*puts)} == {200}
    assert await connection.fetchval("SELECT max(version) FROM patients") == 1 + CONCURRENT_REQUESTS


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_changes_that_wait_for_a_failed_one_fail_with_it(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str
) -> None:
    """If a change gets a 503 because its record stays locked, so do those that wait for it, all in two seconds."""
    await client.post(PATIENTS, json=new_patient_body(1))
    async with patient_locked(database_url, "pat-01"):
        puts = [asyncio.create_task(put_race(client, 1, str(number))) for number in range(CONCURRENT_REQUESTS)]
        assert (await asyncio.wait(puts, return_when=asyncio.FIRST_COMPLETED))[0]
        responses = await asyncio.wait_for(asyncio.gather(*puts), timeout=1)
    assert {response.status_code for response in responses} == {503}
    assert (await put_race(client, 1, "new")).status_code == 200
    assert await connection.fetchval("SELECT max(version) FROM patients") == 2


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_many_changes_of_one_record_do_not_delay_other_records(client: httpx.AsyncClient) -> None:
    """Changes of other patients share the first transactions, however many changes of one patient precede them."""
    await post_all(client, [new_patient_body(number) for number in range(CONCURRENT_REQUESTS)])
    same = [put_race(client, 0, str(number)) for number in range(2 * CONCURRENT_REQUESTS)]
    others = [put_race(client, number, "new") for number in range(1, 16)]
    with recorded_statements() as sent:
        done: list[int] = []

        async def record_write_count(request: Any) -> None:
            assert (await request).status_code == 200
            done.append(count_writes(sent))

        first = [asyncio.create_task(record_write_count(request)) for request in same]
        rest = [asyncio.create_task(record_write_count(request)) for request in others]
        await asyncio.gather(*rest)
        assert max(done) <= CONCURRENT_REQUESTS
        await asyncio.gather(*first)


@pytest.mark.usefixtures("hospitals_and_doctors")
@pytest.mark.parametrize("sent", [{"hospital_ids": ["hos123"]}, {"patient_race": "x", "hospital_ids": ["hos123"]}])
async def test_links_changed_while_a_statement_waits_are_replaced(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str, sent: Body
) -> None:
    """Links that another transaction adds while a change waits for it are replaced too, although they are newer."""
    await client.post(PATIENTS, json=new_patient_body(1, hospital_ids=["hos456"]))
    changed, may_commit = asyncio.Event(), asyncio.Event()

    async def add_a_link(transaction: Connection) -> None:
        body = PatientUpdate.model_validate({"hospital_ids": ["hos456", "hos789"]})
        await PatientService(transaction, Principal("other")).update("pat-01", body)
        changed.set()
        await may_commit.wait()

    async with Database(database_url, pool_size=1) as database:
        other = asyncio.create_task(database.transaction(add_a_link))
        await changed.wait()
        change = asyncio.create_task(client.put(f"{PATIENTS}pat-01/", json=sent))
        await wait_until_blocked(connection, 1)
        may_commit.set()
        await other
        response = await change
    assert [hospital["unique_id"] for hospital in response.json()["patient_hospital"]] == ["hos123"]
    assert (await client.get(f"{PATIENTS}pat-01/")).text == response.text
    versions = "SELECT array_agg(version ORDER BY version) FROM journal WHERE unique_id = 'pat-01'"
    assert await connection.fetchval(versions) == [1, 2, 3]
