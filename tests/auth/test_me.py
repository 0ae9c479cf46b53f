"""`/me/`: what the service says about the credentials of a request."""

import asyncpg
import httpx
import pytest

from app.auth.schemas import CurrentPrincipal
from app.auth.scopes import Scope
from tests.auth.issuer import AUDIENCE, Issuer, run_issuer
from tests.auth.support import PATIENTS, client_for, make_key, secured_app

ME = "/me/"


def described(response: httpx.Response) -> tuple[str, list[str], list[str] | None]:
    """Return name, scopes and hospitals, after checking the response against its schema."""
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    body = response.json()
    assert CurrentPrincipal.model_validate(body).model_dump() == body
    assert list(body) == ["name", "scopes", "hospitals"]
    return body["name"], body["scopes"], body["hospitals"]


@pytest.mark.parametrize(
    ("scopes", "hospitals", "effective"),
    [
        ([Scope.METRICS_READ], None, ["metrics:read"]),
        (
            [Scope.PROFILES_READ, Scope.PATIENTS_WRITE, Scope.PATIENTS_READ],
            ["hos789", "hos123"],
            ["patients:read", "patients:write", "profiles:read"],
        ),
        ([Scope.ADMIN], None, list(Scope)),
        ([Scope.AUDIT_READ, Scope.ADMIN], ["hos123"], list(Scope)),
    ],
)
async def test_a_key_learns_its_name_scopes_and_hospitals(
    database_url: str,
    connection: asyncpg.Connection,
    scopes: list[Scope],
    hospitals: list[str] | None,
    effective: list[str],
) -> None:
    """A key learns its name, the scopes that it has or that `admin` implies, in one order, and its hospitals."""
    for unique_id in hospitals or ():
        await connection.execute("INSERT INTO hospitals (unique_id, hospital_name) VALUES ($1, 'General')", unique_id)
    key = await make_key(database_url, *scopes, name="front-desk", hospitals=hospitals)
    async with secured_app(database_url) as app, client_for(app, key) as client:
        expected = ("key:front-desk", effective, sorted(hospitals) if hospitals else None)
        assert described(await client.get(ME)) == expected
        assert described(await client.get("/me")) == expected
        for path in (ME, "/me"):
            head = await client.head(path)
            assert (head.status_code, head.content) == (200, b"")
        assert (await client.get("/me/other/")).status_code == 404
        refused = await client.post(ME)
        assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")


async def test_a_person_learns_what_the_token_grants(database_url: str) -> None:
    """A person learns what the service makes of the claims, even if it makes nothing of them."""
    issuer = Issuer()
    people: list[tuple[dict[str, str], list[str], list[str]]] = [
        (
            {"scope": "profile history:read patients:read", "clinics": "hos456 hos123"},
            ["patients:read", "history:read"],
            ["hos123", "hos456"],
        ),
        ({"scope": "profile"}, [], []),
    ]
    with run_issuer(issuer):
        settings = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE, "oidc_hospitals_claim": "clinics"}
        async with secured_app(database_url, **settings) as app:
            for claims, scopes, hospitals in people:
                async with client_for(app, issuer.token(**claims)) as client:
                    assert described(await client.get(ME)) == ("oidc:alice", scopes, hospitals)


async def test_without_authentication_the_name_is_local(client: httpx.AsyncClient) -> None:
    """Without authentication, the name is `local`, which no key or person has, and everything is permitted."""
    assert described(await client.get(ME)) == ("local", list(Scope), None)
    assert (await client.get(ME, headers={"X-API-Key": "anything"})).json()["name"] == "local"


async def test_the_request_is_limited_and_not_audited(database_url: str, connection: asyncpg.Connection) -> None:
    """The request counts towards the rate limit, and is not audited whether it is served or refused."""
    key = await make_key(database_url, Scope.DIRECTORY_READ)
    async with secured_app(database_url, rate_limit="3/hour") as app:
        async with client_for(app, key) as client:
            statuses = [(await client.get(path)).status_code for path in (ME, PATIENTS, ME, ME)]
            assert statuses == [200, 403, 200, 429]
        async with client_for(app) as client:
            refused = await client.get(ME)
            assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, 'Bearer realm="patients-api"')
    assert [row["route"] for row in await connection.fetch("SELECT route FROM audit")] == [PATIENTS]
