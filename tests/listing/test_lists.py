"""Lists: pages that return each record once, and the whole list as a stream."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from app.api.list_source import STREAM_BATCH_SIZE
from app.api.streaming import PREFETCH_BATCHES
from app.main import create_app
from app.settings import Settings
from tests.support import eventually

PATIENTS = "/patients/patients/"
LIST_PATHS = [PATIENTS, "/profiles/profiles/", "/hospitals/hospitals/", "/doctors/doctors/"]


async def insert_records(connection: asyncpg.Connection, count: int) -> list[str]:
    """Insert `count` records of each resource and return their ids in order."""
    await connection.execute(f"""
        CREATE TEMPORARY TABLE ids AS SELECT 'id' || lpad(n::text, 5, '0') AS id FROM generate_series(1, {count}) n;
        INSERT INTO patients (unique_id, patient_last_name) SELECT id, 'Doe' FROM ids;
        INSERT INTO profiles (unique_id) SELECT id FROM ids;
        INSERT INTO hospitals (unique_id, hospital_name) SELECT id, 'General' FROM ids;
        INSERT INTO doctors (unique_id, doctor_first_name) SELECT id, 'Ann' FROM ids;
    """)  # noqa: S608
    return [f"id{number:05}" for number in range(1, count + 1)]


def listed_ids(response: httpx.Response) -> list[str]:
    """Return the ids of a list, which is a bare array."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return [record["unique_id"] for record in response.json()]


async def walk_pages(client: httpx.AsyncClient, url: str) -> list[list[str]]:
    """Return the ids of all pages, by following the links."""
    pages = []
    while url:
        response = await client.get(url)
        pages.append(listed_ids(response))
        if "link" in response.headers:
            assert "first" in response.links
        url = response.links.get("next", {}).get("url", "")
        assert response.headers.get("next-cursor") == (httpx.URL(url).params["cursor"] if url else None)
    return pages


def flatten(pages: list[list[str]]) -> list[str]:
    """Return the ids of all pages as one list."""
    return list(chain.from_iterable(pages))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 7])
async def test_following_links_lists_each_record_once(
    client: httpx.AsyncClient, connection: asyncpg.Connection, count: int
) -> None:
    """Following the links returns each record once and in order, and every page before the last is full."""
    expected = await insert_records(connection, count)
    for path in LIST_PATHS:
        for limit in (1, 3, 1000):
            pages = await walk_pages(client, f"{path}?limit={limit}")
            assert pages == ([expected[start : start + limit] for start in range(0, count, limit)] or [[]])
        assert listed_ids(await client.get(path)) == expected


async def test_page_link_has_path_limit_and_opaque_cursor(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """The link to the next page has the path with a slash, the limit, and an opaque cursor."""
    await insert_records(connection, 3)
    for path in (PATIENTS, PATIENTS.removesuffix("/")):
        links = (await client.get(f"{path}?limit=2")).links
        assert set(links) == {"next", "first"}
        assert links["next"]["url"].startswith(f"{PATIENTS}?limit=2&cursor=")
        assert links["first"]["url"] == f"{PATIENTS}?limit=2"
    assert set((await client.get(f"{PATIENTS}?limit=3")).links) == {"first"}
    assert "link" not in (await client.get(PATIENTS)).headers


@pytest.mark.parametrize("path", [*LIST_PATHS, f"{PATIENTS}mine/history/", f"{PATIENTS}mine/access/", "/audit/"])
async def test_every_list_gives_the_cursor_of_the_next_page(
    client: httpx.AsyncClient, connection: asyncpg.Connection, path: str
) -> None:
    """`Next-Cursor` is the cursor of the link to the next page, in every list and for HEAD; the last page has none."""
    await insert_records(connection, 3)
    await client.post(PATIENTS, json={"unique_id": "mine", "patient_last_name": "Doe"})
    for name in ("Roe", "Poe"):
        await client.patch(f"{PATIENTS}mine/", json={"patient_last_name": name})
    everything = (await client.get(path, params={"limit": 1000})).json()
    assert len(everything) >= 3
    found, query = [], {"limit": "2"}
    while True:
        response = await client.get(path, params=query)
        found += response.json()
        cursor = response.headers.get("Next-Cursor")
        assert cursor == httpx.URL(response.links.get("next", {}).get("url", "")).params.get("cursor")
        assert ("Next-Cursor" in (await client.head(path, params=query)).headers) == (cursor is not None)
        if cursor is None:
            break
        query = {"limit": "2", "cursor": cursor}
    assert found == everything


async def test_cursors_are_opaque_and_bound_to_their_list(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A cursor contains neither the id nor anything else that can be read, and works only for its own list."""
    await insert_records(connection, 3)
    cursors = {}
    for path in LIST_PATHS:
        url = (await client.get(f"{path}?limit=2")).links["next"]["url"]
        cursor = cursors[path] = httpx.URL(url).params["cursor"]
        assert b"id0" not in base64.urlsafe_b64decode(cursor + "==")
    for path, cursor in cursors.items():
        for other in LIST_PATHS:
            response = await client.get(other, params={"cursor": cursor})
            assert (response.status_code == 200) == (other == path)


async def test_cursor_key_is_shared_through_the_database(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str
) -> None:
    """The key of cursors is in the database, and the key of another database does not open them."""
    await insert_records(connection, 3)
    url = (await client.get(f"{PATIENTS}?limit=2")).links["next"]["url"]
    for status in (200, 422):
        app = create_app(Settings.model_validate({"database_url": database_url, "auth": "off"}))
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://patients.test") as other:
                assert (await other.get(url)).status_code == status
        await connection.execute("UPDATE secrets SET value = sha256(value)")


@pytest.mark.parametrize("query", ["", "limit=2&"])
async def test_exact_count_is_returned_on_request(
    client: httpx.AsyncClient, connection: asyncpg.Connection, query: str
) -> None:
    """With `count=exact`, every page has the number of all records of the list."""
    await insert_records(connection, 3)
    for path in LIST_PATHS:
        response = await client.get(f"{path}?{query}count=exact")
        assert response.headers["X-Total-Count"] == "3"
        assert "X-Total-Count" not in (await client.get(f"{path}?{query}")).headers
        assert (await client.get(f"{path}?{query}count=roughly")).json()["errors"][0]["loc"] == ["query", "count"]


async def test_largest_page_has_1000_records_and_a_usable_cursor(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """The largest page has 1000 records, and its cursor works without a limit, with another limit, and after HEAD."""
    expected = await insert_records(connection, 1001)
    first = await client.get(f"{PATIENTS}?limit=1000")
    assert listed_ids(first) == expected[:1000]
    cursor = httpx.URL(first.links["next"]["url"]).params["cursor"]
    assert listed_ids(await client.get(PATIENTS, params={"cursor": cursor})) == expected[1000:]
    assert listed_ids(await client.get(PATIENTS, params={"cursor": cursor, "limit": 1})) == expected[1000:]
    head = await client.head(f"{PATIENTS}?limit=1000")
    assert listed_ids(await client.get(head.links["next"]["url"])) == expected[1000:]


async def test_cursor_outlives_its_record(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A page begins where the one before ended, even if records were deleted and created in between."""
    await insert_records(connection, 5)
    response = await client.get(f"{PATIENTS}?limit=2")
    await client.delete(f"{PATIENTS}id00002/")
    await client.post(PATIENTS, json={"unique_id": "id00001a", "patient_last_name": "Doe"})
    await client.post(PATIENTS, json={"unique_id": "id00002a", "patient_last_name": "Doe"})
    assert await walk_pages(client, response.links["next"]["url"]) == [["id00002a", "id00003"], ["id00004", "id00005"]]


@pytest.mark.parametrize("path", LIST_PATHS)
async def test_invalid_list_parameters_are_422(client: httpx.AsyncClient, path: str) -> None:
    """A limit outside 1 to 1000, a forged cursor, and a repeated or unknown parameter are 422, each at its location."""
    refused: dict[str, list[str]] = {
        "limit": ["0", "-1", "1001", "", "ten", "1.5", "1e2", "NaN", "\u0661", "9" * 5000, "1 0", "null", "\0"],
        "cursor": [
            "",
            "x",
            "id00001",
            "!!!!",
            "a" * 5000,
            "\0",
            "é",
            "YSBi",
            "AAAA",
            "_w",
            "=",
            "aWQwMDAwMQ\n!",
            "aWQ*",
        ],
    }
    for name, values in refused.items():
        for value in values:
            response = await client.get(path, params={name: value})
            assert response.status_code == 422, (name, value)
            assert response.json()["detail"] == "The request has errors."
            assert [error["loc"] for error in response.json()["errors"]] == [["query", name]]
    twice = await client.get(f"{path}?limit=1&limit=2&count=exact&count=exact")
    assert twice.status_code == 422
    assert [error["loc"] for error in twice.json()["errors"]] == [["query", "limit"], ["query", "count"]]
    for name in ("page", "offset", "Limit", "limit[]", "", "unique_id", "q"):
        response = await client.get(path, params={name: "1", "limit": "0"})
        assert response.status_code == 422
        assert len(response.json()["errors"]) == 2


async def test_tampered_cursors_are_422(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A cursor that was cut, or that got characters outside its alphabet, is a 422."""
    await insert_records(connection, 3)
    link = (await client.get(f"{PATIENTS}?limit=2")).links["next"]["url"]
    cursor = httpx.URL(link).params["cursor"]
    tampered = [
        f"!{cursor}",
        f"{cursor}****",
        f"{cursor[:4]} {cursor[4:]}",
        f"{cursor}\n",
        f"{cursor}====a",
        cursor[:-1],
    ]
    responses = {value: (await client.get(PATIENTS, params={"cursor": value})).status_code for value in tampered}
    assert responses == dict.fromkeys(tampered, 422)


@asynccontextmanager
async def capped_client(database_url: str, cap: int) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an application with a list cap."""
    app = create_app(Settings.model_validate({"database_url": database_url, "list_cap": cap}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://patients.test") as client,
    ):
        yield client


@pytest.mark.parametrize("count", [0, 3, 4, 7])
async def test_list_cap_limits_lists_without_limit(
    database_url: str, connection: asyncpg.Connection, count: int
) -> None:
    """With a cap, a list without a limit is a page of that size with a link to the rest; a limit still applies."""
    expected = await insert_records(connection, count)
    async with capped_client(database_url, 3) as client:
        for path in LIST_PATHS:
            pages = await walk_pages(client, path)
            assert pages[0] == expected[:3]
            assert flatten(pages) == expected
            assert listed_ids(await client.get(f"{path}?limit=5")) == expected[:5]


async def test_list_cap_above_the_largest_page_can_be_followed(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """The link of a capped list works even if the cap is larger than the largest limit."""
    expected = await insert_records(connection, 1502)
    async with capped_client(database_url, 1500) as client:
        first = await client.get(PATIENTS)
        assert listed_ids(first) == expected[: len(first.json())]
        assert (await client.get(first.links["next"]["url"])).status_code == 200
        assert flatten(await walk_pages(client, PATIENTS)) == expected


@pytest.mark.parametrize(
    "count",
    [
        0,
        1,
        STREAM_BATCH_SIZE - 1,
        STREAM_BATCH_SIZE,
        STREAM_BATCH_SIZE + 1,
        2 * STREAM_BATCH_SIZE,
        2 * STREAM_BATCH_SIZE + 1,
    ],
)
async def test_list_without_parameters_has_all_records(
    client: httpx.AsyncClient, connection: asyncpg.Connection, count: int
) -> None:
    """A list without parameters has all records in order, however many, in one array."""
    expected = await insert_records(connection, count)
    for path in LIST_PATHS:
        assert listed_ids(await client.get(path)) == expected


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
        await asyncio.to_thread(
            eventually, lambda: app.state.services.database.engine.pool.checkedout() == 0, within_seconds=2
        )

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
