"""Rate limits per principal and per address, trusted proxies, and allowed host names."""

from collections.abc import Callable

import asyncpg
import httpx
import pytest

from app.auth.scopes import Scope
from app.main import create_app
from app.settings import Settings
from tests.auth.support import PATIENTS, client_for, make_key, secured_app
from tests.support import ServiceProcess

TOO_MANY_REQUESTS_DETAIL = "Too many requests. Wait, then send requests more slowly."


async def get_statuses(client: httpx.AsyncClient, request_count: int) -> list[int]:
    return [(await client.get(PATIENTS)).status_code for _ in range(request_count)]


def check_too_many_requests(response: httpx.Response, window_seconds: int) -> None:
    """Check for a problem that says when to retry."""
    assert response.status_code == 429
    assert response.headers["Content-Type"] == "application/problem+json"
    assert (response.json()["title"], response.json()["detail"]) == ("Too Many Requests", TOO_MANY_REQUESTS_DETAIL)
    assert 1 <= int(response.headers["Retry-After"]) <= window_seconds
    assert response.headers["Cache-Control"] == "no-store"


async def test_each_principal_has_a_limit_of_its_own(database_url: str) -> None:
    """A principal's requests count towards one limit from every address and even if refused; others are unaffected."""
    one = await make_key(database_url, Scope.PATIENTS_READ, name="one")
    other = await make_key(database_url, Scope.DIRECTORY_READ, name="other")
    async with secured_app(database_url, rate_limit="5/hour") as app:
        async with client_for(app, one) as client:
            assert await get_statuses(client, 3) == [200] * 3
        async with client_for(app, one, address="198.51.100.7") as client:
            assert await get_statuses(client, 4) == [200, 200, 429, 429]
            check_too_many_requests(await client.get(PATIENTS), 3600)
            assert [(await client.get(path)).status_code for path in ("/readyz", "/docs")] == [204, 200]
        async with client_for(app, other) as client:
            assert await get_statuses(client, 6) == [403] * 5 + [429]


async def test_requests_pass_again_after_retry_after(database_url: str, connection: asyncpg.Connection) -> None:
    """After the delay given by Retry-After, requests succeed again."""
    key = await make_key(database_url, Scope.PATIENTS_READ)
    async with secured_app(database_url, rate_limit="1/second") as app, client_for(app, key) as client:
        responses = [await client.get(PATIENTS) for _ in range(3)]
        refused = next(response for response in responses if response.status_code == 429)
        check_too_many_requests(refused, 2)
        await connection.execute("SELECT pg_sleep($1)", int(refused.headers["Retry-After"]))
        assert await get_statuses(client, 1) == [200]


async def test_failed_authentications_are_limited_by_address(database_url: str) -> None:
    """After 30 failures a minute an address gets 429, not 401; valid keys from there and other addresses still pass."""
    key = await make_key(database_url, Scope.PATIENTS_READ)
    async with secured_app(database_url) as app:
        async with client_for(app, "papi_wrong") as client, client_for(app) as stranger:
            assert await get_statuses(client, 20) == [401] * 20
            assert await get_statuses(stranger, 11) == [401] * 10 + [429]
            assert await get_statuses(client, 1) == [429]
            check_too_many_requests(await stranger.get(PATIENTS), 60)
            assert (await stranger.get("/livez")).status_code == 204
        async with client_for(app, key) as client:
            assert await get_statuses(client, 3) == [200] * 3
        async with client_for(app, "papi_wrong", address="198.51.100.7") as client:
            assert await get_statuses(client, 1) == [401]


def test_rate_limits_are_on_by_default_unless_authentication_is_off() -> None:
    """The limit is 1200 per minute by default, and can be changed or turned off."""
    limits = {
        (auth, said): Settings.model_validate({"auth": auth, "rate_limit": said}).effective_rate_limit
        for auth in ("off", "required", None)
        for said in (None, "off", "7/second")
    }
    assert limits == {
        ("off", None): None,
        ("off", "off"): None,
        ("off", "7/second"): "7/second",
        ("required", None): "1200/minute",
        ("required", "off"): None,
        ("required", "7/second"): "7/second",
        (None, None): "1200/minute",
        (None, "off"): None,
        (None, "7/second"): "7/second",
    }


async def test_without_authentication_the_rate_limit_is_per_address(database_url: str) -> None:
    """Without authentication, a configured limit applies per address."""
    app = create_app(Settings.model_validate({"database_url": database_url, "auth": "off", "rate_limit": "2/hour"}))
    async with app.router.lifespan_context(app):
        async with client_for(app) as client:
            assert await get_statuses(client, 3) == [200, 200, 429]
        async with client_for(app, address="198.51.100.7") as client:
            assert await get_statuses(client, 1) == [200]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("api.example.org", 200),
        ("api.example.org:8443", 200),
        ("API.EXAMPLE.ORG", 200),
        ("a.clinic.example", 200),
        ("clinic.example", 400),
        ("evil.example", 400),
        ("api.example.org.evil.example", 400),
        ("127.0.0.1:8000", 400),
        ("", 400),
    ],
)
async def test_requests_for_other_host_names_are_refused(database_url: str, host: str, status: int) -> None:
    """A request for another host name gets a problem before its credentials are checked."""
    key = await make_key(database_url, Scope.PATIENTS_READ)
    hosts = "api.example.org, *.clinic.example"
    async with secured_app(database_url, allowed_hosts=hosts) as app, client_for(app, key) as client:
        response = await client.get(PATIENTS, headers={"Host": host})
        assert response.status_code == status
        if status == 400:
            assert response.json()["detail"] == "This service is not available under this host name."
            assert response.headers["Content-Type"] == "application/problem+json"
            assert (await client.get(PATIENTS, headers={"Host": host, "X-API-Key": ""})).status_code == 400


async def test_probes_accept_any_host_name(database_url: str) -> None:
    """Probes accept any host name, because health checks call 127.0.0.1 and orchestrators the container's address."""
    async with secured_app(database_url, allowed_hosts="api.example.org") as app, client_for(app) as client:
        for path, status in {"/livez": 204, "/readyz": 204, "/docs": 400, "/nothing": 400}.items():
            assert (await client.get(path, headers={"Host": "127.0.0.1:8000"})).status_code == status


@pytest.mark.parametrize(("trusted", "is_distinguished"), [("10.0.0.0/8,127.0.0.0/8", True), ("10.0.0.0/8", False)])
def test_forwarded_for_is_believed_from_trusted_proxies_only(
    serve: Callable[..., ServiceProcess],
    database_url: str,
    trusted: str,
    is_distinguished: bool,  # noqa: FBT001  # parametrized
) -> None:
    """X-Forwarded-For sets the limited address only if a trusted proxy sends it, because any client can set it."""
    served = serve(DATABASE_URL=database_url, PATIENTS_AUTH="required", PATIENTS_TRUSTED_PROXIES=trusted)
    with httpx.Client(base_url=served.url) as client:

        def status_for(address: str) -> int:
            return client.get(PATIENTS, headers={"X-Forwarded-For": address}).status_code

        assert [status_for("198.51.100.1") for _ in range(31)] == [401] * 30 + [429]
        assert status_for("198.51.100.2") == (401 if is_distinguished else 429)
        # the client's own value comes before the address that the proxy adds
        assert status_for("198.51.100.3, 198.51.100.1") == 429
