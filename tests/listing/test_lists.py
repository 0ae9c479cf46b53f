"""Lists: pages that return each record once, their links, cursors and counts."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain

import asyncpg
import httpx
import pytest

from app.api.list_source import STREAM_BATCH_SIZE
from app.main import create_app
from app.settings import Settings
from tests.listing.support import LIST_PATHS, PATIENTS, insert_records, listed_ids


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
    for name in ("page", "offset", "Limit", "limit[]", "", "id", "q"):
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


@pytest.mark.parametrize("path", LIST_PATHS)
async def test_up_to_100_records_can_be_listed_by_id(
    client: httpx.AsyncClient, connection: asyncpg.Connection, path: str
) -> None:
    """`unique_id` lists up to 100 records by their ids, and one more is a 422."""
    expected = await insert_records(connection, 101)
    assert listed_ids(await client.get(path, params={"unique_id": expected[:100]})) == expected[:100]
    pages = await walk_pages(client, f"{path}?limit=2&unique_id={'&unique_id='.join(expected[7:10])}")
    assert pages == [expected[7:9], expected[9:10]]
    refused = await client.get(path, params={"unique_id": expected})
    assert refused.status_code == 422
    assert [error["loc"] for error in refused.json()["errors"]] == [["query", "unique_id"]]


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
