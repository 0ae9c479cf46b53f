"""Security headers and caching headers, on every kind of response."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from app.auth.scopes import Scope
from tests.auth.issuer import Issuer
from tests.auth.support import HOSPITALS, client_for, make_key, secured_app

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
HOSPITAL_PATH = f"{HOSPITALS}hos123/"
ALLOWED_ORIGIN = "https://app.example.org"
SERVICE_SETTINGS = {
    "cors_origins": ALLOWED_ORIGIN,
    "allowed_hosts": "patients.test",
    "rate_limit": "1000/hour",
    # nothing listens there
    "oidc_issuer": "http://127.0.0.1:1",
    "oidc_audience": "patients-api",
}


def preflight_headers(origin: str) -> dict[str, str]:
    return {"Origin": origin, "Access-Control-Request-Method": "PUT"}


@pytest.fixture
async def client(database_url: str, connection: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a service with two hospitals, whose key has all scopes but those of admin and history."""
    await connection.execute("INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hos123', 'A'), ('hos456', 'B')")
    scopes = set(Scope) - {Scope.ADMIN, Scope.HISTORY_READ}
    key = await make_key(database_url, *scopes)
    async with secured_app(database_url, **SERVICE_SETTINGS) as app, client_for(app, key) as client:
        yield client


def received_headers(response: httpx.Response) -> dict[str, str]:
    """Return the security and caching headers of a response; one that is sent twice has another value."""
    return {name: response.headers.get(name, "") for name in (*SECURITY_HEADERS, "Cache-Control")}


def check_headers(response: httpx.Response, status: int, cache_control: str) -> None:
    """Check the status, the security headers and the caching of a response."""
    assert (response.status_code, received_headers(response)) == (
        status,
        {**SECURITY_HEADERS, "Cache-Control": cache_control},
    )


NO_STORE = "no-store"
PRIVATE_NO_CACHE = "private, no-cache"
"""The client's own cache may keep the response, but has to revalidate it each time."""

RESPONSE_CASES: dict[str, tuple[str, str, dict[str, str], Any, int, str]] = {
    "a list": ("GET", HOSPITALS, {}, None, 200, NO_STORE),
    "a page": ("GET", f"{HOSPITALS}?limit=1", {}, None, 200, NO_STORE),
    "a record": ("GET", HOSPITAL_PATH, {}, None, 200, PRIVATE_NO_CACHE),
    "its head": ("HEAD", HOSPITAL_PATH, {}, None, 200, PRIVATE_NO_CACHE),
    "head of a list": ("HEAD", HOSPITALS, {}, None, 200, NO_STORE),
    "created": ("POST", HOSPITALS, {}, {"hospital_name": "New"}, 201, PRIVATE_NO_CACHE),
    "changed": ("PUT", HOSPITAL_PATH, {}, {"hospital_name": "New"}, 200, PRIVATE_NO_CACHE),
    "deleted": ("DELETE", f"{HOSPITALS}hos456/", {}, None, 204, NO_STORE),
    "lives": ("GET", "/livez", {}, None, 204, NO_STORE),
    "not JSON": ("POST", HOSPITALS, {"Content-Type": "application/json"}, "{", 400, NO_STORE),
    "credentials": ("GET", HOSPITALS, {"Authorization": "Bearer papi_wrong"}, None, 401, NO_STORE),
    "scope": ("GET", f"{HOSPITAL_PATH}history/", {}, None, 403, NO_STORE),
    "no record": ("GET", f"{HOSPITALS}none/", {}, None, 404, NO_STORE),
    "no path": ("GET", "/nothing", {}, None, 404, NO_STORE),
    "method": ("POST", HOSPITAL_PATH, {}, {}, 405, NO_STORE),
    "taken": ("POST", HOSPITALS, {}, {"unique_id": "hos123", "hospital_name": "New"}, 409, NO_STORE),
    "precondition": ("PUT", HOSPITAL_PATH, {"If-Match": '"other"'}, {"hospital_name": "New"}, 412, NO_STORE),
    "too large": ("POST", HOSPITALS, {"Content-Length": "9999999"}, {}, 413, NO_STORE),
    "media type": ("POST", HOSPITALS, {"Content-Type": "text/xml"}, "<a/>", 415, NO_STORE),
    "fields": ("POST", HOSPITALS, {}, {}, 422, NO_STORE),
    "host": ("GET", HOSPITALS, {"Host": "evil.example"}, None, 400, NO_STORE),
    "preflight": ("OPTIONS", HOSPITALS, preflight_headers(ALLOWED_ORIGIN), None, 200, NO_STORE),
    "refused preflight": ("OPTIONS", HOSPITALS, preflight_headers("https://evil.example"), None, 400, NO_STORE),
    "another origin's": ("GET", HOSPITAL_PATH, {"Origin": ALLOWED_ORIGIN}, None, 200, PRIVATE_NO_CACHE),
    "document": ("GET", "/openapi.json", {}, None, 200, NO_STORE),
    "first page": ("GET", "/", {}, None, 307, NO_STORE),
    "asset": ("GET", "/docs/assets/swagger-ui.css", {}, None, 200, NO_STORE),
    "no asset": ("GET", "/docs/assets/nothing", {}, None, 404, NO_STORE),
}


async def test_every_kind_of_response_has_security_headers(client: httpx.AsyncClient) -> None:
    """Responses of routes, of the framework, and of the middleware before both have the headers."""
    got = {}
    for case, (method, path, headers, body, *_) in RESPONSE_CASES.items():
        sent = {"content": body} if isinstance(body, str) else {"json": body}
        response = await client.request(method, path, headers=headers, **sent)
        got[case] = (response.status_code, received_headers(response))
    assert got == {
        case: (status, {**SECURITY_HEADERS, "Cache-Control": cached})
        for case, (*_, status, cached) in RESPONSE_CASES.items()
    }


async def test_not_modified_response_has_security_headers(client: httpx.AsyncClient) -> None:
    """A 304 has the headers."""
    tag = (await client.get(HOSPITAL_PATH)).headers["ETag"]
    check_headers(await client.get(HOSPITAL_PATH, headers={"If-None-Match": tag}), 304, PRIVATE_NO_CACHE)


async def test_docs_page_has_a_strict_content_security_policy(client: httpx.AsyncClient) -> None:
    """/docs runs only its own scripts, in no frame, and its other headers are as everywhere."""
    response = await client.get("/docs")
    policy = response.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert not any("unsafe" in part or "*" in part for part in policy)
    response.headers["Content-Security-Policy"] = SECURITY_HEADERS["Content-Security-Policy"]
    check_headers(response, 200, NO_STORE)


async def test_server_errors_have_security_headers(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A 500 for a missing table and a 503 for an unreachable identity provider have the headers."""
    await connection.execute("ALTER TABLE hospitals RENAME TO hidden")
    check_headers(await client.get(HOSPITAL_PATH), 500, NO_STORE)
    token = Issuer().token()
    check_headers(await client.get(HOSPITALS, headers={"Authorization": f"Bearer {token}"}), 503, NO_STORE)


async def test_rate_limited_response_has_security_headers(database_url: str) -> None:
    """A 429 has the headers."""
    key = await make_key(database_url, Scope.DIRECTORY_READ)
    async with secured_app(database_url, rate_limit="1/hour") as app, client_for(app, key) as client:
        check_headers(await client.get(HOSPITALS), 200, NO_STORE)
        check_headers(await client.get(HOSPITALS), 429, NO_STORE)
