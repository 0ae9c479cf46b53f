"""Idempotency-Key: a repeated POST gets the response of the first one, and creates nothing a second time."""

import asyncio
import json
from collections import Counter
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from tests.processes import RawRequest, send_concurrently, wait_until_blocked
from tests.support import EXAMPLE_PATIENT, RESOURCE_EXAMPLES, dump_tables

PATIENTS = "/patients/patients/"
KEY_HEADERS = {"Idempotency-Key": "0f8fad5b-d9cb-469f-a165-70867728950e"}
MINIMAL_PATIENT = {"patient_last_name": "Doe"}
REPLAYED_HEADER = "Idempotency-Replayed"


async def count_rows(connection: asyncpg.Connection, table: str) -> int:
    return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))  # noqa: S608  # a table name from this file


def is_replay(first: httpx.Response, again: httpx.Response) -> bool:
    """Return whether `again` replays the stored response `first`."""
    assert REPLAYED_HEADER not in first.headers
    statuses_and_bodies = [(response.status_code, response.content) for response in (first, again)]
    names = ("Location", "ETag", "Content-Type", "Cache-Control")
    headers = [[response.headers.get(name) for name in names] for response in (first, again)]
    return (
        statuses_and_bodies[0] == statuses_and_bodies[1]
        and headers[0] == headers[1]
        and again.headers.get(REPLAYED_HEADER) == "true"
    )


def header_error_types(response: httpx.Response) -> list[str]:
    """Return the error types of a 422 whose errors are all about the header."""
    assert response.status_code == 422, response.text
    assert [error["loc"] for error in response.json()["errors"]] == [["header", "Idempotency-Key"]]
    return [error["type"] for error in response.json()["errors"]]


async def test_repeated_create_is_replayed(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A repeated creation of any resource gets the same response with `Idempotency-Replayed`, and adds no record."""
    for kind in RESOURCE_EXAMPLES:
        first = await client.post(kind.path, json=kind.minimal_body, headers=KEY_HEADERS)
        assert first.status_code == 201
        assert first.headers["Location"] == f"{kind.path}{first.json()['unique_id']}/"
        before = await dump_tables(connection)
        for path in (kind.path, kind.path.removesuffix("/")):
            assert is_replay(first, await client.post(path, json=kind.minimal_body, headers=KEY_HEADERS))
        assert await dump_tables(connection) == before
        assert (await client.put(first.headers["Location"], json=kind.update_body)).status_code == 200
        assert is_replay(first, await client.post(kind.path, json=kind.minimal_body, headers=KEY_HEADERS)), (
            "the replay is the first response, not the current record"
        )
        other = await client.post(kind.path, json=kind.minimal_body, headers={"Idempotency-Key": "another"})
        assert (other.status_code, REPLAYED_HEADER in other.headers) == (201, False)
        assert await count_rows(connection, kind.table) == 2
        without = await client.post(kind.path, json=kind.minimal_body)
        assert REPLAYED_HEADER not in without.headers
        assert await count_rows(connection, kind.table) == 3


async def test_repeated_restore_is_replayed(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A repeated restore gets the same response and adds no version, even after a change in between."""
    for kind in RESOURCE_EXAMPLES:
        await client.post(kind.path, json=kind.create_body)
        await client.delete(kind.record_path)
        restore = f"{kind.record_path}restore/"
        first = await client.post(restore, json={"version": 1}, headers=KEY_HEADERS)
        assert first.status_code == 200
        assert (await client.put(kind.record_path, json=kind.update_body)).status_code == 200
        before = await dump_tables(connection)
        assert is_replay(first, await client.post(restore, json={"version": 1}, headers=KEY_HEADERS))
        assert await dump_tables(connection) == before
        assert (await client.get(f"{kind.record_path}history/")).json()[0]["version"] == 4


async def test_replay_ignores_preconditions(client: httpx.AsyncClient) -> None:
    """A repeat is replayed even if the precondition of the first request no longer holds."""
    for kind in RESOURCE_EXAMPLES:
        star = {**KEY_HEADERS, "If-None-Match": "*"}
        first = await client.post(kind.path, json=kind.create_body, headers=star)
        assert first.status_code == 201
        assert is_replay(first, await client.post(kind.path, json=kind.create_body, headers=star))
        tag = (await client.put(kind.record_path, json=kind.update_body)).headers["ETag"]
        match = {**KEY_HEADERS, "If-Match": tag}
        restored = await client.post(f"{kind.record_path}restore/", json={"version": 1}, headers=match)
        assert restored.status_code == 200
        assert is_replay(restored, await client.post(f"{kind.record_path}restore/", json={"version": 1}, headers=match))


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_equivalent_json_is_the_same_request(client: httpx.AsyncClient) -> None:
    """Whitespace, the order of keys and escapes do not make a different body."""
    first = await client.post(PATIENTS, json=EXAMPLE_PATIENT, headers=KEY_HEADERS)
    assert first.status_code == 201
    backwards = dict(reversed(EXAMPLE_PATIENT.items()))
    backwards["patient_profile"] = dict(reversed(EXAMPLE_PATIENT["patient_profile"].items()))
    for text in (
        json.dumps(EXAMPLE_PATIENT, indent=8),
        json.dumps(backwards, separators=(",", ":")),
        json.dumps(EXAMPLE_PATIENT).replace("John", "\\u004aohn"),
    ):
        headers = {**KEY_HEADERS, "Content-Type": "application/json"}
        assert is_replay(first, await client.post(PATIENTS, content=text, headers=headers)), text
    assert len((await client.get(PATIENTS)).json()) == 1


async def test_key_with_another_body_is_422(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """The same key with another body is a 422 that names the header, and nothing is stored."""
    for kind in RESOURCE_EXAMPLES:
        first = await client.post(kind.path, json=kind.create_body, headers=KEY_HEADERS)
        assert first.status_code == 201
        before = await dump_tables(connection)
        for other in (
            kind.minimal_body,
            {**kind.create_body, **kind.update_body},
            {**kind.create_body, "unique_id": "other"},
        ):
            assert header_error_types(await client.post(kind.path, json=other, headers=KEY_HEADERS)) == [
                "idempotency_key_reused"
            ]
        assert await dump_tables(connection) == before
        await client.put(kind.record_path, json=kind.update_body)
        restore = f"{kind.record_path}restore/"
        assert (await client.post(restore, json={"version": 1}, headers=KEY_HEADERS)).status_code == 200
        for body in ({"version": 2}, {"version": 1, "skip_missing": True}):
            assert header_error_types(await client.post(restore, json=body, headers=KEY_HEADERS)) == [
                "idempotency_key_reused"
            ]
        assert is_replay(first, await client.post(kind.path, json=kind.create_body, headers=KEY_HEADERS))


async def test_null_and_absent_fields_are_different_requests(client: httpx.AsyncClient) -> None:
    """A body with a null field differs from a body without the field."""
    assert (await client.post(PATIENTS, json=MINIMAL_PATIENT, headers=KEY_HEADERS)).status_code == 201
    response = await client.post(PATIENTS, json={**MINIMAL_PATIENT, "patient_title": None}, headers=KEY_HEADERS)
    assert header_error_types(response) == ["idempotency_key_reused"]


async def test_key_is_bound_to_path_and_method(client: httpx.AsyncClient) -> None:
    """One key on several paths stands for several requests, and for no PUT."""
    for kind in RESOURCE_EXAMPLES:
        for unique_id in ("own", "other"):
            assert (await client.post(kind.path, json={**kind.minimal_body, "unique_id": unique_id})).status_code == 201
            assert (await client.put(f"{kind.path}{unique_id}/", json=kind.update_body)).status_code == 200
    responses = []
    for kind in RESOURCE_EXAMPLES:
        responses.append(await client.post(kind.path, json=kind.minimal_body, headers=KEY_HEADERS))
        for unique_id in ("own", "other"):
            restore = f"{kind.path}{unique_id}/restore/"
            responses.append(await client.post(restore, json={"version": 1}, headers=KEY_HEADERS))
        for change in (kind.update_body, kind.minimal_body):
            response = await client.put(kind.record_path, json=change, headers=KEY_HEADERS)
            assert response.json() == (await client.get(kind.record_path)).json()
            assert response.json().items() >= change.items(), "each PUT is applied"
            responses.append(response)
    assert Counter(response.status_code for response in responses) == {201: 4, 200: 16}
    assert not [response for response in responses if REPLAYED_HEADER in response.headers]


async def test_only_successful_responses_are_stored(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """After a refused request, the corrected body under the same key is a new request."""
    await client.post(PATIENTS, json={**MINIMAL_PATIENT, "unique_id": "taken"})
    failing: list[tuple[dict[str, Any], dict[str, str], int]] = [
        ({"patient_email_address": "nowhere"}, {}, 422),
        ({**MINIMAL_PATIENT, "hospital_ids": ["hos9"]}, {}, 422),
        ({**MINIMAL_PATIENT, "unique_id": "taken"}, {}, 409),
        ({**MINIMAL_PATIENT, "unique_id": "taken"}, {"If-None-Match": "*"}, 412),
    ]
    before = await dump_tables(connection)
    for body, headers, status in failing:
        assert (await client.post(PATIENTS, json=body, headers={**KEY_HEADERS, **headers})).status_code == status
        assert await dump_tables(connection) == before
    restore = f"{PATIENTS}taken/restore/"
    assert (await client.post(f"{PATIENTS}none/restore/", json={"version": 1}, headers=KEY_HEADERS)).status_code == 404
    assert (await client.post(restore, json={"version": 9}, headers=KEY_HEADERS)).status_code == 422
    assert await dump_tables(connection) == before
    for path, corrected, status in ((PATIENTS, MINIMAL_PATIENT, 201), (restore, {"version": 1}, 200)):
        response = await client.post(path, json=corrected, headers=KEY_HEADERS)
        assert response.status_code == status
        assert is_replay(response, await client.post(path, json=corrected, headers=KEY_HEADERS))


async def test_key_is_stored_in_the_transaction_of_its_record(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A transaction that fails on commit stores no key, so that the repeat creates the record."""
    await connection.execute(
        """
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
        CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON patients DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION fail()
        """
    )
    before = await dump_tables(connection)
    assert (await client.post(PATIENTS, json=MINIMAL_PATIENT, headers=KEY_HEADERS)).status_code == 500
    assert await dump_tables(connection) == before
    await connection.execute("DROP TRIGGER fail ON patients")
    first = await client.post(PATIENTS, json=MINIMAL_PATIENT, headers=KEY_HEADERS)
    assert (first.status_code, REPLAYED_HEADER in first.headers) == (201, False)
    transactions = "SELECT DISTINCT xmin::text FROM patients UNION SELECT xmin::text FROM idempotency_keys"
    assert len(await connection.fetch(transactions)) == 1


@pytest.mark.parametrize("fails", [False, True], ids=["first-succeeds", "first-fails"])
async def test_concurrent_repeat_waits_for_the_first_request(
    client: httpx.AsyncClient, connection: asyncpg.Connection, *, fails: bool
) -> None:
    """A repeat during the first request waits for it, and is replayed, or executed if the first request fails."""
    await connection.execute("INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hos', 'General')")
    body = {**MINIMAL_PATIENT, "hospital_ids": ["hos"]}
    async with connection.transaction():
        await connection.execute("SELECT FROM hospitals FOR UPDATE")
        sending = asyncio.ensure_future(client.post(PATIENTS, json=body, headers=KEY_HEADERS))
        await wait_until_blocked(connection)
        repeating = asyncio.ensure_future(client.post(PATIENTS, json=body, headers=KEY_HEADERS))
        await wait_until_blocked(connection, session_count=2)
        if fails:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
            )
            assert (await sending).status_code == 503
    again = await repeating
    if fails:
        assert (again.status_code, REPLAYED_HEADER in again.headers) == (201, False)
    else:
        assert is_replay(await sending, again)
    assert await count_rows(connection, "patients") == 1


@pytest.mark.crowd
async def test_100_concurrent_requests_with_one_key_create_one_record(service_url: str) -> None:
    """100 concurrent POSTs with one key on two processes create one patient, and all return it."""
    body = {"patient_last_name": "Only one", "patient_profile": {"unique_id": "only-one", "email": "a@b.c"}}
    responses = await send_concurrently(service_url, [RawRequest("POST", PATIENTS, body, KEY_HEADERS)] * 100)
    assert Counter(response.status for response in responses) == {201: 100}
    assert len({response.content for response in responses}) == 1
    assert len({response.headers["location"] for response in responses}) == 1
    assert Counter(response.headers.get(REPLAYED_HEADER.lower()) for response in responses) == {None: 1, "true": 99}
    async with httpx.AsyncClient(base_url=service_url) as client:
        patients = (await client.get(PATIENTS)).json()
        assert len([patient for patient in patients if patient["patient_last_name"] == "Only one"]) == 1
        assert len((await client.get("/profiles/profiles/only-one/history/")).json()) == 1


async def age_keys(connection: asyncpg.Connection, interval: str) -> None:
    """Make all keys older by this interval."""
    await connection.execute(f"UPDATE idempotency_keys SET time = time - interval '{interval}'")  # noqa: S608


async def test_key_is_kept_for_24_hours(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A key stands for its request for 24 hours, and then for the next request that uses it."""
    for kind in RESOURCE_EXAMPLES:
        first = await client.post(kind.path, json=kind.minimal_body, headers=KEY_HEADERS)
        await age_keys(connection, "23 hours 59 minutes")
        assert is_replay(first, await client.post(kind.path, json=kind.minimal_body, headers=KEY_HEADERS))
        await age_keys(connection, "2 minutes")
        second = await client.post(kind.path, json=kind.update_body, headers=KEY_HEADERS)
        assert (second.status_code, REPLAYED_HEADER in second.headers) == (201, False)
        assert second.json()["unique_id"] != first.json()["unique_id"]
        assert is_replay(second, await client.post(kind.path, json=kind.update_body, headers=KEY_HEADERS))
        assert await count_rows(connection, kind.table) == 2


async def test_failed_request_under_an_expired_key_stores_nothing(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A request that fails under an expired key stores nothing, so that the next one is a new request as well."""
    assert (await client.post(PATIENTS, json=MINIMAL_PATIENT, headers=KEY_HEADERS)).status_code == 201
    await age_keys(connection, "25 hours")
    before = await dump_tables(connection)
    wrong = {**MINIMAL_PATIENT, "hospital_ids": ["hos9"]}
    assert (await client.post(PATIENTS, json=wrong, headers=KEY_HEADERS)).status_code == 422
    assert await dump_tables(connection) == before
    second = await client.post(PATIENTS, json=MINIMAL_PATIENT, headers=KEY_HEADERS)
    assert (second.status_code, REPLAYED_HEADER in second.headers) == (201, False)


async def test_expired_keys_are_removed_when_the_service_starts(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str
) -> None:
    """A starting service deletes the keys that are older than 24 hours, and no others."""
    for age_first, key in ((True, "old"), (False, "young")):
        await client.post(PATIENTS, json=MINIMAL_PATIENT, headers={"Idempotency-Key": key})
        if age_first:
            await age_keys(connection, "24 hours 1 second")
    again: FastAPI = create_app(Settings.model_validate({"database_url": database_url}))
    async with again.router.lifespan_context(again):
        keys = await connection.fetch("SELECT key FROM idempotency_keys")
    assert [row["key"] for row in keys] == ["young"]


async def test_repeat_after_deletion_of_the_record_is_409(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A repeat after the record's deletion is a 409 and creates nothing; after the record's restore, it is replayed."""
    for kind in RESOURCE_EXAMPLES:
        first = await client.post(kind.path, json=kind.minimal_body, headers=KEY_HEADERS)
        one = first.headers["Location"]
        assert (await client.delete(one)).status_code == 204
        before = await dump_tables(connection)
        response = await client.post(kind.path, json=kind.minimal_body, headers=KEY_HEADERS)
        assert (response.status_code, REPLAYED_HEADER in response.headers) == (409, False)
        assert "Idempotency-Key" in response.json()["detail"]
        assert await dump_tables(connection) == before
        assert (await client.post(f"{one}restore/", json={"version": 1})).status_code == 200
        assert is_replay(first, await client.post(kind.path, json=kind.minimal_body, headers=KEY_HEADERS))


async def test_invalid_keys_are_422(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A key that is empty, too long, or has blanks, quotes or non-ASCII letters is a 422 that names the header."""
    before = await dump_tables(connection)
    for key in ("", " ", '""', "a b", 'a"b', '"a"b"', "a" * 256, f'"{"a" * 256}"', "\xe9", "a\tb", "a\x7f"):
        headers = httpx.Headers({"Idempotency-Key": key}, encoding="latin-1")
        for kind in RESOURCE_EXAMPLES:
            assert header_error_types(await client.post(kind.path, json=kind.minimal_body, headers=headers)) == [
                "idempotency_key"
            ]
    assert await dump_tables(connection) == before


async def test_quoted_and_unquoted_keys_are_equal(client: httpx.AsyncClient) -> None:
    """A key may be quoted, as in the header's draft, or not, and may have up to 255 characters."""
    for key in ("a", "!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "a" * 255):
        first = await client.post(PATIENTS, json=MINIMAL_PATIENT, headers={"Idempotency-Key": key})
        assert first.status_code == 201
        assert is_replay(
            first, await client.post(PATIENTS, json=MINIMAL_PATIENT, headers={"Idempotency-Key": f'"{key}"'})
        )
