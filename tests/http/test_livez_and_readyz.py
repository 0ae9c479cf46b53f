"""Responses while the database is unavailable or too busy: 503, soon, and with the time to retry."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from app.embedded.server import EmbeddedPostgres
from tests.processes import (
    RawRequest,
    is_running,
    postgres_pid,
    send_concurrently,
    wait_until_blocked_in_transaction,
)
from tests.support import ServiceProcess, eventually

PATIENTS = "/patients/patients/"
NON_DURABLE_SERVER_OPTIONS = {"fsync": "off"}
DATABASE_REQUESTS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", PATIENTS, None),
    ("GET", f"{PATIENTS}?limit=1", None),
    ("GET", f"{PATIENTS}pat123/", None),
    ("POST", PATIENTS, {"patient_last_name": "Doe"}),
    ("PUT", f"{PATIENTS}pat123/", {"patient_last_name": "Doe"}),
    ("PATCH", f"{PATIENTS}pat123/", {"patient_last_name": "Doe"}),
    ("DELETE", f"{PATIENTS}pat123/", None),
    ("GET", "/hospitals/hospitals/", None),
    ("GET", "/readyz", None),
]
"""One request of each kind that needs the database."""

Serve = Callable[..., ServiceProcess]


def assert_unavailable(response: httpx.Response) -> None:
    """Check that a response is a 503 problem that says when to retry, and reveals nothing about the database."""
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == 503
    for internal in ("sqlalchemy", "asyncpg", "socket", "pool", "/tmp"):  # noqa: S108  # must not be there
        assert internal not in response.text.lower()


@pytest.mark.alone
async def test_database_outage_is_503_until_it_returns(serve: Serve, migrated_data_dir: Path) -> None:
    """Without its database, every request is a 503 within 2 seconds, and succeeds when the database is back."""
    with EmbeddedPostgres(migrated_data_dir, options=NON_DURABLE_SERVER_OPTIONS) as database:
        served = serve(DATABASE_URL=database.url)
        async with httpx.AsyncClient(base_url=served.url) as client:
            created = await client.post(PATIENTS, json={"unique_id": "pat123", "patient_last_name": "Doe"})
            assert created.status_code == 201
            postgres = postgres_pid(migrated_data_dir)
            os.kill(postgres, signal.SIGKILL)
            eventually(lambda: not is_running(postgres))
            for _ in range(2):  # first with connections from before the crash, then with new ones
                for method, path, body in DATABASE_REQUESTS:
                    began = time.perf_counter()
                    response = await client.request(method, path, json=body)
                    assert time.perf_counter() - began < 2
                    assert_unavailable(response)
            assert (await client.get("/livez")).status_code == 204
            assert (await client.get("/openapi.json")).status_code == 200
            many = await send_concurrently(served.url, [RawRequest("GET", f"{PATIENTS}pat123/")] * 100)
            assert {response.status for response in many} == {503}
            assert max(response.seconds for response in many) < 2
    with EmbeddedPostgres(migrated_data_dir, options=NON_DURABLE_SERVER_OPTIONS):
        eventually(lambda: httpx.get(f"{served.url}/readyz").status_code == 204, within_seconds=5)
        async with httpx.AsyncClient(base_url=served.url) as client:
            for method, path, body in DATABASE_REQUESTS:
                assert (await client.request(method, path, json=body)).is_success
    served.process.terminate()
    assert served.process.wait(20) == 0
    assert [line for line in served.log_entries() if line["level"] == "error"] == []


@pytest.mark.crowd
async def test_terminated_connections_cause_nothing_but_503(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """When the database drops all its connections, requests fail with 503 and in no other way."""
    served = serve(DATABASE_URL=database_url)
    for _ in range(3):
        warm = await send_concurrently(served.url, [RawRequest("GET", "/readyz")] * 40)
        assert {response.status for response in warm} == {204}
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        after = await send_concurrently(
            served.url, [RawRequest("GET", PATIENTS), RawRequest("POST", PATIENTS, {"patient_last_name": "D"})] * 4
        )
        assert {response.status for response in after} <= {200, 201, 503}
        (ready,) = await send_concurrently(served.url, [RawRequest("GET", "/readyz")])
        assert ready.status == 204


@pytest.mark.alone
async def test_exhausted_pool_is_503_within_2_seconds(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """While the only connection waits for a lock, other requests are a 503 within 2 seconds; then all succeed."""
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name) VALUES ('pat123', 'Doe'), ('pat456', 'Doe')"
    )
    served = serve(DATABASE_URL=database_url, PATIENTS_POOL_SIZE="1")
    async with httpx.AsyncClient(base_url=served.url, timeout=30) as client:
        async with connection.transaction():
            await connection.execute("SELECT FROM patients FOR UPDATE")
            change = {"patient_last_name": "Roe"}
            waiting = asyncio.ensure_future(client.put(f"{PATIENTS}pat456/", json=change))
            await wait_until_blocked_in_transaction(connection)
            began = time.perf_counter()
            requests = [client.request(method, path, json=body) for method, path, body in DATABASE_REQUESTS]
            responses = await asyncio.gather(*requests, client.get("/livez"))
            assert time.perf_counter() - began < 2
            assert responses.pop().status_code == 204
            for response in responses:
                assert_unavailable(response)
            assert not waiting.done()
        assert (await waiting).status_code == 200
        assert (await client.get(f"{PATIENTS}pat456/")).json()["patient_last_name"] == "Roe"
        assert (await client.get("/readyz")).status_code == 204
    assert await connection.fetchval("SELECT count(*) FROM patients") == 2, "a refused request was executed later"


@pytest.mark.crowd
async def test_unmigrated_database_is_live_but_not_ready(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """A service whose database is not migrated is live but not ready, and names the command to run."""
    served = serve(DATABASE_URL=database_url)
    await connection.execute("DELETE FROM alembic_version")
    ready, live = await send_concurrently(served.url, [RawRequest("GET", "/readyz"), RawRequest("GET", "/livez")])
    assert ready.status == 503
    assert "patients-api migrate" in ready.json()["detail"]
    assert live.status == 204
