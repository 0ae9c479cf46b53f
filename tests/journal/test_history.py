"""The history of a record: newest first, in pages or whole, of deleted records too."""

import asyncio
import base64
from itertools import chain, pairwise
from typing import Any

import asyncpg
import httpx
import pytest

from app.journal.schemas import Entry
from app.main import create_app
from app.resource.pages import BATCH
from app.settings import Settings
from tests.support import KINDS, Kind

PATIENTS = "/patients/patients/"
ONE = f"{PATIENTS}own/"
HISTORY = f"{ONE}history/"


def versions(answer: httpx.Response) -> list[int]:
    """The versions of a page of entries, each of which is as the OpenAPI document says."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    return [Entry.model_validate(entry).version for entry in answer.json()]


async def walk(client: httpx.AsyncClient, url: str) -> list[list[int]]:
    """The versions of all pages, by following the links."""
    pages = []
    while url:
        answer = await client.get(url)
        pages.append(versions(answer))
        url = answer.links.get("next", {}).get("url", "")
    return pages


async def changes(client: httpx.AsyncClient, kind: Kind, count: int) -> None:
    """Create the record `own` and change it until it has so many versions."""
    assert (await client.post(kind.path, json=kind.own)).status_code == 201
    for number in range(count - 1):
        assert (await client.put(kind.one, json=kind.least if number % 2 else kind.change)).status_code == 200


def places(answer: httpx.Response) -> list[list[str | int]]:
    """Where the errors of a 422 are."""
    assert answer.status_code == 422, answer.text
    return [error["loc"] for error in answer.json()["errors"]]


def cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


async def test_newest_first_in_pages_or_whole(client: httpx.AsyncClient) -> None:
    """The history is whole without parameters; with a limit, links lead through all of it, and end."""
    for kind in KINDS:
        await changes(client, kind, 7)
        history = f"{kind.one}history/"
        whole = await client.get(history)
        assert versions(whole) == [7, 6, 5, 4, 3, 2, 1]
        assert "Link" not in whole.headers
        assert await walk(client, f"{history}?limit=3") == [[7, 6, 5], [4, 3, 2], [1]]
        assert await walk(client, f"{history}?limit=7") == [[7, 6, 5, 4, 3, 2, 1]]
        assert await walk(client, f"{history.removesuffix('/')}?limit=1") == [[7], [6], [5], [4], [3], [2], [1]]
        next_page = (await client.get(f"{history}?limit=2")).links["next"]["url"]
        assert next_page.startswith(f"{history}?limit=2&cursor=")
        assert (await client.get(next_page)).json() == whole.json()[2:4]


async def test_new_versions_do_not_move_pages(client: httpx.AsyncClient) -> None:
    """A change between two pages neither repeats nor leaves out an entry of the later one."""
    await changes(client, KINDS[0], 4)
    first = await client.get(f"{HISTORY}?limit=2")
    await client.put(ONE, json={"patient_title": "Dr."})
    assert versions(await client.get(first.links["next"]["url"])) == [2, 1]


async def test_long_history_is_streamed_whole(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Without a limit every entry comes, however many: as many as fit the batches that are read, and others."""
    for count in (BATCH, 2 * BATCH + 1):
        await connection.execute(
            "INSERT INTO journal (resource, unique_id, version, action, actor, record)"
            " SELECT 'patients', $1, n, 'updated', 'me', '{}' FROM generate_series(1, $2) n",
            f"pat{count}",
            count,
        )
        answer = await client.get(f"{PATIENTS}pat{count}/history/")
        assert versions(answer) == list(range(count, 0, -1))
        assert "Link" not in answer.headers


async def test_history_of_what_was_deleted(client: httpx.AsyncClient) -> None:
    """A deleted record's history stays, with the deletion in it, as do its versions."""
    for kind in KINDS:
        await changes(client, kind, 2)
        before = (await client.get(f"{kind.one}history/")).json()
        assert (await client.delete(kind.one)).status_code == 204
        deleted, *others = (await client.get(f"{kind.one}history/")).json()
        assert others == before
        assert (deleted["version"], deleted["action"], deleted["record"]) == (3, "deleted", None)
        for entry in (deleted, *others):
            answer = await client.get(f"{kind.one}history/{entry['version']}/")
            assert (answer.status_code, answer.json()) == (200, entry)
            head = await client.head(f"{kind.one}history/{entry['version']}/")
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["ETag"] == answer.headers["ETag"]


async def test_what_was_never_there(client: httpx.AsyncClient) -> None:
    """An id never used has no history, and no version beyond the newest is there; nor is one of another resource."""
    for kind in KINDS:
        await changes(client, kind, 2)
        for other in ("none", "OWN", "own.", "%00", "a b", "a" * 65):
            for path in ("history/", "history/1/", "history/?limit=1"):
                answer = await client.get(f"{kind.path}{other}/{path}")
                assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json"), other
        for version in (3, 4, 2**53 - 2):
            assert (await client.get(f"{kind.one}history/{version}/")).status_code == 404
    assert (await client.post(PATIENTS, json={"unique_id": "alone", "patient_last_name": "Doe"})).status_code == 201
    for kind in KINDS[1:]:
        assert (await client.get(f"{kind.path}alone/history/")).status_code == 404


async def test_unusable_parameters(client: httpx.AsyncClient) -> None:
    """A limit, cursor or version that cannot be is a 422 at its place; so is a cursor of another list."""
    await changes(client, KINDS[0], 3)
    for limit in ("0", "-1", "1001", "a", "1.5", ""):
        assert places(await client.get(HISTORY, params={"limit": limit})) == [["query", "limit"]]
    for text in ("pat123", "-1", "1.5", "1e3", "a" * 64, "9" * 60, str(2**53), "", "\u0663"):
        assert places(await client.get(HISTORY, params={"cursor": cursor(text)})) == [["query", "cursor"]], text
    for broken in ("*", "a", "2", "A" * 201):
        assert places(await client.get(HISTORY, params={"cursor": broken})) == [["query", "cursor"]], broken
    assert places(await client.get(HISTORY, params={"order": "asc"})) == [["query", "order"]]
    for version in ("0", "-1", "a", "1.5", "9" * 30, str(2**53), "null"):
        assert places(await client.get(f"{HISTORY}{version}/")) == [["path", "version"]], version


@pytest.mark.parametrize("cap", [1, 2, 3])
async def test_operators_cap(database_url: str, client: httpx.AsyncClient, cap: int) -> None:
    """`PATIENTS_LIST_CAP` bounds a history without limit too; its links lead to the rest, and a limit is obeyed."""
    await changes(client, KINDS[0], 3)
    app = create_app(Settings.model_validate({"database_url": database_url, "list_cap": cap}))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://patients.test") as capped,
    ):
        pages = await walk(capped, HISTORY)
        assert [len(page) for page in pages] == [[1, 1, 1], [2, 1], [3]][cap - 1]
        assert list(chain.from_iterable(pages)) == [3, 2, 1]
        assert await walk(capped, f"{HISTORY}?limit=3") == [[3, 2, 1]]


async def test_versions_of_concurrent_changes(client: httpx.AsyncClient) -> None:
    """Changes at the same moment are versions one after the other: none is missing, none is there twice."""
    kind = KINDS[0]
    await client.post(kind.path, json=kind.own)
    bodies: list[dict[str, Any]] = [{"patient_title": f"Title {number}"} for number in range(30)]
    answers = await asyncio.gather(*(client.put(kind.one, json=body) for body in bodies))
    assert {answer.status_code for answer in answers} == {200}
    entries = (await client.get(HISTORY)).json()
    assert [entry["version"] for entry in entries] == list(range(31, 0, -1))
    assert {entry["record"].get("patient_title") for entry in entries} == {
        None,
        *(body["patient_title"] for body in bodies),
    }
    for later, earlier in pairwise(entries):
        before, after = (entry["record"].get("patient_title") for entry in (earlier, later))
        assert later["changes"] == {"patient_title": {"from": before, "to": after}}
    by_request = {answer.headers["X-Request-ID"]: answer.json()["patient_title"] for answer in answers}
    assert {entry["request_id"]: entry["record"]["patient_title"] for entry in entries[:-1]} == by_request
