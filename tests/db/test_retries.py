"""Transactions that fail with a serialization error are retried as a whole a few times, then get a 503."""

import asyncio
import time

import asyncpg
import httpx
import pytest

from app.db.database import MAX_ATTEMPTS
from tests.auth.support import client_for, secured_app
from tests.processes import count_deadlocks, wait_until_blocked
from tests.support import dump_tables

PATIENTS = "/patients/patients/"
BODY = {
    "unique_id": "pat456",
    "patient_profile": {"unique_id": "prof456", "first_name": "John"},
    "patient_last_name": "Doe",
}
CHANGE = {"patient_last_name": "Roe", "patient_profile": {"unique_id": "prof123", "first_name": "Jane"}}
EACH_SERIALIZATION_ERROR = pytest.mark.parametrize(
    "sqlstate", ["40001", "40P01"], ids=["serialization-failure", "deadlock"]
)
EACH_TIMING = pytest.mark.parametrize("timing", ["IMMEDIATE", "DEFERRED"], ids=["at-once", "at-commit"])


async def fail_first_transactions(
    connection: asyncpg.Connection, sqlstate: str, timing: str, *, failure_count: int
) -> None:
    """Make the first transactions that write a patient fail; the sequence `tries` counts them despite rollbacks."""
    await connection.execute(
        f"""
        CREATE SEQUENCE tries;
        CREATE FUNCTION collide() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('tries') <= {failure_count} THEN
                RAISE EXCEPTION 'collision' USING ERRCODE = '{sqlstate}';
            END IF;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER collide AFTER INSERT OR UPDATE OR DELETE ON patients
            DEFERRABLE INITIALLY {timing} FOR EACH ROW EXECUTE FUNCTION collide()
        """
    )


async def attempt_count(connection: asyncpg.Connection) -> object:
    return await connection.fetchval("SELECT last_value FROM tries")


@pytest.fixture
async def patient(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Create a patient with a profile, and make the service's session the victim of a deadlock."""
    body = {**BODY, "unique_id": "pat123", "patient_profile": {"unique_id": "prof123", "first_name": "John"}}
    assert (await client.post(PATIENTS, json=body)).status_code == 201
    await connection.execute("SET deadlock_timeout = '60s'")


@EACH_SERIALIZATION_ERROR
@EACH_TIMING
async def test_serialization_errors_are_retried_as_one_success(
    client: httpx.AsyncClient, connection: asyncpg.Connection, sqlstate: str, timing: str
) -> None:
    """Two failures followed by a success store one patient and one profile, with one journal entry each."""
    await fail_first_transactions(connection, sqlstate, timing, failure_count=2)
    response = await client.post(PATIENTS, json=BODY)
    assert response.status_code == 201
    assert await attempt_count(connection) == 3
    assert [tuple(row) for row in await connection.fetch("SELECT unique_id, profile_id FROM patients")] == [
        ("pat456", "prof456")
    ]
    assert await connection.fetchval("SELECT count(*) FROM profiles") == 1
    entries = await connection.fetch("SELECT resource, unique_id, version, action FROM journal ORDER BY resource")
    assert [tuple(row) for row in entries] == [
        ("patients", "pat456", 1, "created"),
        ("profiles", "prof456", 1, "created"),
    ]


@EACH_SERIALIZATION_ERROR
@EACH_TIMING
async def test_repeated_serialization_errors_are_503_and_store_nothing(
    client: httpx.AsyncClient, connection: asyncpg.Connection, sqlstate: str, timing: str
) -> None:
    """After the last attempt fails, the response is a 503 and nothing is stored; the client can retry later."""
    await fail_first_transactions(connection, sqlstate, timing, failure_count=1 + MAX_ATTEMPTS)
    before = await dump_tables(connection)
    response = await client.post(PATIENTS, json=BODY)
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1
    assert "Location" not in response.headers
    assert await attempt_count(connection) == 1 + MAX_ATTEMPTS, "one of a single statement, then of transactions"
    assert await dump_tables(connection) == before
    assert (await client.post(PATIENTS, json=BODY)).status_code == 201


async def test_other_errors_are_not_retried(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """An error that would occur again is not retried, except that a transaction follows the single statement."""
    await fail_first_transactions(connection, "P0001", "IMMEDIATE", failure_count=2)
    assert (await client.post(PATIENTS, json=BODY)).status_code == 500
    assert await attempt_count(connection) == 2


@pytest.mark.usefixtures("patient")
async def test_the_deadlock_victim_is_retried_and_succeeds(database_url: str, connection: asyncpg.Connection) -> None:
    """The request that PostgreSQL aborts to resolve a deadlock is retried on top of what the other one stored."""
    async with (
        secured_app(database_url, auth="off", transaction_batching=False) as app,  # single statements do not wait
        client_for(app) as client,
    ):
        async with connection.transaction():
            await connection.execute("UPDATE profiles SET last_name = 'Outside'")
            change = asyncio.ensure_future(client.put(f"{PATIENTS}pat123/", json=CHANGE))
            await wait_until_blocked(connection)  # it has locked the patient and waits for the profile
            await connection.execute("UPDATE patients SET patient_town = 'Outside'")
        response = await change
    assert response.status_code == 200
    assert response.json()["patient_last_name"] == "Roe"
    assert response.json()["patient_town"] == "Outside"
    profile = await connection.fetchrow("SELECT first_name, last_name FROM profiles")
    assert tuple(profile) == ("Jane", "Outside")
    assert await count_deadlocks(connection) == 1, "expected one deadlock"


@pytest.mark.alone
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_lock_that_is_never_released_is_503_in_time(
    client: httpx.AsyncClient, connection: asyncpg.Connection, method: str
) -> None:
    """A request that waits for a lock gets a 503 within 2.5 seconds, and nothing is stored."""
    async with connection.transaction():
        await connection.execute("SELECT FROM patients FOR UPDATE")
        before = await dump_tables(connection)
        began = time.perf_counter()
        response = await client.request(method, f"{PATIENTS}pat123/", json=CHANGE if method == "PUT" else None)
        assert time.perf_counter() - began < 2.5
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") == 0
    assert await dump_tables(connection) == before
