"""The parameter `duplicates` of an import over HTTP."""

import hashlib

import asyncpg
import httpx
import pytest

from app.auth.scopes import Scope
from app.uploads.patient_import import MAX_COMPARISONS_PER_LINE
from tests.auth.support import client_for, make_key, secured_app
from tests.duplicates.support import AGAIN, NAMESAKE, THANDI, TWIN, queue, register
from tests.hospital_scope.conftest import ScopedClients
from tests.transfer.support import ndjson
from tests.uploads.test_import import IMPORT, NDJSON, post_lines

LINES = [
    {**fields, "unique_id": unique_id}
    for unique_id, fields in {"one": AGAIN, "two": NAMESAKE, "three": TWIN, "four": NAMESAKE}.items()
]
"""A person who is registered already, a namesake, a twin, and the namesake again."""
OTHERS = [{"patient_last_name": "Botha", "patient_date_of_birth": f"19{year}-05-06"} for year in range(20, 80)]
"""More lines than are compared together."""


async def test_refuse_rejects_lines_of_registered_people(client: httpx.AsyncClient) -> None:
    """Lines of people who are stored, or in an earlier line, are rejected, however far apart the lines are."""
    await register(client, "thandi", **THANDI)
    assert {one["status"] for one in await post_lines(client, LINES, duplicates="refuse")} == {"rejected", "not_stored"}
    lines = [*LINES[:3], *OTHERS, LINES[3]]
    results = await post_lines(client, lines, duplicates="refuse", on_error="skip")
    rejected = [one for one in results if one["status"] == "rejected"]
    assert [one["line"] for one in rejected] == [1, len(lines)]
    assert [[(error["loc"], error["type"]) for error in one["errors"]] for one in rejected] == [
        [([], "possible_duplicate")]
    ] * 2
    assert {one["status"] for one in results if one not in rejected} == {"created"}
    again = await post_lines(client, LINES[1:3], duplicates="refuse")
    assert [one["status"] for one in again] == ["unchanged"] * 2, "stored patients are no duplicates of themselves"


async def test_a_line_that_is_not_stored_refuses_no_other(client: httpx.AsyncClient) -> None:
    """A person of whom an earlier line is rejected is stored with the next line, but not twice."""
    lines = [{**THANDI, "hospital_ids": ["unknown"]}, THANDI, AGAIN]
    results = await post_lines(client, lines, duplicates="refuse", on_error="skip")
    assert [one["status"] for one in results] == ["rejected", "created", "rejected"]
    assert [[error["type"] for error in one["errors"]] for one in results] == [
        ["unknown_hospital"],
        [],
        ["possible_duplicate"],
    ]


async def test_many_rejected_lines_of_one_person_are_compared_a_few_times(client: httpx.AsyncClient) -> None:
    """The first rejected lines of a person have their own errors, and the others are refused as duplicates."""
    lines = [{**THANDI, "hospital_ids": ["unknown"]}] * 20
    results = await post_lines(client, lines, duplicates="refuse", on_error="skip")
    types = [[error["type"] for error in one["errors"]] for one in results]
    expected = [["unknown_hospital"]] * MAX_COMPARISONS_PER_LINE
    assert types == expected + [["possible_duplicate"]] * (len(lines) - MAX_COMPARISONS_PER_LINE)


async def test_the_audit_of_a_trial_names_stored_patients_only(
    scoped_clients: ScopedClients, connection: asyncpg.Connection
) -> None:
    """A line that is refused because of an earlier one adds no patient to the audit who was never stored."""
    await register(scoped_clients.free, "thandi", **THANDI)
    person = {**NAMESAKE, "patient_last_name": "Dlamini"}
    lines = [person, *OTHERS, person, AGAIN]
    results = await post_lines(scoped_clients.free, lines, duplicates="refuse", dry_run="true")
    assert [one["line"] for one in results if one["status"] == "rejected"] == [len(lines) - 1, len(lines)]
    assert await connection.fetchval("SELECT ids FROM audit ORDER BY time DESC LIMIT 1") == ["thandi"]


async def test_report_queues_pairs_and_ignore_does_not(client: httpx.AsyncClient) -> None:
    """By default, new patients are compared in the background; with `ignore`, they are not."""
    await register(client, "thandi", **THANDI)
    assert await queue(client) == []
    (ignored,) = await post_lines(client, LINES[:1], duplicates="ignore")
    assert (ignored["status"], await queue(client)) == ("created", [])
    await post_lines(client, [LINES[1], LINES[3]])
    assert [entry["patients"] for entry in await queue(client)] == [["four", "two"]]


async def test_identifiers_and_decisions_count(client: httpx.AsyncClient) -> None:
    """A line is compared by its identifiers, and not with patients that it names as other persons."""
    identifiers = [{"type": "other", "value": "A-123"}]
    await register(client, "thandi", **{**THANDI, "patient_identifiers": identifiers})
    married = {"patient_first_name": "Thandiwe", "patient_last_name": "Botha", "patient_identifiers": identifiers}
    wrong = [{"type": "za_id", "value": "1"}]
    lines = [
        married,
        {**AGAIN, "patient_identifiers": wrong},
        {**NAMESAKE, "patient_identifiers": wrong},
        {**AGAIN, "unique_id": "other", "not_duplicates": ["thandi"]},
    ]
    results = await post_lines(client, lines, duplicates="refuse", on_error="skip")
    assert [[error["type"] for error in one["errors"]] for one in results[:2]] == [["possible_duplicate"]] * 2
    assert results[2]["errors"][0]["loc"][0] == "patient_identifiers"
    assert results[3]["status"] == "created"
    assert [entry["patients"] for entry in await queue(client, status="dismissed")] == [["other", "thandi"]]


async def test_restricted_principals_learn_only_of_visible_patients(
    scoped_clients: ScopedClients, connection: asyncpg.Connection
) -> None:
    """A patient of another hospital rejects no line, but is queued; the audit names a visible one that does."""
    await register(scoped_clients.free, "at-b", **THANDI, hospital_ids=["hosB"])
    line = {**AGAIN, "hospital_ids": ["hosA"]}
    (first,) = await post_lines(scoped_clients.a, [line], duplicates="refuse")
    assert first["status"] == "created"
    assert len(await queue(scoped_clients.free)) == 1
    for parameters in ({"dry_run": "true"}, {"on_error": "skip"}):
        (again,) = await post_lines(scoped_clients.a, [line], None, duplicates="refuse", **parameters)
        assert [error["type"] for error in again["errors"]] == ["possible_duplicate"]
        row = await connection.fetchrow("SELECT principal, ids, version FROM audit ORDER BY time DESC LIMIT 1")
        assert tuple(row) == ("key:a", [first["unique_id"]], None)


@pytest.mark.parametrize("may_read", [False, True], ids=["without read scope", "with read scope"])
async def test_refusing_needs_the_scope_to_read(database_url: str, *, may_read: bool) -> None:
    """A rejected line tells that a person is registered, so whoever must not read patients cannot have it checked."""
    scopes = [Scope.PATIENTS_WRITE, *([Scope.PATIENTS_READ] if may_read else [])]
    async with secured_app(database_url) as app:
        client = client_for(app, await make_key(database_url, *scopes))
        content = b'{"patient_last_name": "Doe"}'
        response = await client.post(IMPORT, content=content, headers=NDJSON, params={"duplicates": "refuse"})
        assert response.status_code == (200 if may_read else 403)
        (stored,) = await post_lines(client, [{"patient_last_name": "Roe"}])
        assert stored["status"] == "created"


async def test_the_setting_is_the_default(database_url: str) -> None:
    """With PATIENTS_DUPLICATE_CHECK=refuse, lines are rejected unless the parameter says otherwise."""
    async with secured_app(database_url, auth="off", duplicate_check="refuse") as app:
        client = client_for(app)
        await register(client, "thandi", **THANDI)
        (rejected,) = await post_lines(client, [AGAIN])
        assert [error["type"] for error in rejected["errors"]] == ["possible_duplicate"]
        (stored,) = await post_lines(client, [AGAIN], duplicates="report")
        assert stored["status"] == "created"


async def test_the_setting_needs_no_scope_and_changes_no_retry(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """With the setting, an import needs no other scope than a creation, and retries get their first results.

    Earlier versions made the digest of an import without the parameter.
    """
    lines, key = [THANDI], {"Idempotency-Key": "k1"}
    api_key = await make_key(database_url, Scope.PATIENTS_WRITE)
    async with secured_app(database_url) as app:
        stored = await post_lines(client_for(app, api_key), lines, key)
    earlier = b'{"dry_run":false,"update":false,"allow_other_person":false,"on_error":"stop"}' + ndjson(lines).encode()
    digest = hashlib.sha256(hashlib.sha256(earlier).digest()).digest()
    assert await connection.fetchval("SELECT fingerprint FROM idempotency_keys") == digest
    async with secured_app(database_url, duplicate_check="refuse") as app:
        client = client_for(app, api_key)
        assert await post_lines(client, lines, key) == stored
        (rejected,) = await post_lines(client, [AGAIN])
        assert [error["type"] for error in rejected["errors"]] == ["possible_duplicate"]


async def test_other_policies_are_refused(client: httpx.AsyncClient) -> None:
    """A mistyped policy is not ignored."""
    response = await client.post(IMPORT, content=b"{}", headers=NDJSON, params={"duplicates": "refused"})
    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["query", "duplicates"]
