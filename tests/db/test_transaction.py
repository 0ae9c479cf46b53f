"""What was answered is stored, and what failed anywhere has stored nothing: triggers of the database make it fail."""

from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import pytest

from tests.support import EXAMPLE, Served

PATIENTS = "/patients/patients/"
MARKER = "Mrs. Secret of 12 Hidden Lane"
"""Patient data in the message of the database's error."""
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
"""A PUT that changes each of the tables that a patient is in."""

Contents = dict[str, list[str]]


async def contents(connection: asyncpg.Connection) -> Contents:
    """All rows of all tables."""
    return {
        table: [row[0] for row in await connection.fetch(f"SELECT to_json(t)::text FROM {table} t ORDER BY 1")]  # noqa: S608
        for table in TABLES
    }


async def fail_on(connection: asyncpg.Connection, table: str, action: str, *, at_commit: bool) -> None:
    """Make every change of a table fail, at once or only when the transaction commits."""
    timing = "DEFERRABLE INITIALLY DEFERRED" if at_commit else "NOT DEFERRABLE"
    await connection.execute(
        f"""
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {action}; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER fail AFTER INSERT OR UPDATE OR DELETE ON {table} {timing}
            FOR EACH ROW EXECUTE FUNCTION fail()
        """
    )


def refuse(sqlstate: str) -> str:
    return f"RAISE EXCEPTION '{MARKER}' USING ERRCODE = '{sqlstate}', DETAIL = '{MARKER}', HINT = '{MARKER}'"


async def send(client: httpx.AsyncClient, method: str) -> httpx.Response:
    """A request that creates the contract's patient, or changes it in all its tables, or deletes it."""
    if method == "POST":
        return await client.post(PATIENTS, json={**EXAMPLE, "unique_id": "pat456"})
    return await client.request(method, f"{PATIENTS}pat123/", json=None if method == "DELETE" else CHANGE)


@pytest.fixture
async def before(client: httpx.AsyncClient, connection: asyncpg.Connection, directory: None) -> Contents:  # noqa: ARG001
    """The database's contents, with the contract's patient, which has a profile of another name, in it."""
    assert (await client.post(PATIENTS, json={**EXAMPLE, "unique_id": "pat123"})).status_code == 201
    profile = {"first_name": "Jonathan"}
    assert (await client.put("/profiles/profiles/prof123/", json=profile)).status_code == 200
    return await contents(connection)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_without_a_failure_the_change_is_stored(
    client: httpx.AsyncClient, connection: asyncpg.Connection, before: Contents, method: str
) -> None:
    """The requests that the other tests let fail change every table of a patient's where nothing fails."""
    assert (await send(client, method)).is_success
    after = await contents(connection)
    unchanged = {"hospitals", "doctors"} | ({"profiles"} if method == "DELETE" else set())
    assert {table for table in TABLES if after[table] == before[table]} == unchanged


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    ("action", "status"),
    [
        (refuse("P0001"), 500),
        (refuse("40001"), 503),
        ("PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(60)", 503),
    ],
    ids=["exception", "serialization-failure", "connection-lost"],
)
async def test_failing_commit_is_never_answered_as_a_success(  # noqa: PLR0913, PLR0917  # fixtures and parameters
    client: httpx.AsyncClient,
    connection: asyncpg.Connection,
    before: Contents,
    method: str,
    action: str,
    status: int,
) -> None:
    """A transaction that fails only when it commits is answered with an error, and nothing of it is stored."""
    await fail_on(connection, "patients", action, at_commit=True)
    answer = await send(client, method)
    assert answer.status_code == status
    assert "Location" not in answer.headers
    assert await contents(connection) == before


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_failure_in_any_step_stores_nothing(
    client: httpx.AsyncClient, connection: asyncpg.Connection, before: Contents, method: str
) -> None:
    """Whichever of the tables that a request changes cannot be written, all are as they were before."""
    changed = {"patients", "patient_hospitals", "patient_doctors", "journal"} | (
        set() if method == "DELETE" else {"profiles"}
    )
    for table in changed:
        await fail_on(connection, table, refuse("P0001"), at_commit=False)
        answer = await send(client, method)
        assert (table, answer.status_code) == (table, 500)
        assert await contents(connection) == before, table
        await connection.execute(f"DROP TRIGGER fail ON {table}; DROP FUNCTION fail")
    assert (await send(client, method)).is_success, "it was the triggers"


async def test_next_request_works_after_a_failure(
    client: httpx.AsyncClient, connection: asyncpg.Connection, before: Contents
) -> None:
    """More failed requests than there are connections leave none of these unusable, and none in a transaction."""
    await fail_on(connection, "patients", refuse("P0001"), at_commit=True)
    for _ in range(20):
        assert (await send(client, "PUT")).status_code == 500
    assert await contents(connection) == before
    await connection.execute("DROP TRIGGER fail ON patients")
    for _ in range(20):
        assert (await send(client, "PUT")).status_code == 200
    states = await connection.fetch(
        "SELECT DISTINCT state FROM pg_stat_activity WHERE application_name = 'patients-api'"
    )
    assert [row["state"] for row in states] == ["idle"]


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize(("method", "at_commit"), [("POST", True), ("PUT", False)])
async def test_error_tells_nothing_of_the_inside(
    client: httpx.AsyncClient, connection: asyncpg.Connection, method: str, *, at_commit: bool
) -> None:
    """The problem of an unexpected failure has the request's id for the operators, and nothing of the database's."""
    await fail_on(connection, "patients", refuse("P0001"), at_commit=at_commit)
    answer = await send(client, method)
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "detail": problem["detail"],
        "instance": f"urn:request:{problem['request_id']}",
        "request_id": answer.headers["X-Request-ID"],
    }
    for internal in (MARKER, "fail()", "sqlalchemy", "asyncpg", "Traceback", "INSERT", "UPDATE", "patients"):
        assert internal.lower() not in answer.text.lower()


@pytest.mark.usefixtures("before")
async def test_log_of_an_error_tells_where_and_nothing_of_the_data(
    serve: Callable[..., Served],
    database_url: str,
    connection: asyncpg.Connection,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The log names the request and the place in the code; the database's message, which quotes values, is nowhere."""
    served = serve(DATABASE_URL=database_url)
    await fail_on(connection, "patients", refuse("P0001"), at_commit=True)
    async with httpx.AsyncClient(base_url=served.url) as client:
        answers = [await send(client, method) for method in ("POST", "PUT", "DELETE")]
    served.process.terminate()
    served.process.wait(20)
    assert [answer.status_code for answer in answers] == [500, 500, 500]
    errors = [line for line in served.log() if line["level"] == "error"]
    assert [line["request_id"] for line in errors] == [answer.headers["X-Request-ID"] for answer in answers]
    assert all(line["at"] and "asyncpg" in line["error"] for line in errors)
    written = "".join(served.lines) + capfd.readouterr().err
    for secret in ("Secret", "Hidden", "Caucasian", "patient@example.com", "pat123", "pat456"):
        assert secret not in written
