"""Access tokens of an issuer that listens on a port: which are valid, and how all others are refused."""

import asyncio
import base64
import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.requests import Request

from app.auth import oidc
from app.auth.principal import Principal
from app.auth.scopes import Scope
from app.request_state import RequestState
from tests.auth.issuer import AUDIENCE, DISCOVERY_PATH, JWKS_PATH, Issuer, new_key, public_jwk, run_issuer
from tests.auth.support import CLIENT_ADDRESS, PATIENTS, client_for, secured_app
from tests.support import eventually

INVALID_TOKEN_CHALLENGE = 'Bearer realm="patients-api", error="invalid_token"'  # noqa: S105  # not a password
RSA_KEY = rsa.generate_private_key(65537, 2048)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    with run_issuer(issuer):
        yield issuer


def oidc_settings(issuer: Issuer, **overrides: Any) -> dict[str, Any]:
    return {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE, **overrides}


async def get_with_token(app: Any, token: str, address: str = CLIENT_ADDRESS) -> httpx.Response:
    """List patients with a token, and check that exactly a 401 carries the challenge."""
    async with client_for(app, token, address=address) as client:
        response = await client.get(PATIENTS)
    assert (response.headers.get("WWW-Authenticate") == INVALID_TOKEN_CHALLENGE) == (response.status_code == 401)
    return response


async def authenticated_principal(app: Any, token: str) -> Principal:
    """Return the principal that the service derives from a token."""
    headers = [(b"authorization", f"Bearer {token}".encode())]
    scope = {"type": "http", "method": "GET", "path": PATIENTS, "headers": headers, "client": (CLIENT_ADDRESS, 1)}
    RequestState("req_1", "GET").attach(scope)
    request = Request(scope)
    principal: Principal = await app.state.services.authenticator.authenticate(request, "req_1", Scope.PATIENTS_READ)
    return principal


@pytest.mark.parametrize(
    ("claim", "granted"),
    [
        ("patients:read history:read", {"patients:read", "history:read"}),
        (["patients:read", "directory:read"], {"patients:read", "directory:read"}),
        ("openid patients:read patients:everything PATIENTS:WRITE", {"patients:read"}),
        ("  patients:read   history:read ", {"patients:read", "history:read"}),
        ("patients:read history:read\nadmin\u2003admin\tadmin", {"patients:read"}),
        (["patients:read", "history:read admin", " admin", "ADMIN", "ａｄｍｉｎ"], {"patients:read"}),
        ("admin", {"admin"}),
    ],
)
async def test_scopes_are_those_of_the_claim(
    database_url: str, issuer: Issuer, claim: object, granted: set[str]
) -> None:
    """Scopes come from the configured claim, as text or a list, and unknown scopes grant nothing."""
    async with secured_app(database_url, **oidc_settings(issuer)) as app:
        assert (await authenticated_principal(app, issuer.token(scope=claim))).scopes == granted
    async with secured_app(database_url, **oidc_settings(issuer, oidc_scope_claim="roles")) as app:
        principal = await authenticated_principal(app, issuer.token(roles=claim, scope="admin"))
        assert principal.name == "oidc:alice"
        assert principal.scopes == granted


@pytest.mark.parametrize("claim", [None, "", [], "patients:write"])
async def test_a_token_without_a_matching_scope_is_forbidden(database_url: str, issuer: Issuer, claim: object) -> None:
    """A valid token that grants no scope, or a different one, gets a 403."""
    async with secured_app(database_url, **oidc_settings(issuer)) as app:
        assert (await get_with_token(app, issuer.token(scope=claim))).status_code == 403


async def test_hospitals_are_those_of_the_claim(database_url: str, issuer: Issuer) -> None:
    """If a hospitals claim is configured, a user without it is restricted to no hospital at all, unless an admin."""
    seen: dict[str, object] = {}
    async with secured_app(database_url, **oidc_settings(issuer, oidc_hospitals_claim="clinics")) as app:
        people: dict[str, dict[str, Any]] = {
            "list": {"clinics": ["hos123", "hos456"]},
            "text": {"clinics": "hos123"},
            "none": {},
            "admin": {"scope": "admin"},
            "admin of one": {"clinics": ["hos123"], "scope": "admin"},
        }
        for name, others in people.items():
            seen[name] = (await authenticated_principal(app, issuer.token(**others))).hospitals
    async with secured_app(database_url, **oidc_settings(issuer)) as app:
        seen["unset"] = (await authenticated_principal(app, issuer.token(clinics=["hos123"]))).hospitals
    both = {"hos123", "hos456"}
    one = {"hos123"}
    assert seen == {"list": both, "text": one, "none": set(), "admin": None, "admin of one": one, "unset": None}


def base64url_segment(value: Any) -> str:
    return (
        base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode().rstrip("=")
    )


def invalid_tokens(issuer: Issuer, now: int) -> dict[str, str]:
    """Return tokens that must be refused, keyed by their defect; the issuer's key is RSA."""
    other = rsa.generate_private_key(65537, 2048)
    pem = RSA_KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    good = issuer.token()
    head, body, signature = good.split(".")
    everything = base64url_segment(issuer.claims(scope="admin"))

    def with_header(header: Any) -> str:
        return f"{base64url_segment(header)}.{everything}.{signature}"

    def hmac(secret: bytes) -> str:
        """Sign with a PEM as the secret, which PyJWT refuses to do but an attacker's library does not."""
        signing = f"{base64url_segment({'alg': 'HS256', 'kid': 'key-1'})}.{everything}"
        algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        return f"{signing}.{base64url_segment(algorithm.sign(signing.encode(), secret))}"

    return {
        "none": f"{base64url_segment({'alg': 'none', 'kid': 'key-1'})}.{everything}.",
        "None": f"{base64url_segment({'alg': 'None', 'kid': 'key-1'})}.{everything}.",
        "no algorithm": with_header({"kid": "key-1"}),
        "algorithm of another type": with_header({"alg": ["RS256"], "kid": "key-1"}),
        "key confusion, PEM": hmac(pem),
        "key confusion, JWK": hmac(json.dumps(public_jwk("key-1", RSA_KEY)).encode()),
        "another algorithm than the key's": issuer.token(algorithm="RS512"),
        "of another family": issuer.token(algorithm="PS256"),
        "wrong issuer": issuer.token(iss="https://evil.example"),
        "issuer with a slash": issuer.token(iss=f"{issuer.url}/"),
        "no issuer": issuer.token(iss=None),
        "wrong audience": issuer.token(aud="billing"),
        "wrong audiences": issuer.token(aud=["billing", "patients"]),
        "no audience": issuer.token(aud=None),
        "expired": issuer.token(exp=now - 32),
        "never expires": issuer.token(exp=None),
        "not yet valid": issuer.token(nbf=now + 60),
        "issued in the future": issuer.token(iat=now + 60),
        "no subject": issuer.token(sub=None),
        "subject of another type": issuer.token(sub=7),
        "no kid": issuer.token(kid=None),
        "unknown kid": issuer.token(kid="key-2"),
        "kid of another type": with_header({"alg": "RS256", "kid": ["key-1"]}),
        "kid of a secret": issuer.token(kid="secret", key=b"0" * 32, algorithm="HS256"),
        "kid of a key for encryption": issuer.token(kid="encryption"),
        "of another key": issuer.token(key=other),
        "brings its own key": jwt.encode(
            issuer.claims(), other, "RS256", {"kid": "key-1", "jwk": public_jwk("key-1", other)}
        ),
        "critical extension, in another header": with_header({"alg": "RS256", "kid": "key-1", "crit": None}),
        "critical extension": jwt.encode(issuer.claims(), RSA_KEY, "RS256", {"kid": "key-1", "crit": ["x"], "x": 1}),
        "other claims": f"{head}.{everything}.{signature}",
        "no signature": f"{head}.{body}.",
        "no token": "nonsense",
        "dots": "..",
        "header is a list": with_header([]),
        "nested deeply": f"{base64url_segment(b'[' * 20_000)}.{body}.{signature}",
        "claims are a list": jwt.api_jws.encode(b"[]", RSA_KEY, "RS256", {"kid": "key-1"}),
    }


async def test_invalid_tokens_are_refused_without_details(database_url: str, issuer: Issuer) -> None:
    """Every invalid token gets the same 401 with a challenge, which does not reveal the defect."""
    issuer.key = RSA_KEY
    secret = {"kty": "oct", "kid": "secret", "k": base64url_segment(b"0" * 32), "alg": "HS256"}
    issuer.jwks = [public_jwk("key-1", RSA_KEY), secret, {**public_jwk("encryption", RSA_KEY), "use": "enc"}]
    bad = invalid_tokens(issuer, issuer.claims()["iat"])
    details = set()
    got = {}
    async with secured_app(database_url, **oidc_settings(issuer)) as app:
        assert (await get_with_token(app, issuer.token())).status_code == 200
        for number, (name, token) in enumerate(bad.items()):
            response = await get_with_token(app, token, address=f"198.51.100.{number}")
            got[name] = response.status_code
            details.add(response.json().get("detail"))
    assert got == dict.fromkeys(bad, 401)
    assert details == {"The API key or access token is invalid, expired or revoked."}


async def test_clocks_may_differ_by_half_a_minute(database_url: str, issuer: Issuer) -> None:
    """A token that expired, or becomes valid, within 25 seconds is accepted."""
    now = issuer.claims()["iat"]
    async with secured_app(database_url, **oidc_settings(issuer)) as app:
        for others in ({"exp": now - 25}, {"nbf": now + 25}, {"iat": now + 25}):
            assert (await get_with_token(app, issuer.token(**others))).status_code == 200


async def test_without_an_issuer_every_token_is_refused(database_url: str, issuer: Issuer) -> None:
    """If no issuer is configured, every token is refused."""
    async with secured_app(database_url) as app:
        assert (await get_with_token(app, issuer.token())).status_code == 401
    assert issuer.requested_paths == []


Tamper = Callable[[Issuer, str], None]


def _redirect_jwks(issuer: Issuer, other_url: str) -> None:
    issuer.response_overrides[JWKS_PATH] = (302, {"Location": f"{other_url}{JWKS_PATH}"}, None)


def _redirect_discovery(issuer: Issuer, other_url: str) -> None:
    issuer.response_overrides[DISCOVERY_PATH] = (301, {"Location": f"{other_url}{DISCOVERY_PATH}"}, None)


def _name_another_issuer(issuer: Issuer, other_url: str) -> None:
    issuer.response_overrides[DISCOVERY_PATH] = (200, {}, {"issuer": other_url, "jwks_uri": f"{issuer.url}{JWKS_PATH}"})


@pytest.mark.parametrize("tamper", [_redirect_jwks, _redirect_discovery, _name_another_issuer])
async def test_keys_come_from_the_issuer_or_not_at_all(database_url: str, issuer: Issuer, tamper: Tamper) -> None:
    """A redirect is not followed and a document of another issuer is not trusted: even a valid token gets a 401."""
    other = Issuer(key=issuer.key)
    with run_issuer(other):
        tamper(issuer, other.url)
        async with secured_app(database_url, **oidc_settings(issuer)) as app:
            assert (await get_with_token(app, issuer.token())).status_code == 401
        assert other.requested_paths == []


async def test_unusable_keys_in_the_jwks_are_skipped(database_url: str, issuer: Issuer) -> None:
    """Keys of unknown types or for other purposes do not prevent the use of the valid ones."""
    good = public_jwk("key-1", issuer.key)
    issuer.jwks = [
        {"kty": "LATTICE", "kid": "new", "use": "sig"},
        {**good, "kid": "wrap", "alg": "ECDH-ES"},
        {"kty": "EC", "kid": "half", "crv": "P-256", "x": "AA"},
        {"kid": "empty"},
        good,
    ]
    async with secured_app(database_url, **oidc_settings(issuer)) as app:
        assert (await get_with_token(app, issuer.token())).status_code == 200


async def test_an_unknown_kid_asks_the_issuer_once_a_minute(database_url: str, issuer: Issuer) -> None:
    """A client that makes up key ids cannot cause more than one request to the issuer per minute."""
    assert oidc.JWKS_REFRESH_INTERVAL_SECONDS == 60
    async with secured_app(database_url, **oidc_settings(issuer)) as app:
        for number in range(20):
            assert (await get_with_token(app, issuer.token(kid=f"made-up-{number}"))).status_code == 401
        assert (await get_with_token(app, issuer.token())).status_code == 200
    assert issuer.requested_paths == [DISCOVERY_PATH, JWKS_PATH]


async def test_rotated_keys_are_fetched_and_old_ones_dropped(
    database_url: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the refresh interval (shortened here) new keys are fetched and removed keys are no longer accepted."""
    async with secured_app(database_url, **oidc_settings(issuer)) as app:
        assert (await get_with_token(app, issuer.token())).status_code == 200
        old, issuer.key = issuer.key, new_key()
        issuer.jwks = [public_jwk("key-2", issuer.key)]
        assert (await get_with_token(app, issuer.token(kid="key-2"))).status_code == 401
        monkeypatch.setattr(oidc, "JWKS_REFRESH_INTERVAL_SECONDS", 0)
        assert (await get_with_token(app, issuer.token(kid="key-2", jti="another"))).status_code == 200
        assert (await get_with_token(app, issuer.token(key=old, jti="another"))).status_code == 401


async def test_a_withdrawn_key_is_dropped_when_keys_are_stale(
    database_url: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A withdrawn key is dropped after its maximum age (shortened here), even if no unknown key id is seen."""
    monkeypatch.setattr(oidc, "JWKS_REFRESH_INTERVAL_SECONDS", 0)
    async with secured_app(database_url, **oidc_settings(issuer)) as app:
        assert (await get_with_token(app, issuer.token())).status_code == 200
        issuer.jwks = [public_jwk("key-2", new_key())]
        assert (await get_with_token(app, issuer.token(jti="1"))).status_code == 200
        monkeypatch.setattr(oidc, "JWKS_MAX_AGE_SECONDS", 0)
        async with asyncio.timeout(5):  # requests do not wait for this refresh
            while (await get_with_token(app, issuer.token(jti=secrets.token_hex(4)))).status_code != 401:
                pass


async def test_an_outage_of_the_issuer_is_survived(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetched keys stay in use during an outage, even when stale, and an unknown key id is still a 401."""
    monkeypatch.setattr(oidc, "JWKS_REFRESH_INTERVAL_SECONDS", 0)
    issuer = Issuer()
    async with AsyncExitStack() as stack:
        with run_issuer(issuer):
            app = await stack.enter_async_context(secured_app(database_url, **oidc_settings(issuer)))
            assert (await get_with_token(app, issuer.token())).status_code == 200
        monkeypatch.setattr(oidc, "JWKS_MAX_AGE_SECONDS", 0)
        assert (await get_with_token(app, issuer.token(jti="new"))).status_code == 200
        assert (await get_with_token(app, issuer.token(kid="unknown"))).status_code == 401


async def test_tokens_are_503_until_keys_were_fetched(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens get a 503 with Retry-After until the keys have been fetched once."""
    issuer = Issuer()
    with run_issuer(issuer) as server:
        port = server.server_port
    async with secured_app(database_url, **oidc_settings(issuer)) as app:
        for _ in range(3):
            response = await get_with_token(app, issuer.token())
            assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
            assert response.json()["detail"] == "The identity provider cannot be reached. Try again."
        monkeypatch.setattr(oidc, "JWKS_RETRY_SECONDS", 0)
        with run_issuer(issuer, port):
            issuer.response_overrides[DISCOVERY_PATH] = (500, {}, None)
            assert (await get_with_token(app, issuer.token())).status_code == 503
            issuer.response_overrides.clear()
            assert (await get_with_token(app, issuer.token())).status_code == 200


async def test_a_silent_issuer_delays_requests_only_until_the_timeout(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Concurrent requests share one fetch, which gives up on a silent issuer after the timeout (shortened here)."""
    monkeypatch.setattr(oidc, "FETCH_TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        issuer = Issuer(url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        async with secured_app(database_url, **oidc_settings(issuer)) as app:
            began = time.monotonic()
            responses = await asyncio.gather(
                *(get_with_token(app, issuer.token(jti=str(number))) for number in range(10))
            )
            assert time.monotonic() - began < 1.5
    assert {response.status_code for response in responses} == {503}


async def test_concurrent_first_requests_fetch_keys_once(database_url: str, issuer: Issuer) -> None:
    """Concurrent first requests wait for the same fetch."""
    async with secured_app(database_url, **oidc_settings(issuer)) as app:
        responses = await asyncio.gather(*(get_with_token(app, issuer.token(jti=str(number))) for number in range(20)))
    assert {response.status_code for response in responses} == {200}
    assert issuer.requested_paths == [DISCOVERY_PATH, JWKS_PATH]


async def test_a_disconnect_does_not_cancel_the_shared_key_fetch(database_url: str, issuer: Issuer) -> None:
    """If the request that started the fetch is cancelled, the next request uses the same fetch."""
    issuer.may_respond.clear()
    async with secured_app(database_url, **oidc_settings(issuer)) as app:
        gone = asyncio.create_task(get_with_token(app, issuer.token()))
        await asyncio.to_thread(eventually, lambda: issuer.requested_paths != [])
        gone.cancel()
        next_one = asyncio.create_task(get_with_token(app, issuer.token()))
        await asyncio.gather(gone, return_exceptions=True)
        issuer.may_respond.set()
        assert (await next_one).status_code == 200
    assert issuer.requested_paths == [DISCOVERY_PATH, JWKS_PATH]
