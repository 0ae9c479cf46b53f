"""A successful response means that the change is stored, and a failure in any step, by a trigger, stores nothing."""

from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import pytest

from tests.support import EXAMPLE_PATIENT, ServiceProcess

PATIENTS = "/patients/patients/"
MARKER = "Mrs. Secret of 12 Hidden Lane"
"""Patient data in the database's error message."""
TABLES = (
    "patients",
    "profiles",
    "hospitals",
    "doctors",
    "patient_hospitals",
    "patient_doctors",
    "journal",
)
CHANGE = {
    "patient_profile": {"unique_id": "prof123", "first_name": "Jane"},
    "patient_first_name": "Jane",
    "hospital_ids": ["hos789"],
    "doctor_ids": ["doc456"],
}
"""A PUT that changes every table that a patient is in."""

Contents = dict[str, list[str]]


async def table_contents(connection: asyncpg.Connection) -> Contents:
    """Return all rows of all tables."""
    return {
        table: [row[0] for row in await connection.fetch(f"SELECT to_json(t)::text FROM {table} t ORDER BY 1")]  # noqa: S608
        for table in TABLES
    }


async def create_failing_trigger(connection: asyncpg.Connection, table: str, action: str, *, at_commit: bool) -> None:
    """Make every change of a table fail, either at once or when the transaction commits."""
    timing = "DEFERRABLE INITIALLY DEFERRED" if at_commit else "NOT DEFERRABLE"
    await connection.execute(
        f"""
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {action}; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER fail AFTER INSERT OR UPDATE OR DELETE ON {table} {timing}
            FOR EACH ROW EXECUTE FUNCTION fail()
        """
    )


def raise_exception_statement(sqlstate: str) -> str:
    return f"RAISE EXCEPTION '{MARKER}' USING ERRCODE = '{sqlstate}', DETAIL = '{MARKER}', HINT = '{MARKER}'"


async def send_change(client: httpx.AsyncClient, method: str) -> httpx.Response:
    """Send a request that creates the contract's patient, changes it in all its tables, or deletes it."""
    if method == "POST":
        return await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "pat456"})
    return await client.request(method, f"{PATIENTS}pat123/", json=None if method == "DELETE" else CHANGE)


@pytest.fixture
async def contents_before(
    client: httpx.AsyncClient,
    connection: asyncpg.Connection,
    hospitals_and_doctors: None,  # noqa: ARG001
) -> Contents:
    """Return the contents of a database with the contract's patient, whose profile has a different name."""
    assert (await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "pat123"})).status_code == 201
    profile = {"first_name": "Jonathan"}
    assert (await client.put("/profiles/profiles/prof123/", json=profile)).status_code == 200
    return await table_contents(connection)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_without_a_failure_the_change_is_stored(
    client: httpx.AsyncClient, connection: asyncpg.Connection, contents_before: Contents, method: str
) -> None:
    """Without a failure, the requests of these tests change every table that a patient is in."""
    assert (await send_change(client, method)).is_success
    after = await table_contents(connection)
    unchanged = {"hospitals", "doctors"} | ({"profiles"} if method == "DELETE" else set())
    assert {table for table in TABLES if after[table] == contents_before[table]} == unchanged


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    ("action", "status"),
    [
        (raise_exception_statement("P0001"), 500),
        (raise_exception_statement("40001"), 503),
        ("PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(60)", 503),
    ],
    ids=["exception", "serialization-failure", "connection-lost"],
)
async def test_a_failing_commit_is_never_reported_as_a_success(  # noqa: PLR0913, PLR0917  # fixtures and parameters
    client: httpx.AsyncClient,
    connection: asyncpg.Connection,
    contents_before: Contents,
    method: str,
    action: str,
    status: int,
) -> None:
    """A transaction that fails only at its commit gets an error response, and nothing of it is stored."""
    await create_failing_trigger(connection, "patients", action, at_commit=True)
    response = await send_change(client, method)
    assert response.status_code == status
    assert "Location" not in response.headers
    assert await table_contents(connection) == contents_before


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_failure_in_any_step_stores_nothing(
    client: httpx.AsyncClient, connection: asyncpg.Connection, contents_before: Contents, method: str
) -> None:
    """If any of the tables that a request changes cannot be written, all of them stay as they were."""
    changed = {"patients", "patient_hospitals", "patient_doctors", "journal"} | (
        set() if method == "DELETE" else {"profiles"}
    )
    for table in changed:
        await create_failing_trigger(connection, table, raise_exception_statement("P0001"), at_commit=False)
        response = await send_change(client, method)
        assert (table, response.status_code) == (table, 500)
        assert await table_contents(connection) == contents_before, table
        await connection.execute(f"DROP TRIGGER fail ON {table}; DROP FUNCTION fail")
    assert (await send_change(client, method)).is_success, "the trigger was not the cause"


async def test_next_request_works_after_a_failure(
    client: httpx.AsyncClient, connection: asyncpg.Connection, contents_before: Contents
) -> None:
    """More failed requests than there are connections leave no connection unusable or in a transaction."""
    await create_failing_trigger(connection, "patients", raise_exception_statement("P0001"), at_commit=True)
    for _ in range(20):
        assert (await send_change(client, "PUT")).status_code == 500
    assert await table_contents(connection) == contents_before
    await connection.execute("DROP TRIGGER fail ON patients")
    for _ in range(20):
        assert (await send_change(client, "PUT")).status_code == 200
    states = await connection.fetch(
        "SELECT DISTINCT state FROM pg_stat_activity WHERE application_name = 'patients-api'"
    )
    assert [row["state"] for row in states] == ["idle"]


@pytest.mark.usefixtures("contents_before")
@pytest.mark.parametrize(("method", "at_commit"), [("POST", True), ("PUT", False)])
async def test_error_response_reveals_no_internals(
    client: httpx.AsyncClient, connection: asyncpg.Connection, method: str, *, at_commit: bool
) -> None:
    """The problem of an unexpected failure has the request id for operators and reveals nothing of the database."""
    await create_failing_trigger(connection, "patients", raise_exception_statement("P0001"), at_commit=at_commit)
    response = await send_change(client, method)
    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "detail": problem["detail"],
        "instance": f"urn:request:{problem['request_id']}",
        "request_id": response.headers["X-Request-ID"],
    }
    for internal in (MARKER, "fail()", "sqlalchemy", "asyncpg", "Traceback", "INSERT", "UPDATE", "patients"):
        assert internal.lower() not in response.text.lower()


@pytest.mark.usefixtures("contents_before")
async def test_error_log_names_the_place_and_no_data(
    serve: Callable[..., ServiceProcess],
    database_url: str,
    connection: asyncpg.Connection,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The log names the request and the place in the code, but not the database's message, which quotes values."""
    served = serve(DATABASE_URL=database_url)
    await create_failing_trigger(connection, "patients", raise_exception_statement("P0001"), at_commit=True)
    async with httpx.AsyncClient(base_url=served.url) as client:
        responses = [await send_change(client, method) for method in ("POST", "PUT", "DELETE")]
    served.process.terminate()
    served.process.wait(20)
    assert [response.status_code for response in responses] == [500, 500, 500]
    errors = [line for line in served.log_entries() if line["level"] == "error"]
    assert [line["request_id"] for line in errors] == [response.headers["X-Request-ID"] for response in responses]
    assert all(line["at"] and "asyncpg" in line["error"] for line in errors)
    written = "".join(served.stdout_lines) + capfd.readouterr().err
    for secret in ("Secret", "Hidden", "Caucasian", "patient@example.com", "pat123", "pat456"):
        assert secret not in written
