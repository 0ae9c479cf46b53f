"""Indirect reads: if a response depends on a patient, the patient's id is audited with it.

Each attack is sent twice: while the victim exists, and after its deletion. If the two responses differ, the first one
revealed something about the victim, and both the audit and the access report must name the victim with that very
request.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from datetime import date, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

import asyncpg
import httpx
import pytest

from app.auth.scopes import Scope
from app.listing.counting import MAX_EXACT_COUNT
from tests.auth.support import PATIENTS, client_for, make_key, secured_app

SEARCH = f"{PATIENTS}search/"
VICTIM_BIRTH_DATE = date(1984, 2, 17)
VICTIM = {
    "unique_id": "victim",
    "patient_last_name": "Dlamini",
    "patient_date_of_birth": VICTIM_BIRTH_DATE.isoformat(),
    "patient_mobile_number": "+27821234567",
}
NDJSON_HEADERS = {"Accept": "application/x-ndjson"}


class InferenceAttempt(NamedTuple):
    """A request that could reveal something about the victim."""

    method: str
    parameters: dict[str, Any]
    headers: Mapping[str, str] = MappingProxyType({})

    async def send(self, client: httpx.AsyncClient, request_id: str) -> httpx.Response:
        headers = {**self.headers, "X-Request-ID": request_id}
        if self.method == "POST":
            return await client.post(SEARCH, json=self.parameters, headers=headers)
        return await client.request(self.method, PATIENTS, params=self.parameters, headers=headers)


def observable(response: httpx.Response) -> tuple[int, str, dict[str, str], set[str]]:
    """Return everything observable in a response except where its links lead, which is encrypted."""
    left_out = {"x-request-id", "date", "link", "next-cursor", "content-length"}
    headers = {name: value for name, value in response.headers.items() if name not in left_out}
    body = response.text if response.is_success else json.dumps(response.json()["errors"]) if response.content else ""
    link_names = {*map(str, response.links), *({"next-cursor"} & {*response.headers})}
    return response.status_code, body, headers, link_names


BOUNDARY_DAYS = [VICTIM_BIRTH_DATE + timedelta(days=days) for days in (-9000, -1, 0, 1, 400)]


def inference_attempts() -> Iterator[InferenceAttempt]:
    """Yield bisections by counts, by HEAD and by decoys, and related attacks, for days around the victim's birth."""
    many = [f"Nobody{number}" for number in range(48)]
    for day in map(date.isoformat, BOUNDARY_DAYS):
        alone = {"patient_last_name": "Dlamini", "patient_date_of_birth__lte": day}
        beside_decoy = {**alone, "patient_last_name": ["Aardvark", "Dlamini"]}
        by_search = {"search": "dlamini", "patient_date_of_birth__lte": day}
        for method in ("GET", "POST"):
            yield InferenceAttempt(method, {**alone, "count": "exact", "limit": 1})
            yield InferenceAttempt(method, {**beside_decoy, "limit": 1})
            yield InferenceAttempt(method, {**beside_decoy, "limit": 1, "count": "exact"})
            yield InferenceAttempt(method, {**beside_decoy, "count": "exact"}, NDJSON_HEADERS)
            yield InferenceAttempt(method, {**alone, "patient_last_name": [*many, "Aardvark", "Dlamini"], "limit": 1})
            yield InferenceAttempt(method, {**by_search, "count": "exact", "limit": 1})
            yield InferenceAttempt(method, {"search": f"dlamini {day}", "count": "exact", "limit": 1})
            yield InferenceAttempt(method, {"patient_date_of_birth__gte": day, "ordering": "-unique_id", "limit": 1})
        yield InferenceAttempt("HEAD", {**alone, "count": "exact", "limit": 1})
        yield InferenceAttempt("HEAD", {**beside_decoy, "limit": 1})
        yield InferenceAttempt("HEAD", {**beside_decoy, "limit": 1}, NDJSON_HEADERS)
        yield InferenceAttempt("HEAD", beside_decoy)
        yield InferenceAttempt("HEAD", {**by_search, "patient_last_name__startswith": "D", "limit": 1})
    for digits in ("082 123 4567", "082 123 4568"):
        for method in ("GET", "HEAD", "POST"):
            yield InferenceAttempt(method, {"patient_mobile_number": [digits, "082 000 0000"], "limit": 1})
        yield InferenceAttempt("GET", {"patient_mobile_number": digits, "limit": 1, "count": "exact"})
    # the victim sorts first or last, so that the presence of a next page reveals its position
    for ordering in ("patient_date_of_birth", "-patient_date_of_birth", "-unique_id"):
        for limit in (1, 2, 3):
            for method in ("GET", "HEAD", "POST"):
                yield InferenceAttempt(method, {"ordering": ordering, "limit": limit})
                names = ["Aardvark", "Dlamini"]
                yield InferenceAttempt(method, {"patient_last_name": names, "ordering": ordering, "limit": limit})
    # a next page's cursor may be too long although the first one is not, and a refusal reveals as much as a link
    long = [f"{number:02}{'😀' * 140}" for number in range(40)]
    for length in range(100, 150, 10):
        names = [*long[:-1], "x" * length, "D", "A"]
        yield InferenceAttempt("POST", {"patient_last_name__startswith": names, "limit": 1})


@pytest.fixture
async def thief_and_clinic(database_url: str) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Return clients of an attacker with only `patients:read` and of the clinic; a victim and two decoys exist."""
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(secured_app(database_url, rate_limit="off"))
        thief, clinic = [
            await stack.enter_async_context(client_for(app, await make_key(database_url, *scopes, name=name)))
            for name, scopes in {"thief": [Scope.PATIENTS_READ], "clinic": [Scope.ADMIN]}.items()
        ]
        for body in (
            VICTIM,
            {"unique_id": "decoy", "patient_last_name": "Aardvark", "patient_date_of_birth": "1900-01-01"},
            {"unique_id": "decoy-2", "patient_last_name": "Aardvark", "patient_date_of_birth": "1901-01-01"},
        ):
            assert (await clinic.post(PATIENTS, json=body)).status_code == 201
        yield thief, clinic


async def test_every_response_that_reveals_a_patient_is_audited(
    thief_and_clinic: tuple[httpx.AsyncClient, httpx.AsyncClient], connection: asyncpg.Connection
) -> None:
    """Every attack with a response that depends on the victim is audited and reported with the victim's id."""
    thief, clinic = thief_and_clinic
    attempts = list(inference_attempts())
    with_victim = [observable(await attack.send(thief, f"there.{place}")) for place, attack in enumerate(attempts)]
    assert (await clinic.delete(f"{PATIENTS}victim/")).status_code == 204
    without = [observable(await attack.send(thief, f"gone.{place}")) for place, attack in enumerate(attempts)]
    revealing = {
        f"there.{place}": attempts[place]
        for place, (one, other) in enumerate(zip(with_victim, without, strict=True))
        if one != other
    }
    audited = {
        row["request_id"]
        for row in await connection.fetch("SELECT request_id FROM audit WHERE status < 400 AND 'victim' = ANY (ids)")
    }
    assert {method for method, *_ in revealing.values()} == {"GET", "HEAD", "POST"}, "the attacks revealed nothing"
    assert len(revealing) > 60
    assert {name: attack for name, attack in revealing.items() if name not in audited} == {}
    report = (await clinic.get(f"{PATIENTS}victim/access/", params={"limit": 1000})).json()
    reported = {entry["request_id"] for entry in report}
    assert {name: attack for name, attack in revealing.items() if name not in reported} == {}
    assert {"counted", "listed"} <= {entry["action"] for entry in report}


async def test_bisecting_a_birth_date_by_counts_is_reported(
    thief_and_clinic: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    """A bisection of the birth date by counts finds it, and the report has every request that counted the victim."""
    thief, clinic = thief_and_clinic
    low, high, match_count = date(1950, 1, 1), date(2020, 1, 1), 0
    while low < high:
        middle = low + (high - low) // 2
        parameters = {
            "patient_last_name": "dlamini",
            "patient_date_of_birth__lte": middle.isoformat(),
            "count": "exact",
        }
        refused = await thief.head(PATIENTS, params=parameters)
        assert refused.status_code == 422
        assert "X-Total-Count" not in refused.headers
        counted = await thief.post(SEARCH, json={**parameters, "limit": 1, "ordering": "patient_last_name"})
        if counted.headers["X-Total-Count"] == "1":
            high, match_count = middle, match_count + 1
        else:
            low = middle + timedelta(days=1)
    assert low == VICTIM_BIRTH_DATE
    report = (await clinic.get(f"{PATIENTS}victim/access/", params={"limit": 1000})).json()
    descriptions = [entry["description"] for entry in report if entry["principal"] == "key:thief"]
    assert descriptions.count("Saw how many records match a filter or a search, including this one") == match_count
    assert descriptions.count("Saw the record in the results of a search") == match_count


async def add_patients(connection: asyncpg.Connection, patient_count: int) -> None:
    """Add patients of one town."""
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name, patient_town)"
        " SELECT 'p' || n, 'Doe', 'Soweto' FROM generate_series(1, $1::int) n",
        patient_count,
    )


async def total_count(client: httpx.AsyncClient, **parameters: Any) -> int:
    """Return the total number of matches."""
    response = await client.post(SEARCH, json={**parameters, "limit": 1, "count": "exact"})
    return int(response.headers["X-Total-Count"])


async def audited_by_newest_count(connection: asyncpg.Connection) -> set[str]:
    """Return the ids audited with the newest request, which must be a count."""
    method, ids = await connection.fetchrow("SELECT method, ids FROM audit ORDER BY method <> 'COUNT', id DESC LIMIT 1")
    assert method == "COUNT"
    return set(ids)


async def test_large_counts_depend_only_on_audited_patients(
    thief_and_clinic: tuple[httpx.AsyncClient, httpx.AsyncClient], connection: asyncpg.Connection
) -> None:
    """A large count depends only on the patients audited with it, which are the same for every principal.

    Other patients change no count, so averaging many responses reveals nothing, and no principal gets another sample or
    another error to compare.
    """
    thief, clinic = thief_and_clinic
    await add_patients(connection, 3000)
    first = await total_count(thief, patient_town="Soweto")
    sample = await audited_by_newest_count(connection)
    assert len(sample) == MAX_EXACT_COUNT + 1
    assert 2600 <= first <= 3400
    assert first % 100 == 0
    # decoy values and other filters that all of these patients pass match the same records, so the number is the same
    for more in ({"patient_town": ["Soweto", "Nowhere"]}, {"patient_last_name": ["Doe", "Poe"]}, {"search": "doe"}):
        for client in (thief, clinic):
            assert await total_count(client, **{"patient_town": "Soweto", **more}) == first
            assert await audited_by_newest_count(connection) == sample
    # all patients but one that are not audited leave, and then that one does
    others = {f"p{number}" for number in range(1, 3001)} - sample
    last = others.pop()
    await connection.execute("UPDATE patients SET patient_town = 'Durban' WHERE unique_id = ANY ($1)", others)
    assert await total_count(thief, patient_town="Soweto") == first
    await connection.execute("UPDATE patients SET patient_town = 'Durban' WHERE unique_id = $1", last)
    assert await total_count(thief, patient_town="Soweto") == first
    assert await audited_by_newest_count(connection) == sample


async def test_a_count_at_the_exactness_limit_audits_every_patient(
    thief_and_clinic: tuple[httpx.AsyncClient, httpx.AsyncClient], connection: asyncpg.Connection
) -> None:
    """A decoy that turns an exact count into a rounded one is audited with all other matches."""
    thief, _ = thief_and_clinic
    await add_patients(connection, MAX_EXACT_COUNT)
    assert await total_count(thief, patient_town="Soweto") == MAX_EXACT_COUNT
    assert await audited_by_newest_count(connection) == {f"p{number}" for number in range(1, MAX_EXACT_COUNT + 1)}
    await connection.execute("UPDATE patients SET patient_town = 'Soweto' WHERE unique_id = 'decoy'")
    assert await total_count(thief, patient_town="Soweto") >= MAX_EXACT_COUNT
    assert await audited_by_newest_count(connection) == {
        "decoy",
        *(f"p{number}" for number in range(1, MAX_EXACT_COUNT + 1)),
    }
    # the size of the whole list is no secret, and its count names no patient
    assert await total_count(thief) == MAX_EXACT_COUNT + 3
    newest = await connection.fetch("SELECT method, cardinality(ids) FROM audit ORDER BY id DESC LIMIT 1")
    assert [tuple(row) for row in newest] == [("POST", 1)]


async def test_head_outside_the_hospital_scope_is_in_the_access_report(database_url: str) -> None:
    """HEAD requests, also with X-Break-Glass, are in the access report like GET."""
    emergency = (Scope.PATIENTS_READ, Scope.BREAK_GLASS, Scope.HISTORY_READ)
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(secured_app(database_url, rate_limit="off", audit_reads=False))
        clinic = await stack.enter_async_context(client_for(app, await make_key(database_url, Scope.ADMIN, name="c")))
        key = await make_key(database_url, *emergency, name="er", hospitals=["hosA"])
        er = await stack.enter_async_context(client_for(app, key))
        assert (await clinic.post(PATIENTS, json=VICTIM)).status_code == 201
        glass = {"X-Break-Glass": "Unconscious at the door"}
        assert (await er.head(f"{PATIENTS}victim/")).status_code == 404
        assert (await er.head(f"{PATIENTS}victim/", headers=glass)).status_code == 200
        report = (await clinic.get(f"{PATIENTS}victim/access/")).json()
        # without read auditing, only the break-glass read is recorded
    assert [(entry["principal"], entry["action"], entry["reason"]) for entry in report] == [
        ("key:er", "read", "Unconscious at the door"),
        ("key:c", "created", None),
    ]


async def test_counts_are_equally_coarse_without_read_auditing(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """`PATIENTS_AUDIT_READS=false` leaves out the audit of counts, and the counts stay as coarse."""
    await add_patients(connection, 1500)
    numbers = set()
    for audit_reads in (True, False):
        async with secured_app(database_url, rate_limit="off", audit_reads=audit_reads) as app:
            key = await make_key(database_url, Scope.PATIENTS_READ, name=f"reads-{audit_reads}")
            async with client_for(app, key) as client:
                numbers.add(await total_count(client, patient_town="Soweto"))
    (number,) = numbers
    assert number % 100 == 0
    assert 1300 <= number <= 1700
