"""Nobody waits for what is hidden: a lock on it, seen from across the wall, is as no lock on nothing."""

import asyncpg
import pytest

from tests.auth.support import PATIENTS, PROFILES
from tests.walls.conftest import Register
from tests.walls.test_matrix import told


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
async def test_hidden_records_are_not_waited_for(
    register: Register, connection: asyncpg.Connection, method: str, path: str
) -> None:
    """Who would wait at the lock of a hidden record learns that it is there, and after a while gets a 503."""
    body = {"version": 1} if method == "POST" else {}
    async with connection.transaction():
        await connection.execute("SELECT FROM patients FOR UPDATE")
        await connection.execute("SELECT FROM profiles FOR UPDATE")
        for name in ("patients/pat-b", "profiles/prof-b"):  # as who restores or erases them does
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", name)
        answer = await register.a.request(method, path.format("b"), json=body)
    assert answer.status_code == 404
    assert told(answer) == told(await register.a.request(method, path.format("never"), json=body))


async def test_a_nested_profile_that_is_hidden_is_not_waited_for(
    register: Register, connection: asyncpg.Connection
) -> None:
    """Nor is it touched: it is as unavailable as one that nobody holds."""
    nested = {"unique_id": "prof-b", "email": "new@example.com"}
    body = {"patient_last_name": "New", "hospital_ids": ["hosA"], "patient_profile": nested}
    async with connection.transaction():
        await connection.execute("SELECT FROM profiles FOR UPDATE")
        answer = await register.a.post(PATIENTS, json=body)
    assert answer.status_code == 422
    assert told(answer) == told(await register.a.post(PATIENTS, json=body))
