"""Lists as streams: batches that hold no connection, truncation after a failure, and one record per line."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from app.api.list_source import STREAM_BATCH_SIZE
from app.listing.read_ahead import PREFETCH_BATCHES
from tests.listing.support import LIST_PATHS, PATIENTS, insert_records
from tests.observability.support import connections_in_use
from tests.support import eventually

Messages = list[dict[str, Any]]


async def stream_list(app: FastAPI, after_message: Callable[[int], Awaitable[None]]) -> Messages:
    """Read the whole list of patients from the application and call `after_message` with each message's number."""
    messages: Messages = []
    requests = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not requests:
            await asyncio.Event().wait()  # the client stays: waiting for its disconnect blocks, as with a real server
        return requests.pop()

    async def send(message: Any) -> None:
        messages.append(message)
        await after_message(len(messages))

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
    }
    scope |= {"scheme": "http", "path": PATIENTS, "raw_path": PATIENTS.encode(), "query_string": b"", "root_path": ""}
    await app(
        {**scope, "headers": [], "server": ("patients.test", 80), "client": ("test", 1), "state": {}}, receive, send
    )
    return messages


def streamed_ids(messages: Messages) -> list[str]:
    """Return the ids in the messages of a stream that ended normally."""
    assert messages[0]["status"] == 200
    assert not messages[-1].get("more_body", False)
    return [record["unique_id"] for record in json.loads(b"".join(message["body"] for message in messages[1:]))]


async def test_stream_sends_batches_and_holds_no_connection(app: FastAPI, connection: asyncpg.Connection) -> None:
    """The whole list is sent in batches, and holds no connection while the client takes its time to read."""
    expected = await insert_records(connection, 3 * STREAM_BATCH_SIZE + 1)

    async def await_release(_: int) -> None:
        # the next batches are prefetched, whatever the client does
        await asyncio.to_thread(eventually, lambda: connections_in_use() == 0, within_seconds=2)

    messages = await stream_list(app, await_release)
    assert streamed_ids(messages) == expected
    assert len(messages) > 4
    assert max(message.get("body", b"").count(b'"unique_id"') for message in messages) <= STREAM_BATCH_SIZE


async def test_stream_under_concurrent_changes_lists_each_record_once(
    app: FastAPI, connection: asyncpg.Connection
) -> None:
    """A patient that stays is streamed exactly once, whatever is created and deleted meanwhile."""
    expected = await insert_records(connection, 2 * STREAM_BATCH_SIZE + 5)
    gone = {
        expected[0],
        expected[STREAM_BATCH_SIZE - 1],
        expected[STREAM_BATCH_SIZE],
        expected[STREAM_BATCH_SIZE + 7],
        expected[-1],
    }

    async def change(number: int) -> None:
        if number == 2:  # the first batch has been sent
            await connection.execute("DELETE FROM patients WHERE unique_id = ANY ($1)", gone)
            new = "INSERT INTO patients (unique_id, patient_last_name) SELECT 'id00' || n || 'x', 'Roe' FROM "
            await connection.execute(f"{new} generate_series(100, 999) n")

    seen = streamed_ids(await stream_list(app, change))
    assert seen == sorted(set(seen))
    assert [unique_id for unique_id in seen if not unique_id.endswith("x") and unique_id not in gone] == [
        unique_id for unique_id in expected if unique_id not in gone
    ]


async def test_stream_that_fails_midway_is_truncated_json(app: FastAPI, connection: asyncpg.Connection) -> None:
    """A failure after the response has begun leaves it incomplete, so that the server breaks the connection."""
    await insert_records(connection, (PREFETCH_BATCHES + 3) * STREAM_BATCH_SIZE)

    async def fail(number: int) -> None:
        if number == 2:
            await connection.execute("ALTER TABLE patients RENAME TO elsewhere")

    messages = await stream_list(app, fail)
    assert messages[0]["status"] == 200
    assert messages[-1]["more_body"] is True
    with pytest.raises(json.JSONDecodeError):
        json.loads(b"".join(message["body"] for message in messages[1:]))


@pytest.mark.parametrize("query", ["", "?limit=2", "?limit=5"])
@pytest.mark.parametrize("count", [0, 1, 3, STREAM_BATCH_SIZE, STREAM_BATCH_SIZE + 1])
async def test_ndjson_list_has_one_record_a_line(
    client: httpx.AsyncClient, connection: asyncpg.Connection, count: int, query: str
) -> None:
    """A client that accepts NDJSON gets the records of the array as lines, in pages too."""
    await insert_records(connection, count)
    await connection.execute("UPDATE patients SET patient_town = E'two\nlines\u2028\u0085'")
    for path in LIST_PATHS:
        array = await client.get(f"{path}{query}")
        lines = await client.get(f"{path}{query}", headers={"Accept": "application/x-ndjson"})
        assert lines.headers["Content-Type"] == "application/x-ndjson"
        assert lines.headers["Vary"] == array.headers["Vary"] == "Accept"
        assert lines.links.keys() == array.links.keys()
        assert not lines.text or lines.text.endswith("\n")
        assert [json.loads(line) for line in lines.text.split("\n")[:-1]] == array.json()
