"""Cursors are valid only for the principal that they were issued to."""

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import httpx
import pytest

from app.auth.scopes import Scope
from tests.auth.support import PATIENTS, PROFILES, client_for, make_key, secured_app

SEARCH = f"{PATIENTS}search/"
LIST_PARAMETERS = {"patient_town": "Soweto", "ordering": "patient_last_name"}
INVALID_CURSOR_MESSAGE = "Must be a cursor from the headers of an earlier page of this list"
SCOPES = (Scope.PATIENTS_READ, Scope.PROFILES_READ, Scope.HISTORY_READ, Scope.AUDIT_READ)


@pytest.fixture
async def clients(database_url: str, connection: asyncpg.Connection) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """Return clients of unrestricted principals, and of two restricted to the hospital of all patients."""
    await connection.execute(
        "INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hosA', 'A'), ('hosB', 'B');"
        "INSERT INTO patients (unique_id, patient_last_name, patient_town)"
        " SELECT 'p' || n, 'Dlamini' || n, 'Soweto' FROM generate_series(1, 5) n;"
        "INSERT INTO patient_hospitals SELECT unique_id, 'hosA' FROM patients;"
        "INSERT INTO profiles (unique_id) SELECT unique_id FROM patients;"
        "INSERT INTO journal (resource, unique_id, version, action, actor, record)"
        " SELECT 'patients', unique_id, n, 'updated', 'me', '{}' FROM patients, generate_series(2, 4) n;"
        "INSERT INTO audit (principal, method, route, status, resource, ids)"
        " SELECT 'me', 'GET', '/', 200, 'patients', '{p1}' FROM generate_series(1, 3)"
    )
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(secured_app(database_url, rate_limit="off"))

        async def client(name: str, hospitals: list[str] | None) -> httpx.AsyncClient:
            key = await make_key(database_url, *SCOPES, name=name, hospitals=hospitals)
            return await stack.enter_async_context(client_for(app, key))

        limits: dict[str, list[str] | None] = {"one": None, "other": None, "a": ["hosA"], "a2": ["hosA"]}
        yield {name: await client(name, hospitals) for name, hospitals in limits.items()}


def refusal_details(response: httpx.Response) -> tuple[int, Any]:
    """Return the content of a refusal that does not depend on the request id."""
    body = response.json()
    return response.status_code, {name: body[name] for name in ("type", "title", "detail", "errors")}


async def second_page_cursor(client: httpx.AsyncClient, path: str = PATIENTS, **parameters: str) -> str:
    """Return the cursor of a list's second page."""
    page = await client.get(path, params={**parameters, "limit": 2})
    return str(httpx.URL(page.links["next"]["url"]).params["cursor"])


@pytest.mark.parametrize(("maker", "thief"), [("one", "other"), ("one", "a"), ("a", "one"), ("a", "a2")])
async def test_a_stolen_cursor_is_no_cursor(clients: dict[str, httpx.AsyncClient], maker: str, thief: str) -> None:
    """Another principal's cursor gets the same response as random text, whether the filter is right or wrong."""
    stolen = await second_page_cursor(clients[maker], **LIST_PARAMETERS)
    assert (await clients[maker].get(PATIENTS, params={"cursor": stolen})).status_code == 200
    made_up = base64.urlsafe_b64encode(bytes(len(stolen) * 3 // 4)).decode().rstrip("=")
    guesses: list[dict[str, str]] = [
        {},
        LIST_PARAMETERS,
        {"patient_town": "Soweto"},
        {"patient_town": "Durban"},
        {"ordering": "-patient_last_name"},
        {"search": "dlamini"},
        {"date_created__gte": "2020-01-01"},
    ]
    for guess in guesses:
        for responses in (
            [await clients[thief].get(PATIENTS, params={**guess, "cursor": cursor}) for cursor in (stolen, made_up)],
            [await clients[thief].post(SEARCH, json={**guess, "cursor": cursor}) for cursor in (stolen, made_up)],
        ):
            with_stolen, with_made_up = map(refusal_details, responses)
            assert with_stolen == with_made_up
            assert with_stolen[0] == 422
            assert [error["msg"] for error in with_stolen[1]["errors"]] == [INVALID_CURSOR_MESSAGE]


@pytest.mark.parametrize("path", [PROFILES, f"{PATIENTS}p1/history/", f"{PATIENTS}p1/access/", "/audit/"])
async def test_cursors_of_every_list_are_bound_to_their_principal(
    clients: dict[str, httpx.AsyncClient], path: str
) -> None:
    """Cursors of profiles, histories and audit lists are bound to their principal too."""
    stolen = await second_page_cursor(clients["one"], path)
    assert (await clients["one"].get(path, params={"cursor": stolen})).status_code == 200
    assert (await clients["other"].get(path, params={"cursor": stolen})).status_code == 422


async def test_a_cursor_is_invalid_after_its_principals_hospitals_change(
    database_url: str, clients: dict[str, httpx.AsyncClient], connection: asyncpg.Connection
) -> None:
    """A cursor becomes invalid when its principal's hospitals change, because its position may be out of scope now."""
    cursor = await second_page_cursor(clients["a"], **LIST_PARAMETERS)
    await connection.execute("UPDATE api_keys SET hospitals = ARRAY['hosB'] WHERE name = 'a'")
    async with secured_app(database_url, rate_limit="off") as app:
        key = clients["a"].headers["Authorization"].removeprefix("Bearer ")
        async with client_for(app, key) as moved:
            assert (await moved.get(PATIENTS, params={"cursor": cursor})).status_code == 422


async def test_equal_pages_have_different_cursors(clients: dict[str, httpx.AsyncClient]) -> None:
    """Equal pages get different bytes as their cursors, so neither position nor filter can be recognized."""
    sealed = [
        base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        for cursor in [
            await second_page_cursor(clients[name], **LIST_PARAMETERS)
            for name in ("one", "one", "other", "a")
            for _ in "12"
        ]
    ]
    assert len({len(each) for each in sealed}) == 1
    for place, each in enumerate(sealed):
        for other in sealed[place + 1 :]:
            alike = sum(one == two for one, two in zip(each, other, strict=True))
            assert alike < len(each) // 8, "random bytes agree in one of 256 positions"


async def test_spliced_or_truncated_cursors_are_refused(clients: dict[str, httpx.AsyncClient]) -> None:
    """Cursors with exchanged nonces, or shortened ones, are refused."""
    one, two = [
        base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        for cursor in (
            await second_page_cursor(clients["one"], **LIST_PARAMETERS),
            await second_page_cursor(clients["one"]),
        )
    ]
    for forged in (one[:16] + two[16:], two[:16] + one[16:], one[16:], one[:16], one[:17], one[:-1], b"", bytes(16)):
        cursor = base64.urlsafe_b64encode(forged).decode().rstrip("=")
        assert (await clients["one"].get(PATIENTS, params={"cursor": cursor})).status_code == 422
