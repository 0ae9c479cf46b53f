"""Slow statements in the log."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx

from tests.processes import wait_until_blocked
from tests.support import ServiceProcess, eventually

PATIENTS = "/patients/patients/"
PATIENT_ROUTE = "/patients/patients/{unique_id}/"
Serve = Callable[..., ServiceProcess]


async def test_a_slow_statement_is_logged_without_its_values(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """A slow statement is logged with its request, operation and duration, its text once, and none of its values."""
    served = serve(DATABASE_URL=database_url, PATIENTS_SLOW_QUERY_MS="300")
    async with httpx.AsyncClient(base_url=served.url) as client:
        await client.post(PATIENTS, json={"unique_id": "M4rker", "patient_last_name": "M4rker"})
        for number in (1, 2):
            async with connection.transaction():
                await connection.execute("SELECT FROM patients FOR UPDATE")
                change = {"patient_town": f"M4rker {number}"}
                headers = {"X-Request-ID": f"slow-{number}"}
                request = asyncio.create_task(client.put(f"{PATIENTS}M4rker/", json=change, headers=headers))
                await wait_until_blocked(connection)
                await connection.execute("SELECT pg_sleep(0.5)")
            assert (await request).status_code == 200

    def slow() -> list[dict[str, Any]]:
        return [line for line in served.log_entries() if str(line.get("request_id")).startswith("slow-")]

    await asyncio.to_thread(eventually, lambda: len(slow()) == 4)
    lines = [line for line in slow() if line["event"] == "slow statement"]
    assert [(line["request_id"], line["route"], line["statement"]) for line in lines] == [
        ("slow-1", PATIENT_ROUTE, "SELECT patients"),
        ("slow-2", PATIENT_ROUTE, "SELECT patients"),
    ]
    assert {line["level"] for line in lines} == {"warning"}
    assert all(300 <= line["duration_ms"] < 5000 for line in lines)
    assert lines[0]["digest"] == lines[1]["digest"]
    assert lines[0]["text"].startswith("WITH given AS (SELECT ")
    assert lines[0]["text"].endswith("FOR NO KEY UPDATE OF patients")
    assert "text" not in lines[1]
    assert "M4rker" not in "".join(served.stdout_lines)


async def test_fast_statements_are_not_logged(serve: Serve, database_url: str) -> None:
    """A statement below the threshold is not logged."""
    served = serve(DATABASE_URL=database_url, PATIENTS_SLOW_QUERY_MS="60000")
    async with httpx.AsyncClient(base_url=served.url) as client:
        assert (await client.post(PATIENTS, json={"patient_last_name": "Doe"})).status_code == 201
    await asyncio.to_thread(eventually, lambda: any(line["event"] == "request" for line in served.log_entries()))
    assert "slow statement" not in {line["event"] for line in served.log_entries()}
