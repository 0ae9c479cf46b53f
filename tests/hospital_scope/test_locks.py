"""Requests never wait for locks on hidden records: a wait would reveal that the record exists."""

import asyncpg
import pytest

from tests.auth.support import PATIENTS, PROFILES
from tests.hospital_scope.conftest import ScopedClients
from tests.hospital_scope.test_access_matrix import comparable_response


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", f"{PATIENTS}pat-{{}}/"),
        ("PATCH", f"{PATIENTS}pat-{{}}/"),
        ("DELETE", f"{PATIENTS}pat-{{}}/"),
        ("POST", f"{PATIENTS}pat-{{}}/restore/"),
        ("PUT", f"{PROFILES}prof-{{}}/"),
        ("DELETE", f"{PROFILES}prof-{{}}/"),
        ("POST", f"{PROFILES}prof-{{}}/restore/"),
    ],
)
async def test_requests_do_not_wait_for_locks_on_hidden_records(
    scoped_clients: ScopedClients, connection: asyncpg.Connection, method: str, path: str
) -> None:
    """A request for a locked hidden record is the 404 of an absent one at once, not a wait and then a 503."""
    body = {"version": 1} if method == "POST" else {}
    async with connection.transaction():
        await connection.execute("SELECT FROM patients FOR UPDATE")
        await connection.execute("SELECT FROM profiles FOR UPDATE")
        for name in ("patients/pat-b", "profiles/prof-b"):  # like a restore or an erasure
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", name)
        response = await scoped_clients.a.request(method, path.format("b"), json=body)
    assert response.status_code == 404
    assert comparable_response(response) == comparable_response(
        await scoped_clients.a.request(method, path.format("never"), json=body)
    )


async def test_requests_do_not_wait_for_a_lock_on_a_hidden_nested_profile(
    scoped_clients: ScopedClients, connection: asyncpg.Connection
) -> None:
    """A locked hidden profile is not locked in turn, and is as unavailable as an unlocked one."""
    nested = {"unique_id": "prof-b", "email": "new@example.com"}
    body = {"patient_last_name": "New", "hospital_ids": ["hosA"], "patient_profile": nested}
    async with connection.transaction():
        await connection.execute("SELECT FROM profiles FOR UPDATE")
        response = await scoped_clients.a.post(PATIENTS, json=body)
    assert response.status_code == 422
    assert comparable_response(response) == comparable_response(await scoped_clients.a.post(PATIENTS, json=body))
