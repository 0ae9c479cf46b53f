"""Totals of searches: exact, estimated or refused, and the audit of the patients on which they depend."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from app.auth.scopes import Scope
from app.fhir import search
from app.listing.counting import MAX_EXACT_COUNT
from tests.auth.support import client_for, make_key, secured_app
from tests.fhir.support import PATIENT, checked, refusals

PATIENT_COUNT = MAX_EXACT_COUNT + 20
"""So few more than are counted exactly by an estimate that the estimate, with two digits, is a round thousand."""


@pytest.fixture
async def crowded(database_url: str, connection: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client whose reads are audited, of a register with many patients of one name, and another one."""
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name)"
        " SELECT 'p' || n, CASE n WHEN 0 THEN 'Poe' ELSE 'Doe' END FROM generate_series(0, $1::int) n",
        PATIENT_COUNT,
    )
    key = await make_key(database_url, Scope.PATIENTS_READ)
    async with secured_app(database_url, rate_limit="off") as app, client_for(app, key) as client:
        yield client


async def counted(connection: asyncpg.Connection) -> int:
    """Return the number of patients that the audit has for the newest request, as those that were counted."""
    rows = await connection.fetch(
        "SELECT method, ids FROM audit WHERE request_id = (SELECT request_id FROM audit ORDER BY id DESC LIMIT 1)"
    )
    return sum(len(set(row["ids"])) for row in rows if row["method"] == "COUNT")


async def test_totals_are_exact_or_estimated_as_requested(
    crowded: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """An accurate total is exact, and every patient that was counted is in the audit; an estimate depends on fewer."""
    for accurate in ("_total=accurate", "_summary=count", "_count=0", "_count=0&_totalMethod=count"):
        bundle = checked(await crowded.get(f"{PATIENT}?family=doe&{accurate}"), with_invariants=False)
        assert bundle["total"] == PATIENT_COUNT, accurate
        assert await counted(connection) == PATIENT_COUNT
    for estimate in ("_total=estimate&_count=1", "_summary=count&_total=estimate", "_totalMethod=estimate&_count=2"):
        bundle = checked(await crowded.get(f"{PATIENT}?family=doe&{estimate}"))
        assert bundle["total"] % 100 == 0
        assert 900 <= bundle["total"] <= 1200
        assert await counted(connection) == MAX_EXACT_COUNT + 1
    few = checked(await crowded.get(f"{PATIENT}?family=poe&_total=estimate"))
    assert few["total"] == 1


async def test_the_whole_register_is_counted_without_an_audit(
    crowded: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """Without criteria, or with one that all patients meet, the total is exact and names no patient."""
    for query in ("", "active=true&", "deceased=false&identifier=urn:patients-api:unique-id|&"):
        for total in ("_total=accurate", "_total=estimate"):
            bundle = checked(await crowded.get(f"{PATIENT}?{query}{total}&_count=1"))
            assert bundle["total"] == PATIENT_COUNT + 1
            assert await counted(connection) == 0
    nobody = checked(await crowded.get(f"{PATIENT}?active=false&_total=accurate"))
    assert nobody["total"] == 0


async def test_an_accurate_total_of_too_many_is_refused(
    crowded: httpx.AsyncClient, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More matches than the audit can record at once are refused, also if an estimate would round to the maximum."""
    monkeypatch.setattr(search, "MAX_ACCURATE_TOTAL", MAX_EXACT_COUNT)
    response = await crowded.get(f"{PATIENT}?family=doe&_total=accurate")
    assert refusals(response, 400) == {"http._total": "too_costly"}
    assert "_total=estimate" in response.json()["issue"][0]["details"]["text"]
    # without the ids that the journal does not have, which are not stored for a request that is refused
    assert await connection.fetchval("SELECT count(*) FROM audit WHERE method = 'COUNT' AND status = 400") == 1
    assert checked(await crowded.get(f"{PATIENT}?family=poe&_total=accurate"))["total"] == 1


async def test_the_count_of_a_sorted_page_is_not_confused_with_its_audit(
    crowded: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """The audit of a sorted page has the patient whose existence the link to the next page tells."""
    await crowded.get(f"{PATIENT}?_sort=-family&_count=1")
    (ids,) = await connection.fetchrow("SELECT ids FROM audit ORDER BY id DESC LIMIT 1")
    assert ids[0] == "p0"
    assert len(ids) == 2
