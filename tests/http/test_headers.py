"""Headers that keep browsers and caches from doing what they should not, on every kind of answer."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from app.auth.scopes import Scope
from tests.auth.issuer import Issuer
from tests.auth.support import HOSPITALS, client_of, make_key, secured

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
ONE = f"{HOSPITALS}hos123/"
ORIGIN = "https://app.example.org"
SETTINGS = {
    "cors_origins": ORIGIN,
    "allowed_hosts": "patients.test",
    "rate_limit": "1000/hour",
    # where nobody answers
    "oidc_issuer": "http://127.0.0.1:1",
    "oidc_audience": "patients-api",
}


def preflight(origin: str) -> dict[str, str]:
    return {"Origin": origin, "Access-Control-Request-Method": "PUT"}


@pytest.fixture
async def client(database_url: str, connection: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    """Of a service that has a hospital, with a key that may do all but history."""
    await connection.execute("INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hos123', 'A'), ('hos456', 'B')")
    scopes = set(Scope) - {Scope.ADMIN, Scope.HISTORY_READ}
    key = await make_key(database_url, *scopes)
    async with secured(database_url, **SETTINGS) as app, client_of(app, key) as client:
        yield client


def received(answer: httpx.Response) -> dict[str, str]:
    """What an answer has of them, and of its caching; who sends two of one has another value."""
    return {name: answer.headers.get(name, "") for name in (*SECURITY, "Cache-Control")}


def check(answer: httpx.Response, status: int, cached: str) -> None:
    """Hold one answer against what it should be."""
    assert (answer.status_code, received(answer)) == (status, {**SECURITY, "Cache-Control": cached})


NEVER = "no-store"
ASKED = "private, no-cache"
"""A cache of the client's own may keep it, but has to ask each time."""

CASES: dict[str, tuple[str, str, dict[str, str], Any, int, str]] = {
    "a list": ("GET", HOSPITALS, {}, None, 200, NEVER),
    "a page": ("GET", f"{HOSPITALS}?limit=1", {}, None, 200, NEVER),
    "a record": ("GET", ONE, {}, None, 200, ASKED),
    "its head": ("HEAD", ONE, {}, None, 200, ASKED),
    "head of a list": ("HEAD", HOSPITALS, {}, None, 200, NEVER),
    "created": ("POST", HOSPITALS, {}, {"hospital_name": "New"}, 201, ASKED),
    "changed": ("PUT", ONE, {}, {"hospital_name": "New"}, 200, ASKED),
    "deleted": ("DELETE", f"{HOSPITALS}hos456/", {}, None, 204, NEVER),
    "lives": ("GET", "/livez", {}, None, 204, NEVER),
    "not JSON": ("POST", HOSPITALS, {"Content-Type": "application/json"}, "{", 400, NEVER),
    "credentials": ("GET", HOSPITALS, {"Authorization": "Bearer papi_wrong"}, None, 401, NEVER),
    "scope": ("GET", f"{ONE}history/", {}, None, 403, NEVER),
    "no record": ("GET", f"{HOSPITALS}none/", {}, None, 404, NEVER),
    "no path": ("GET", "/nothing", {}, None, 404, NEVER),
    "method": ("POST", ONE, {}, {}, 405, NEVER),
    "taken": ("POST", HOSPITALS, {}, {"unique_id": "hos123", "hospital_name": "New"}, 409, NEVER),
    "precondition": ("PUT", ONE, {"If-Match": '"other"'}, {"hospital_name": "New"}, 412, NEVER),
    "too large": ("POST", HOSPITALS, {"Content-Length": "9999999"}, {}, 413, NEVER),
    "media type": ("POST", HOSPITALS, {"Content-Type": "text/xml"}, "<a/>", 415, NEVER),
    "fields": ("POST", HOSPITALS, {}, {}, 422, NEVER),
    "host": ("GET", HOSPITALS, {"Host": "evil.example"}, None, 400, NEVER),
    "preflight": ("OPTIONS", HOSPITALS, preflight(ORIGIN), None, 200, NEVER),
    "refused preflight": ("OPTIONS", HOSPITALS, preflight("https://evil.example"), None, 400, NEVER),
    "another origin's": ("GET", ONE, {"Origin": ORIGIN}, None, 200, ASKED),
    "document": ("GET", "/openapi.json", {}, None, 200, NEVER),
    "first page": ("GET", "/", {}, None, 307, NEVER),
    "asset": ("GET", "/docs/assets/swagger-ui.css", {}, None, 200, NEVER),
    "no asset": ("GET", "/docs/assets/nothing", {}, None, 404, NEVER),
}


async def test_every_kind_of_answer_has_them(client: httpx.AsyncClient) -> None:
    """Whoever answers: a route, the framework, or what stands before both."""
    got = {}
    for case, (method, path, headers, body, *_) in CASES.items():
        sent = {"content": body} if isinstance(body, str) else {"json": body}
        answer = await client.request(method, path, headers=headers, **sent)
        got[case] = (answer.status_code, received(answer))
    assert got == {
        case: (status, {**SECURITY, "Cache-Control": cached}) for case, (*_, status, cached) in CASES.items()
    }


async def test_what_has_not_changed_has_them(client: httpx.AsyncClient) -> None:
    """304."""
    tag = (await client.get(ONE)).headers["ETag"]
    check(await client.get(ONE, headers={"If-None-Match": tag}), 304, ASKED)


async def test_the_pages_own_policy_is_stricter_than_none(client: httpx.AsyncClient) -> None:
    """/docs runs scripts of its own, in no frame; all else is as everywhere."""
    answer = await client.get("/docs")
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert not any("unsafe" in part or "*" in part for part in policy)
    answer.headers["Content-Security-Policy"] = SECURITY["Content-Security-Policy"]
    check(answer, 200, NEVER)


async def test_errors_of_ours_have_them(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """500, as a table is gone; 503, as the identity provider is."""
    await connection.execute("ALTER TABLE hospitals RENAME TO hidden")
    check(await client.get(ONE), 500, NEVER)
    token = Issuer().token()
    check(await client.get(HOSPITALS, headers={"Authorization": f"Bearer {token}"}), 503, NEVER)


async def test_too_many_have_them(database_url: str) -> None:
    """429."""
    key = await make_key(database_url, Scope.DIRECTORY_READ)
    async with secured(database_url, rate_limit="1/hour") as app, client_of(app, key) as client:
        check(await client.get(HOSPITALS), 200, NEVER)
        check(await client.get(HOSPITALS), 429, NEVER)
