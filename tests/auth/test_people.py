"""A person, an identity provider and the service, each a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import pytest

from app.auth.scopes import Scope
from tests.auth.support import HOSPITALS, PATIENTS, make_key
from tests.conftest import free_port
from tests.support import Served, eventually

CLIENT = "patients-frontend"


@pytest.fixture
def provider() -> Iterator[str]:
    """The issuer's URL."""
    port = free_port()
    url = f"http://localhost:{port}"

    def answers() -> bool:
        assert process.poll() is None
        try:
            return httpx.get(f"{url}/.well-known/openid-configuration").is_success
        except httpx.TransportError:
            return False

    command = [sys.executable, "-W", "ignore", "-m", "tests.auth.provider", str(port)]
    with subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(answers, within=30)
            yield url
        finally:
            process.kill()


def log_in(provider: str, person: str, **claims: object) -> str:
    """Come by a token as a frontend does: the authorization code flow."""
    assert httpx.put(f"{provider}/users/{person}", json=claims).is_success
    back = "http://localhost/back"
    asked = {"client_id": CLIENT, "redirect_uri": back, "response_type": "code", "scope": "openid"}
    sent = httpx.post(f"{provider}/oauth2/authorize", params=asked, data={"sub": person})
    (code,) = parse_qs(urlsplit(sent.headers["Location"]).query)["code"]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": back}
    token: str = httpx.post(f"{provider}/oauth2/token", data=form, auth=(CLIENT, "any")).json()["id_token"]
    return token


async def test_a_person_works_and_no_credentials_are_logged(
    serve: Callable[..., Served],
    database_url: str,
    connection: asyncpg.Connection,
    provider: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Logged in at the provider, people do what their claims say; the journal has their names, the log no token."""
    key = await make_key(database_url, Scope.DIRECTORY_READ)
    settings = {"DATABASE_URL": database_url, "PATIENTS_OIDC_ISSUER": provider, "PATIENTS_OIDC_AUDIENCE": CLIENT}
    served = serve(PATIENTS_AUTH="required", **settings)
    alice = log_in(provider, "alice", scope="patients:read patients:write")
    bob = log_in(provider, "bob", scope=["directory:write"])
    forged = f"{alice[:-8]}{'A' * 8}"
    with httpx.Client(base_url=served.url) as client:

        def ask(method: str, path: str, token: str, body: object = None) -> int:
            return client.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"}).status_code

        assert ask("POST", PATIENTS, alice, {"patient_last_name": "Doe"}) == 201
        assert ask("GET", PATIENTS, alice) == 200
        assert ask("POST", HOSPITALS, alice, {"hospital_name": "General"}) == 403
        assert ask("POST", HOSPITALS, bob, {"hospital_name": "General"}) == 201
        assert ask("GET", PATIENTS, bob) == 403
        assert ask("GET", HOSPITALS, key) == 200
        assert ask("GET", PATIENTS, forged) == 401
        assert ask("GET", HOSPITALS, f"{key}x") == 401
    actors = await connection.fetch("SELECT actor FROM journal ORDER BY time")
    assert [row["actor"] for row in actors] == ["oidc:alice", "oidc:bob"]
    served.process.terminate()
    served.process.wait(20)
    written = "".join(served.lines) + capfd.readouterr().err
    assert {"event": "token refused", "reason": "InvalidSignatureError"}.items() <= refusal(served).items()
    for credentials in (key, alice, bob, forged):
        for part in credentials.removeprefix("papi_").split("."):
            assert part[:20] not in written


def refusal(served: Served) -> dict[str, object]:
    (line,) = (line for line in served.log() if line["event"] == "token refused")
    return line
