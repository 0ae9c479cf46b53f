"""Waiting for changes: long polls, streams, what wakes them, and what ends them."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from app.api.services import AppServices
from app.auth.scopes import Scope
from app.changes import waiting
from app.feed import routes
from tests.auth.support import HOSPITALS, PATIENTS, client_for, make_key, revoke_key, secured_app
from tests.changes.conftest import CHANGES, Follower, summary
from tests.support import ServiceProcess, recorded_statements

NDJSON = {"Accept": "application/x-ndjson"}
EVENTS = {"Accept": "text/event-stream"}


async def until(condition: Any) -> None:
    """Wait until a condition holds, while the application of this process works."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # the conditions have no event
            await asyncio.sleep(0.01)


def services_of(app: FastAPI) -> AppServices:
    services: AppServices = app.state.services
    return services


async def wait_for(app: FastAPI, number: int) -> None:
    """Wait until `number` clients of the application wait for changes."""
    await until(lambda: len(services_of(app).change_watcher._waiters) == number)  # noqa: SLF001


async def create(client: httpx.AsyncClient, unique_id: str) -> None:
    assert (await client.post(HOSPITALS, json={"unique_id": unique_id, "hospital_name": "Clinic"})).status_code == 201


async def test_a_long_poll_returns_the_change_that_it_waited_for(app: FastAPI, client: httpx.AsyncClient) -> None:
    """A request with `wait` returns as soon as this process commits a change."""
    follower = Follower(client, "now")
    await follower.read()
    poll = asyncio.create_task(follower.read(wait=25))
    await wait_for(app, 1)
    began = time.monotonic()
    await create(client, "new")
    assert summary(await poll) == [("created", "hospitals", "new", 1)]
    assert time.monotonic() - began < waiting.POLL_INTERVAL_SECONDS


async def test_a_poll_of_before_repeats_no_change(
    client: httpx.AsyncClient, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that has read more than the last poll of its process knows is not sent back to that poll's position."""
    monkeypatch.setattr(waiting, "POLL_INTERVAL_SECONDS", 60)
    waiting_client, follower = Follower(client, "now"), Follower(client, "now")
    await waiting_client.read()
    await follower.read()
    with recorded_statements() as sent:
        poll = asyncio.create_task(waiting_client.read(wait=25, resource="patients"))
        # by the request, and by the poll, which is followed by one in a minute
        await until(lambda: sum("pg_is_in_recovery" in each.text for each in sent) == 2)
    await connection.execute(
        "INSERT INTO journal (resource, unique_id, version, action, actor, record) "
        "VALUES ('doctors', 'other', 1, 'created', 'local', '{}')"
    )
    assert summary(await follower.read()) == [("created", "doctors", "other", 1)]
    assert await follower.read(wait=1) == []
    assert await follower.read() == []
    poll.cancel()


async def test_changes_of_other_processes_are_noticed(
    app: FastAPI, client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A change that another process commits wakes the clients that wait."""
    poll = asyncio.create_task(Follower(client, "now").read(wait=25))
    await wait_for(app, 1)
    await connection.execute(
        "INSERT INTO journal (resource, unique_id, version, action, actor, record)"
        " VALUES ('doctors', 'other', 1, 'created', 'local', '{}')"
    )
    assert summary(await poll) == [("created", "doctors", "other", 1)]


async def test_a_long_poll_ends_with_an_empty_page(client: httpx.AsyncClient) -> None:
    """If nothing changes, the response is an empty page, and following from its cursor misses nothing."""
    follower = Follower(client, "now")
    assert await follower.read(wait=1) == []
    await create(client, "new")
    assert len(await follower.read()) == 1


async def test_many_waiting_clients_share_the_queries(app: FastAPI, client: httpx.AsyncClient) -> None:
    """However many clients wait, one query is sent per interval, and one more read serves all that are woken."""
    follower = Follower(client, "now")
    await follower.read()
    with recorded_statements() as sent:
        polls = [asyncio.create_task(Follower(client, follower.cursor).read(wait=25)) for _ in range(50)]
        await wait_for(app, 50)
        sent.clear()
        await create(client, "new")
        assert {len(changes) for changes in await asyncio.gather(*polls)} == {1}
    reads = [statement for statement in sent if "FROM changes" in statement.text and "LIMIT" in statement.text]
    assert len(reads) < 10


async def test_waiting_clients_are_woken_only_by_what_concerns_them(database_url: str) -> None:
    """A change of another hospital's patient wakes no restricted client, and one of another resource no other."""
    async with secured_app(database_url) as app:
        keys = {
            hospital: await make_key(database_url, Scope.CHANGES_READ, name=hospital, hospitals=[hospital])
            for hospital in ("hosA", "hosB")
        }
        async with client_for(app, await make_key(database_url, Scope.ADMIN, name="admin")) as admin:
            for hospital in keys:
                await create(admin, hospital)
            async with client_for(app, keys["hosA"]) as a, client_for(app, keys["hosB"]) as b:
                polls = [
                    asyncio.create_task(follower.read(wait=25))
                    for follower in (Follower(a, "now"), Follower(b, "now"), Follower(admin, "now", resource="doctors"))
                ]
                await wait_for(app, 3)
                body = {"unique_id": "pat", "patient_last_name": "Doe", "hospital_ids": ["hosB"]}
                assert (await admin.post(PATIENTS, json=body)).status_code == 201
                assert summary(await polls[1]) == [("created", "patients", "pat", 1)]
                assert [poll.done() for poll in polls] == [False, True, False]
                services_of(app).is_stopping = True
                assert [await polls[0], await polls[2]] == [[], []]


async def test_a_revoked_key_ends_the_wait(database_url: str) -> None:
    """A client whose key is revoked while it waits gets a 401 instead of the change."""
    async with secured_app(database_url) as app:
        key = await make_key(database_url, Scope.CHANGES_READ, name="reader")
        async with client_for(app, key) as reader, client_for(app, await make_key(database_url, Scope.ADMIN)) as admin:
            poll = asyncio.create_task(reader.get(CHANGES, params={"after": "now", "wait": 25}))
            await wait_for(app, 1)
            await revoke_key(database_url, "reader")
            services_of(app).authenticator._credential_cache.clear()  # noqa: SLF001
            await create(admin, "new")
            assert (await poll).status_code == 401


async def test_waiting_clients_are_limited(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client beyond the limit is refused after some seconds, and the others go on waiting."""
    monkeypatch.setattr("app.admission.bulkhead.ADMISSION_TIMEOUT_SECONDS", 0.1)
    slots = services_of(app).waiting_bulkhead
    releases = [await slots.acquire("local") for _ in range(routes.MAX_WAITING_CLIENTS_PER_PRINCIPAL)]
    response = await client.get(CHANGES, params={"after": "now", "wait": 25})
    assert response.status_code == 429
    for release in releases:
        release()
    assert (await client.get(CHANGES, params={"after": "now", "wait": 1})).status_code == 200


async def lines_of(response: httpx.Response) -> AsyncIterator[str]:
    async for line in response.aiter_lines():
        yield line


async def test_streams_have_cursors_to_continue_from(client: httpx.AsyncClient) -> None:
    """A stream lists the same changes as pages, and can be continued after any of them."""
    for number in range(5):
        await create(client, f"hos{number}")
    pages = await Follower(client).read()
    lines = (await client.get(CHANGES, params={"limit": 3}, headers=NDJSON)).text.splitlines()
    changes = [json.loads(line) for line in lines]
    cursors = [change.pop("cursor") for change in changes]
    assert changes == pages[:3]
    events = (await client.get(CHANGES, params={"limit": 3, "after": cursors[1]}, headers=EVENTS)).text
    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in events.strip().split("\n\n")]
    assert [json.loads(block["data"]) for block in blocks] == pages[2:]
    resumed = await client.get(
        CHANGES, params={"limit": 1, "after": "now"}, headers={**EVENTS, "Last-Event-ID": blocks[0]["id"]}
    )
    assert json.loads(resumed.text.partition("\n")[0].removeprefix("data: ")) == pages[3]


@pytest.mark.parametrize(("headers", "heartbeat"), [(NDJSON, "\n"), (EVENTS, ": ping\n\n")])
async def test_streams_send_heartbeats(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], heartbeat: str
) -> None:
    """A stream sends heartbeats while nothing changes, and then the change."""
    monkeypatch.setattr(routes, "HEARTBEAT_INTERVAL_SECONDS", 0.05)
    stream = asyncio.create_task(client.get(CHANGES, params={"after": "now", "limit": 1}, headers=headers))
    await wait_for(app, 1)
    await asyncio.sleep(0.2)
    await create(client, "new")
    text = (await stream).text
    assert text.count(heartbeat) >= 2
    assert text.count('"unique_id":"new"') == 1
    assert (await stream).headers["content-type"].startswith(headers["Accept"])


@pytest.mark.parametrize("headers", [{}, NDJSON, EVENTS])
async def test_head_requests_do_not_wait(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """HEAD returns the headers at once, also of a stream."""
    response = await client.head(CHANGES, params={"after": "now", "wait": 25}, headers=headers)
    assert (response.status_code, response.content) == (200, b"")


async def test_interrupting_a_server_ends_its_streams(serve: Callable[..., ServiceProcess], database_url: str) -> None:
    """Ctrl-C stops a server at once although clients wait for changes, and their streams end completely."""
    served = serve(DATABASE_URL=database_url)
    async with (
        httpx.AsyncClient(base_url=served.url, timeout=30) as client,
        client.stream("GET", CHANGES, params={"after": "now"}, headers=EVENTS) as stream,
    ):
        chunks = stream.aiter_text()
        assert await anext(chunks) == ": ping\n\n"
        served.process.send_signal(signal.SIGINT)
        assert {chunk async for chunk in chunks} <= {": ping\n\n"}
    assert await asyncio.to_thread(served.process.wait, 10) in {0, -signal.SIGINT, 128 + signal.SIGINT}
    assert [line for line in served.log_entries() if line["level"] == "error"] == []


async def test_a_media_type_with_quality_zero_is_not_used(client: httpx.AsyncClient) -> None:
    """A client that excludes streams gets a page."""
    accept = "application/json, application/x-ndjson;q=0, text/event-stream; q=0.000"
    async with asyncio.timeout(10):
        response = await client.get(CHANGES, params={"limit": 1}, headers={"Accept": accept})
    assert (response.headers["Content-Type"], response.json()) == ("application/json", [])
