"""A user, an identity provider and the service, each in its own process."""

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
from tests.processes import free_port
from tests.support import ServiceProcess, eventually

CLIENT_ID = "patients-frontend"


@pytest.fixture
def provider_url() -> Iterator[str]:
    """Run the provider and return the issuer's URL."""
    port = free_port()
    url = f"http://localhost:{port}"

    def is_ready() -> bool:
        assert process.poll() is None
        try:
            return httpx.get(f"{url}/.well-known/openid-configuration").is_success
        except httpx.TransportError:
            return False

    command = [sys.executable, "-W", "ignore", "-m", "tests.auth.provider", str(port)]
    with subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(is_ready, within_seconds=30)
            yield url
        finally:
            process.kill()


def log_in(provider_url: str, person: str, **claims: object) -> str:
    """Obtain a token as a frontend does, by the authorization code flow."""
    assert httpx.put(f"{provider_url}/users/{person}", json=claims).is_success
    redirect_uri = "http://localhost/back"
    authorization_parameters = {
        "client_id": CLIENT_ID,
        "redirect_uri": redirect_uri,
        "response_type": "code",
        "scope": "openid",
    }
    sent = httpx.post(f"{provider_url}/oauth2/authorize", params=authorization_parameters, data={"sub": person})
    (code,) = parse_qs(urlsplit(sent.headers["Location"]).query)["code"]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
    token: str = httpx.post(f"{provider_url}/oauth2/token", data=form, auth=(CLIENT_ID, "any")).json()["id_token"]
    return token


async def test_oidc_users_are_authorized_and_no_credentials_are_logged(
    serve: Callable[..., ServiceProcess],
    database_url: str,
    connection: asyncpg.Connection,
    provider_url: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Logged-in users may do what their claims allow, the journal names them, and no credentials are logged."""
    key = await make_key(database_url, Scope.DIRECTORY_READ)
    settings = {"DATABASE_URL": database_url, "PATIENTS_OIDC_ISSUER": provider_url, "PATIENTS_OIDC_AUDIENCE": CLIENT_ID}
    served = serve(PATIENTS_AUTH="required", **settings)
    alice = log_in(provider_url, "alice", scope="patients:read patients:write")
    bob = log_in(provider_url, "bob", scope=["directory:write"])
    forged = f"{alice[:-8]}{'A' * 8}"
    with httpx.Client(base_url=served.url) as client:

        def status_for(method: str, path: str, token: str, body: object = None) -> int:
            return client.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"}).status_code

        assert status_for("POST", PATIENTS, alice, {"patient_last_name": "Doe"}) == 201
        assert status_for("GET", PATIENTS, alice) == 200
        assert status_for("POST", HOSPITALS, alice, {"hospital_name": "General"}) == 403
        assert status_for("POST", HOSPITALS, bob, {"hospital_name": "General"}) == 201
        assert status_for("GET", PATIENTS, bob) == 403
        assert status_for("GET", HOSPITALS, key) == 200
        assert status_for("GET", PATIENTS, forged) == 401
        assert status_for("GET", HOSPITALS, f"{key}x") == 401
    actors = await connection.fetch("SELECT actor FROM journal ORDER BY time")
    assert [row["actor"] for row in actors] == ["oidc:alice", "oidc:bob"]
    served.process.terminate()
    served.process.wait(20)
    written = "".join(served.stdout_lines) + capfd.readouterr().err
    assert {"event": "token refused", "reason": "InvalidSignatureError"}.items() <= token_refusal_line(served).items()
    for credentials in (key, alice, bob, forged):
        for part in credentials.removeprefix("papi_").split("."):
            assert part[:20] not in written


def token_refusal_line(served: ServiceProcess) -> dict[str, object]:
    (line,) = (line for line in served.log_entries() if line["event"] == "token refused")
    return line
