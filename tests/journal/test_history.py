"""The history of a record: newest first, paged or whole, also for deleted records."""

import asyncio
import base64
from itertools import chain, pairwise
from typing import Any

import asyncpg
import httpx
import pytest

from app.api.list_source import STREAM_BATCH_SIZE
from app.fields.history import HistoryEntry
from app.main import create_app
from app.settings import Settings
from tests.support import RESOURCE_EXAMPLES, ResourceExample

PATIENTS = "/patients/patients/"
PATIENT_PATH = f"{PATIENTS}own/"
HISTORY_PATH = f"{PATIENT_PATH}history/"


def versions_on_page(response: httpx.Response) -> list[int]:
    """Return the versions on a page, and check each entry against the OpenAPI document's model."""
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/json"
    return [HistoryEntry.model_validate(entry).version for entry in response.json()]


async def versions_by_page(client: httpx.AsyncClient, url: str) -> list[list[int]]:
    """Return the versions of all pages, following the links."""
    pages = []
    while url:
        response = await client.get(url)
        pages.append(versions_on_page(response))
        url = response.links.get("next", {}).get("url", "")
    return pages


async def create_versions(client: httpx.AsyncClient, kind: ResourceExample, count: int) -> None:
    """Create the record `own` and change it until it has `count` versions."""
    assert (await client.post(kind.path, json=kind.create_body)).status_code == 201
    for number in range(count - 1):
        assert (
            await client.put(kind.record_path, json=kind.minimal_body if number % 2 else kind.update_body)
        ).status_code == 200


def error_locations(response: httpx.Response) -> list[list[str | int]]:
    """Return the locations of the errors in a 422."""
    assert response.status_code == 422, response.text
    return [error["loc"] for error in response.json()["errors"]]


def encode_cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


async def test_history_is_newest_first_in_pages_or_whole(client: httpx.AsyncClient) -> None:
    """Without parameters the history is whole, and with a limit the links lead through all of it."""
    for kind in RESOURCE_EXAMPLES:
        await create_versions(client, kind, 7)
        history = f"{kind.record_path}history/"
        whole = await client.get(history)
        assert versions_on_page(whole) == [7, 6, 5, 4, 3, 2, 1]
        assert "Link" not in whole.headers
        assert await versions_by_page(client, f"{history}?limit=3") == [[7, 6, 5], [4, 3, 2], [1]]
        assert await versions_by_page(client, f"{history}?limit=7") == [[7, 6, 5, 4, 3, 2, 1]]
        assert await versions_by_page(client, f"{history.removesuffix('/')}?limit=1") == [
            [7],
            [6],
            [5],
            [4],
            [3],
            [2],
            [1],
        ]
        next_page = (await client.get(f"{history}?limit=2")).links["next"]["url"]
        assert next_page.startswith(f"{history}?limit=2&cursor=")
        assert (await client.get(next_page)).json() == whole.json()[2:4]


async def test_new_versions_do_not_move_pages(client: httpx.AsyncClient) -> None:
    """A change between two page requests neither repeats nor skips an entry on the later page."""
    await create_versions(client, RESOURCE_EXAMPLES[0], 4)
    first = await client.get(f"{HISTORY_PATH}?limit=2")
    await client.put(PATIENT_PATH, json={"patient_title": "Dr."})
    assert versions_on_page(await client.get(first.links["next"]["url"])) == [2, 1]


async def test_long_history_is_streamed_whole(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Without a limit every entry is sent, whether or not their number is a multiple of the batch size."""
    for count in (STREAM_BATCH_SIZE, 2 * STREAM_BATCH_SIZE + 1):
        await connection.execute(
            "INSERT INTO journal (resource, unique_id, version, action, actor, record)"
            " SELECT 'patients', $1, n, 'updated', 'me', '{}' FROM generate_series(1, $2) n",
            f"pat{count}",
            count,
        )
        response = await client.get(f"{PATIENTS}pat{count}/history/")
        assert versions_on_page(response) == list(range(count, 0, -1))
        assert "Link" not in response.headers


async def test_history_of_deleted_records_is_kept(client: httpx.AsyncClient) -> None:
    """A deleted record keeps its history and versions, with the deletion as the newest entry."""
    for kind in RESOURCE_EXAMPLES:
        await create_versions(client, kind, 2)
        before = (await client.get(f"{kind.record_path}history/")).json()
        assert (await client.delete(kind.record_path)).status_code == 204
        deleted, *others = (await client.get(f"{kind.record_path}history/")).json()
        assert others == before
        assert (deleted["version"], deleted["action"], deleted["record"]) == (3, "deleted", None)
        for entry in (deleted, *others):
            response = await client.get(f"{kind.record_path}history/{entry['version']}/")
            assert (response.status_code, response.json()) == (200, entry)
            head = await client.head(f"{kind.record_path}history/{entry['version']}/")
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["ETag"] == response.headers["ETag"]


async def test_unknown_ids_and_versions_are_404(client: httpx.AsyncClient) -> None:
    """Unknown ids, ids of other resources and versions beyond the newest are 404."""
    for kind in RESOURCE_EXAMPLES:
        await create_versions(client, kind, 2)
        for other in ("none", "OWN", "own.", "%00", "a b", "a" * 65):
            for path in ("history/", "history/1/", "history/?limit=1"):
                response = await client.get(f"{kind.path}{other}/{path}")
                assert (response.status_code, response.headers["Content-Type"]) == (404, "application/problem+json"), (
                    other
                )
        for version in (3, 4, 2**53 - 2):
            assert (await client.get(f"{kind.record_path}history/{version}/")).status_code == 404
    assert (await client.post(PATIENTS, json={"unique_id": "alone", "patient_last_name": "Doe"})).status_code == 201
    for kind in RESOURCE_EXAMPLES[1:]:
        assert (await client.get(f"{kind.path}alone/history/")).status_code == 404


async def test_invalid_history_parameters_are_422(client: httpx.AsyncClient) -> None:
    """An invalid limit, cursor, parameter or version is a 422 that names its location."""
    await create_versions(client, RESOURCE_EXAMPLES[0], 3)
    for limit in ("0", "-1", "1001", "a", "1.5", ""):
        assert error_locations(await client.get(HISTORY_PATH, params={"limit": limit})) == [["query", "limit"]]
    for text in ("pat123", "-1", "1.5", "1e3", "a" * 64, "9" * 60, str(2**53), "", "\u0663"):
        assert error_locations(await client.get(HISTORY_PATH, params={"cursor": encode_cursor(text)})) == [
            ["query", "cursor"]
        ], text
    for broken in ("*", "a", "2", "A" * 201):
        assert error_locations(await client.get(HISTORY_PATH, params={"cursor": broken})) == [["query", "cursor"]], (
            broken
        )
    assert error_locations(await client.get(HISTORY_PATH, params={"order": "asc"})) == [["query", "order"]]
    for version in ("0", "-1", "a", "1.5", "9" * 30, str(2**53), "null"):
        assert error_locations(await client.get(f"{HISTORY_PATH}{version}/")) == [["path", "version"]], version


@pytest.mark.parametrize("cap", [1, 2, 3])
async def test_list_cap_limits_histories(database_url: str, client: httpx.AsyncClient, cap: int) -> None:
    """`PATIENTS_LIST_CAP` limits a history without a limit; its links lead to the rest; an explicit limit is obeyed."""
    await create_versions(client, RESOURCE_EXAMPLES[0], 3)
    app = create_app(Settings.model_validate({"database_url": database_url, "list_cap": cap}))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://patients.test") as capped,
    ):
        pages = await versions_by_page(capped, HISTORY_PATH)
        assert [len(page) for page in pages] == [[1, 1, 1], [2, 1], [3]][cap - 1]
        assert list(chain.from_iterable(pages)) == [3, 2, 1]
        assert await versions_by_page(capped, f"{HISTORY_PATH}?limit=3") == [[3, 2, 1]]


async def test_concurrent_changes_get_consecutive_versions(client: httpx.AsyncClient) -> None:
    """Concurrent changes get consecutive versions without gaps or duplicates."""
    kind = RESOURCE_EXAMPLES[0]
    await client.post(kind.path, json=kind.create_body)
    bodies: list[dict[str, Any]] = [{"patient_title": f"Title {number}"} for number in range(30)]
    responses = await asyncio.gather(*(client.put(kind.record_path, json=body) for body in bodies))
    assert {response.status_code for response in responses} == {200}
    entries = (await client.get(HISTORY_PATH)).json()
    assert [entry["version"] for entry in entries] == list(range(31, 0, -1))
    assert {entry["record"].get("patient_title") for entry in entries} == {
        None,
        *(body["patient_title"] for body in bodies),
    }
    for later, earlier in pairwise(entries):
        before, after = (entry["record"].get("patient_title") for entry in (earlier, later))
        assert later["changes"] == {"patient_title": {"from": before, "to": after}}
    by_request = {response.headers["X-Request-ID"]: response.json()["patient_title"] for response in responses}
    assert {entry["request_id"]: entry["record"]["patient_title"] for entry in entries[:-1]} == by_request
