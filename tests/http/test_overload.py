"""Many more concurrent requests than connections: each gets its regular response or a 503."""

from collections.abc import Callable

import asyncpg
import pytest

from tests.processes import RawRequest, send_concurrently
from tests.support import ServiceProcess

pytestmark = pytest.mark.alone

PATIENTS = "/patients/patients/"
UPDATE_BODY = {"patient_last_name": "Roe"}
EXPECTED_STATUSES = {
    "GET": {200, 304, 404, 503},
    "POST": {201, 409, 503},
    "PUT": {200, 404, 412, 503},
    "DELETE": {204, 404, 503},
}
"""The statuses that each method may return."""


def requests_for_patient(number: int, tag: str) -> list[RawRequest]:
    """Return eight requests for one patient; one of them creates an id that every tenth number shares."""
    one = f"{PATIENTS}pat{number}/"
    return [
        RawRequest("GET", one),
        RawRequest("GET", one, headers={"If-None-Match": tag}),
        RawRequest("GET", f"{PATIENTS}?limit=20"),
        RawRequest("POST", PATIENTS, {"patient_last_name": "Doe"}),
        RawRequest("POST", PATIENTS, {"unique_id": f"new{number % 10}", "patient_last_name": "Doe"}),
        RawRequest("PUT", one, UPDATE_BODY, {"If-Match": tag}),
        RawRequest("PUT", one, UPDATE_BODY, {"If-Match": '"stale"'}),
        RawRequest("DELETE", one),
    ]


async def test_400_concurrent_requests_on_5_connections_succeed_or_are_503(
    serve: Callable[..., ServiceProcess], database_url: str, connection: asyncpg.Connection
) -> None:
    """400 requests on 5 connections get their regular responses or 503, what was confirmed is stored, and
    afterwards all connections are idle.
    """
    served = serve(DATABASE_URL=database_url, PATIENTS_POOL_SIZE="5")
    made = [
        RawRequest("POST", PATIENTS, {"unique_id": f"pat{number}", "patient_last_name": "Doe"}) for number in range(50)
    ]
    tags = [response.headers["etag"] for response in await send_concurrently(served.url, made)]
    calls = [call for number, tag in enumerate(tags) for call in requests_for_patient(number, tag)]
    responses = await send_concurrently(served.url, calls)
    assert len(responses) == 400
    for call, response in zip(calls, responses, strict=True):
        assert response.status in EXPECTED_STATUSES[call.method], (call, response)
        assert response.status != 503 or int(response.headers["retry-after"]) >= 1
    created = sum(response.status == 201 for response in responses)
    deleted = sum(response.status == 204 for response in responses)
    assert await connection.fetchval("SELECT count(*) FROM patients") == 50 + created - deleted
    states = await connection.fetch(
        "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'patients-api'"
    )
    assert len(states) <= 5
    assert {row["state"] for row in states} == {"idle"}
    (ready, page) = await send_concurrently(
        served.url, [RawRequest("GET", "/readyz"), RawRequest("GET", f"{PATIENTS}?limit=1")]
    )
    assert (ready.status, page.status) == (204, 200)
    assert [line for line in served.log_entries() if line["level"] == "error"] == []
