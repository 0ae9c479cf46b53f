"""Idempotency-Key: a POST that is sent again is answered as it was the first time, and makes nothing a second time."""

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
from tests.processes import Call, at_once, await_blocked
from tests.support import EXAMPLE, KINDS, dump

PATIENTS = "/patients/patients/"
KEY = {"Idempotency-Key": "0f8fad5b-d9cb-469f-a165-70867728950e"}
DOE = {"patient_last_name": "Doe"}
REPLAYED = "Idempotency-Replayed"


async def count(connection: asyncpg.Connection, table: str) -> int:
    return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))  # noqa: S608  # a name of ours


def same(first: httpx.Response, again: httpx.Response) -> bool:
    """Whether `again` is the stored answer to the request that `first` answered."""
    assert REPLAYED not in first.headers
    told = [(answer.status_code, answer.content) for answer in (first, again)]
    names = ("Location", "ETag", "Content-Type", "Cache-Control")
    headers = [[answer.headers.get(name) for name in names] for answer in (first, again)]
    return told[0] == told[1] and headers[0] == headers[1] and again.headers.get(REPLAYED) == "true"


def header_errors(answer: httpx.Response) -> list[str]:
    """What a 422 that names the header says of it, for programs."""
    assert answer.status_code == 422, answer.text
    assert [error["loc"] for error in answer.json()["errors"]] == [["header", "Idempotency-Key"]]
    return [error["type"] for error in answer.json()["errors"]]


async def test_repeat_is_answered_as_the_first(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A creation of any resource sent again has the same answer, `Idempotency-Replayed`, and makes no second record."""
    for kind in KINDS:
        first = await client.post(kind.path, json=kind.least, headers=KEY)
        assert first.status_code == 201
        assert first.headers["Location"] == f"{kind.path}{first.json()['unique_id']}/"
        before = await dump(connection)
        for path in (kind.path, kind.path.removesuffix("/")):
            assert same(first, await client.post(path, json=kind.least, headers=KEY))
        assert await dump(connection) == before
        assert (await client.put(first.headers["Location"], json=kind.change)).status_code == 200
        assert same(first, await client.post(kind.path, json=kind.least, headers=KEY)), (
            "as it was answered, not as it is"
        )
        other = await client.post(kind.path, json=kind.least, headers={"Idempotency-Key": "another"})
        assert (other.status_code, REPLAYED in other.headers) == (201, False)
        assert await count(connection, kind.table) == 2
        without = await client.post(kind.path, json=kind.least)
        assert REPLAYED not in without.headers
        assert await count(connection, kind.table) == 3


async def test_repeat_of_a_restore(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A restore sent again has the same answer and makes no second version, even after a change in between."""
    for kind in KINDS:
        await client.post(kind.path, json=kind.own)
        await client.delete(kind.one)
        restore = f"{kind.one}restore/"
        first = await client.post(restore, json={"version": 1}, headers=KEY)
        assert first.status_code == 200
        assert (await client.put(kind.one, json=kind.change)).status_code == 200
        before = await dump(connection)
        assert same(first, await client.post(restore, json={"version": 1}, headers=KEY))
        assert await dump(connection) == before
        assert (await client.get(f"{kind.one}history/")).json()[0]["version"] == 4


async def test_repeat_asks_no_condition_again(client: httpx.AsyncClient) -> None:
    """The condition of a request held when it was made: a repeat is answered, though it would no longer hold."""
    for kind in KINDS:
        star = {**KEY, "If-None-Match": "*"}
        first = await client.post(kind.path, json=kind.own, headers=star)
        assert first.status_code == 201
        assert same(first, await client.post(kind.path, json=kind.own, headers=star))
        tag = (await client.put(kind.one, json=kind.change)).headers["ETag"]
        match = {**KEY, "If-Match": tag}
        restored = await client.post(f"{kind.one}restore/", json={"version": 1}, headers=match)
        assert restored.status_code == 200
        assert same(restored, await client.post(f"{kind.one}restore/", json={"version": 1}, headers=match))


@pytest.mark.usefixtures("directory")
async def test_how_json_is_written_makes_no_other_request(client: httpx.AsyncClient) -> None:
    """Spaces, the order of keys, and escapes make no other body."""
    first = await client.post(PATIENTS, json=EXAMPLE, headers=KEY)
    assert first.status_code == 201
    backwards = dict(reversed(EXAMPLE.items()))
    backwards["patient_profile"] = dict(reversed(EXAMPLE["patient_profile"].items()))
    for text in (
        json.dumps(EXAMPLE, indent=8),
        json.dumps(backwards, separators=(",", ":")),
        json.dumps(EXAMPLE).replace("John", "\\u004aohn"),
    ):
        headers = {**KEY, "Content-Type": "application/json"}
        assert same(first, await client.post(PATIENTS, content=text, headers=headers)), text
    assert len((await client.get(PATIENTS)).json()) == 1


async def test_key_is_of_one_body(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """The same key with another body is a 422 that names the header, and nothing is stored."""
    for kind in KINDS:
        first = await client.post(kind.path, json=kind.own, headers=KEY)
        assert first.status_code == 201
        before = await dump(connection)
        for other in (kind.least, {**kind.own, **kind.change}, {**kind.own, "unique_id": "other"}):
            assert header_errors(await client.post(kind.path, json=other, headers=KEY)) == ["idempotency_key_reused"]
        assert await dump(connection) == before
        await client.put(kind.one, json=kind.change)
        restore = f"{kind.one}restore/"
        assert (await client.post(restore, json={"version": 1}, headers=KEY)).status_code == 200
        for body in ({"version": 2}, {"version": 1, "skip_missing": True}):
            assert header_errors(await client.post(restore, json=body, headers=KEY)) == ["idempotency_key_reused"]
        assert same(first, await client.post(kind.path, json=kind.own, headers=KEY))


async def test_null_is_another_body_than_nothing(client: httpx.AsyncClient) -> None:
    """A field that is null is another body than one that is absent."""
    assert (await client.post(PATIENTS, json=DOE, headers=KEY)).status_code == 201
    answer = await client.post(PATIENTS, json={**DOE, "patient_title": None}, headers=KEY)
    assert header_errors(answer) == ["idempotency_key_reused"]


async def test_key_is_of_one_path_and_method(client: httpx.AsyncClient) -> None:
    """One key on several paths stands for several requests; a PUT is none of them."""
    for kind in KINDS:
        for unique_id in ("own", "other"):
            assert (await client.post(kind.path, json={**kind.least, "unique_id": unique_id})).status_code == 201
            assert (await client.put(f"{kind.path}{unique_id}/", json=kind.change)).status_code == 200
    answers = []
    for kind in KINDS:
        answers.append(await client.post(kind.path, json=kind.least, headers=KEY))
        for unique_id in ("own", "other"):
            restore = f"{kind.path}{unique_id}/restore/"
            answers.append(await client.post(restore, json={"version": 1}, headers=KEY))
        for change in (kind.change, kind.least):
            answer = await client.put(kind.one, json=change, headers=KEY)
            assert answer.json() == (await client.get(kind.one)).json()
            assert answer.json().items() >= change.items(), "each is done"
            answers.append(answer)
    assert Counter(answer.status_code for answer in answers) == {201: 4, 200: 16}
    assert not [answer for answer in answers if REPLAYED in answer.headers]


async def test_only_successes_are_stored(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """After a refusal, the corrected body under the same key is a new request."""
    await client.post(PATIENTS, json={**DOE, "unique_id": "taken"})
    failing: list[tuple[dict[str, Any], dict[str, str], int]] = [
        ({"patient_email_address": "nowhere"}, {}, 422),
        ({**DOE, "hospital_ids": ["hos9"]}, {}, 422),
        ({**DOE, "unique_id": "taken"}, {}, 409),
        ({**DOE, "unique_id": "taken"}, {"If-None-Match": "*"}, 412),
    ]
    before = await dump(connection)
    for body, headers, status in failing:
        assert (await client.post(PATIENTS, json=body, headers={**KEY, **headers})).status_code == status
        assert await dump(connection) == before
    restore = f"{PATIENTS}taken/restore/"
    assert (await client.post(f"{PATIENTS}none/restore/", json={"version": 1}, headers=KEY)).status_code == 404
    assert (await client.post(restore, json={"version": 9}, headers=KEY)).status_code == 422
    assert await dump(connection) == before
    for path, corrected, status in ((PATIENTS, DOE, 201), (restore, {"version": 1}, 200)):
        answer = await client.post(path, json=corrected, headers=KEY)
        assert answer.status_code == status
        assert same(answer, await client.post(path, json=corrected, headers=KEY))


async def test_key_is_stored_with_what_it_made(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A transaction that fails when it commits leaves no key: the repeat makes the record."""
    await connection.execute(
        """
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
        CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON patients DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION fail()
        """
    )
    before = await dump(connection)
    assert (await client.post(PATIENTS, json=DOE, headers=KEY)).status_code == 500
    assert await dump(connection) == before
    await connection.execute("DROP TRIGGER fail ON patients")
    first = await client.post(PATIENTS, json=DOE, headers=KEY)
    assert (first.status_code, REPLAYED in first.headers) == (201, False)
    transactions = "SELECT DISTINCT xmin::text FROM patients UNION SELECT xmin::text FROM idempotency_keys"
    assert len(await connection.fetch(transactions)) == 1


@pytest.mark.parametrize("fails", [False, True], ids=["first-succeeds", "first-fails"])
async def test_repeat_waits_for_the_first(
    client: httpx.AsyncClient, connection: asyncpg.Connection, *, fails: bool
) -> None:
    """A repeat that comes while the first is under way waits; it is answered as that, or in its place if it fails."""
    await connection.execute("INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hos', 'General')")
    body = {**DOE, "hospital_ids": ["hos"]}
    async with connection.transaction():
        await connection.execute("SELECT FROM hospitals FOR UPDATE")
        sending = asyncio.ensure_future(client.post(PATIENTS, json=body, headers=KEY))
        await await_blocked(connection)
        repeating = asyncio.ensure_future(client.post(PATIENTS, json=body, headers=KEY))
        await await_blocked(connection, sessions=2)
        if fails:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
            )
            assert (await sending).status_code == 503
    again = await repeating
    if fails:
        assert (again.status_code, REPLAYED in again.headers) == (201, False)
    else:
        assert same(await sending, again)
    assert await count(connection, "patients") == 1


@pytest.mark.alone
async def test_one_key_a_hundred_times_at_once(url: str) -> None:
    """100 POSTs with one key, all at once on two processes, make one patient, and all are answered with it."""
    body = {"patient_last_name": "Only one", "patient_profile": {"unique_id": "only-one", "email": "a@b.c"}}
    answers = await at_once(url, [Call("POST", PATIENTS, body, KEY)] * 100)
    assert Counter(answer.status for answer in answers) == {201: 100}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert Counter(answer.headers.get(REPLAYED.lower()) for answer in answers) == {None: 1, "true": 99}
    async with httpx.AsyncClient(base_url=url) as client:
        patients = (await client.get(PATIENTS)).json()
        assert len([patient for patient in patients if patient["patient_last_name"] == "Only one"]) == 1
        assert len((await client.get("/profiles/profiles/only-one/history/")).json()) == 1


async def age(connection: asyncpg.Connection, interval: str) -> None:
    """Make all keys older."""
    await connection.execute(f"UPDATE idempotency_keys SET time = time - interval '{interval}'")  # noqa: S608


async def test_key_is_kept_for_24_hours(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A key stands for its request for 24 hours; then the same request is a new one, of which it stands again."""
    for kind in KINDS:
        first = await client.post(kind.path, json=kind.least, headers=KEY)
        await age(connection, "23 hours 59 minutes")
        assert same(first, await client.post(kind.path, json=kind.least, headers=KEY))
        await age(connection, "2 minutes")
        second = await client.post(kind.path, json=kind.change, headers=KEY)
        assert (second.status_code, REPLAYED in second.headers) == (201, False)
        assert second.json()["unique_id"] != first.json()["unique_id"]
        assert same(second, await client.post(kind.path, json=kind.change, headers=KEY))
        assert await count(connection, kind.table) == 2


async def test_failure_leaves_an_expired_key(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A new request under an expired key that fails leaves nothing of itself: it is a new one the next time too."""
    assert (await client.post(PATIENTS, json=DOE, headers=KEY)).status_code == 201
    await age(connection, "25 hours")
    before = await dump(connection)
    wrong = {**DOE, "hospital_ids": ["hos9"]}
    assert (await client.post(PATIENTS, json=wrong, headers=KEY)).status_code == 422
    assert await dump(connection) == before
    second = await client.post(PATIENTS, json=DOE, headers=KEY)
    assert (second.status_code, REPLAYED in second.headers) == (201, False)


async def test_expired_keys_are_removed_when_the_service_starts(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str
) -> None:
    """A start forgets what is older than 24 hours, and nothing else."""
    for age_first, key in ((True, "old"), (False, "young")):
        await client.post(PATIENTS, json=DOE, headers={"Idempotency-Key": key})
        if age_first:
            await age(connection, "24 hours 1 second")
    again: FastAPI = create_app(Settings.model_validate({"database_url": database_url}))
    async with again.router.lifespan_context(again):
        keys = await connection.fetch("SELECT key FROM idempotency_keys")
    assert [row["key"] for row in keys] == ["young"]


async def test_what_was_made_and_is_gone(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A repeat after the record was deleted is a 409 and makes none; once that is restored, it is answered again."""
    for kind in KINDS:
        first = await client.post(kind.path, json=kind.least, headers=KEY)
        one = first.headers["Location"]
        assert (await client.delete(one)).status_code == 204
        before = await dump(connection)
        answer = await client.post(kind.path, json=kind.least, headers=KEY)
        assert (answer.status_code, REPLAYED in answer.headers) == (409, False)
        assert "Idempotency-Key" in answer.json()["detail"]
        assert await dump(connection) == before
        assert (await client.post(f"{one}restore/", json={"version": 1})).status_code == 200
        assert same(first, await client.post(kind.path, json=kind.least, headers=KEY))


async def test_unusable_keys(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A key that is empty, too long, or has blanks, quotes or letters beyond ASCII is a 422 that names the header."""
    before = await dump(connection)
    for key in ("", " ", '""', "a b", 'a"b', '"a"b"', "a" * 256, f'"{"a" * 256}"', "\xe9", "a\tb", "a\x7f"):
        headers = httpx.Headers({"Idempotency-Key": key}, encoding="latin-1")
        for kind in KINDS:
            assert header_errors(await client.post(kind.path, json=kind.least, headers=headers)) == ["idempotency_key"]
    assert await dump(connection) == before


async def test_quotes_around_a_key_are_none_of_it(client: httpx.AsyncClient) -> None:
    """A key may stand in quotes, as the header's draft has it, or without; the longest has 255 characters."""
    for key in ("a", "!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "a" * 255):
        first = await client.post(PATIENTS, json=DOE, headers={"Idempotency-Key": key})
        assert first.status_code == 201
        assert same(first, await client.post(PATIENTS, json=DOE, headers={"Idempotency-Key": f'"{key}"'}))
