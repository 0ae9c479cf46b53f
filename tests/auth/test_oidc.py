"""Access tokens against an issuer that listens on a port: which are good, and what becomes of all others."""

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
from tests.auth.issuer import AUDIENCE, DISCOVERY, JWKS, Issuer, listening, new_key, published
from tests.auth.support import ADDRESS, PATIENTS, client_of, secured
from tests.support import eventually

INVALID = 'Bearer realm="patients-api", error="invalid_token"'
RSA = rsa.generate_private_key(65537, 2048)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    with listening(issuer):
        yield issuer


def settings_of(issuer: Issuer, **others: Any) -> dict[str, Any]:
    return {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE, **others}


async def ask(app: Any, token: str, address: str = ADDRESS) -> httpx.Response:
    """Ask for patients with a token."""
    async with client_of(app, token, address=address) as client:
        answer = await client.get(PATIENTS)
    assert (answer.headers.get("WWW-Authenticate") == INVALID) == (answer.status_code == 401)
    return answer


async def principal_of(app: Any, token: str) -> Principal:
    """Whom the service takes the bearer of a token for."""
    headers = [(b"authorization", f"Bearer {token}".encode())]
    request = Request({"type": "http", "method": "GET", "path": PATIENTS, "headers": headers, "client": (ADDRESS, 1)})
    principal: Principal = await app.state.authenticator.authenticate(request, "req_1", Scope.PATIENTS_READ)
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
    """Text or a list, by a name that operators choose; what is no scope of ours grants nothing."""
    async with secured(database_url, **settings_of(issuer)) as app:
        assert (await principal_of(app, issuer.token(scope=claim))).scopes == granted
    async with secured(database_url, **settings_of(issuer, oidc_scope_claim="roles")) as app:
        principal = await principal_of(app, issuer.token(roles=claim, scope="admin"))
        assert principal.name == "oidc:alice"
        assert principal.scopes == granted


@pytest.mark.parametrize("claim", [None, "", [], "patients:write"])
async def test_no_scope_is_no_access(database_url: str, issuer: Issuer, claim: object) -> None:
    """A good token that grants nothing, or something else, is a 403."""
    async with secured(database_url, **settings_of(issuer)) as app:
        assert (await ask(app, issuer.token(scope=claim))).status_code == 403


async def test_hospitals_are_those_of_the_claim(database_url: str, issuer: Issuer) -> None:
    """Where operators name a claim, a person without it is limited to none, but for an admin."""
    seen: dict[str, object] = {}
    async with secured(database_url, **settings_of(issuer, oidc_hospitals_claim="clinics")) as app:
        people: dict[str, dict[str, Any]] = {
            "list": {"clinics": ["hos123", "hos456"]},
            "text": {"clinics": "hos123"},
            "none": {},
            "admin": {"scope": "admin"},
            "admin of one": {"clinics": ["hos123"], "scope": "admin"},
        }
        for name, others in people.items():
            seen[name] = (await principal_of(app, issuer.token(**others))).hospitals
    async with secured(database_url, **settings_of(issuer)) as app:
        seen["unset"] = (await principal_of(app, issuer.token(clinics=["hos123"]))).hospitals
    both = {"hos123", "hos456"}
    one = {"hos123"}
    assert seen == {"list": both, "text": one, "none": set(), "admin": None, "admin of one": one, "unset": None}


def segment(value: Any) -> str:
    return (
        base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode().rstrip("=")
    )


def bad_tokens(issuer: Issuer, now: int) -> dict[str, str]:
    """Tokens that must not be believed, by what is wrong with them; the issuer's key is RSA."""
    other = rsa.generate_private_key(65537, 2048)
    pem = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    good = issuer.token()
    head, body, signature = good.split(".")
    everything = segment(issuer.claims(scope="admin"))

    def by_hand(header: Any) -> str:
        return f"{segment(header)}.{everything}.{signature}"

    def hmac(secret: bytes) -> str:
        """PyJWT refuses to sign with a PEM: an attacker's library does not."""
        signing = f"{segment({'alg': 'HS256', 'kid': 'key-1'})}.{everything}"
        algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        return f"{signing}.{segment(algorithm.sign(signing.encode(), secret))}"

    return {
        "none": f"{segment({'alg': 'none', 'kid': 'key-1'})}.{everything}.",
        "None": f"{segment({'alg': 'None', 'kid': 'key-1'})}.{everything}.",
        "no algorithm": by_hand({"kid": "key-1"}),
        "algorithm of another type": by_hand({"alg": ["RS256"], "kid": "key-1"}),
        "key confusion, PEM": hmac(pem),
        "key confusion, JWK": hmac(json.dumps(published("key-1", RSA)).encode()),
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
        "kid of another type": by_hand({"alg": "RS256", "kid": ["key-1"]}),
        "kid of a secret": issuer.token(kid="secret", key=b"0" * 32, algorithm="HS256"),
        "kid of a key for encryption": issuer.token(kid="encryption"),
        "of another key": issuer.token(key=other),
        "brings its own key": jwt.encode(
            issuer.claims(), other, "RS256", {"kid": "key-1", "jwk": published("key-1", other)}
        ),
        "critical extension, in another header": by_hand({"alg": "RS256", "kid": "key-1", "crit": None}),
        "critical extension": jwt.encode(issuer.claims(), RSA, "RS256", {"kid": "key-1", "crit": ["x"], "x": 1}),
        "other claims": f"{head}.{everything}.{signature}",
        "no signature": f"{head}.{body}.",
        "no token": "nonsense",
        "dots": "..",
        "header is a list": by_hand([]),
        "nested deeply": f"{segment(b'[' * 20_000)}.{body}.{signature}",
        "claims are a list": jwt.api_jws.encode(b"[]", RSA, "RS256", {"kid": "key-1"}),
    }


async def test_tokens_that_are_not_to_be_believed(database_url: str, issuer: Issuer) -> None:
    """Each a 401 with a challenge, and a word in the answer about nothing of it."""
    issuer.key = RSA
    secret = {"kty": "oct", "kid": "secret", "k": segment(b"0" * 32), "alg": "HS256"}
    issuer.jwks = [published("key-1", RSA), secret, {**published("encryption", RSA), "use": "enc"}]
    bad = bad_tokens(issuer, issuer.claims()["iat"])
    details = set()
    got = {}
    async with secured(database_url, **settings_of(issuer)) as app:
        assert (await ask(app, issuer.token())).status_code == 200
        for number, (name, token) in enumerate(bad.items()):
            answer = await ask(app, token, address=f"198.51.100.{number}")
            got[name] = answer.status_code
            details.add(answer.json().get("detail"))
    assert got == dict.fromkeys(bad, 401)
    assert details == {"The API key or access token is not valid, or no longer."}


async def test_clocks_may_differ_by_half_a_minute(database_url: str, issuer: Issuer) -> None:
    """Just expired, just not yet valid."""
    now = issuer.claims()["iat"]
    async with secured(database_url, **settings_of(issuer)) as app:
        for others in ({"exp": now - 25}, {"nbf": now + 25}, {"iat": now + 25}):
            assert (await ask(app, issuer.token(**others))).status_code == 200


async def test_without_an_issuer_no_token_is_good(database_url: str, issuer: Issuer) -> None:
    """Where no provider is set, a token is as good as none."""
    async with secured(database_url) as app:
        assert (await ask(app, issuer.token())).status_code == 401
    assert issuer.asked == []


Spoil = Callable[[Issuer, str], None]


def _keys_elsewhere(issuer: Issuer, elsewhere: str) -> None:
    issuer.answers[JWKS] = (302, {"Location": f"{elsewhere}{JWKS}"}, None)


def _all_elsewhere(issuer: Issuer, elsewhere: str) -> None:
    issuer.answers[DISCOVERY] = (301, {"Location": f"{elsewhere}{DISCOVERY}"}, None)


def _other_name(issuer: Issuer, elsewhere: str) -> None:
    issuer.answers[DISCOVERY] = (200, {}, {"issuer": elsewhere, "jwks_uri": f"{issuer.url}{JWKS}"})


@pytest.mark.parametrize("spoil", [_keys_elsewhere, _all_elsewhere, _other_name])
async def test_keys_come_from_the_issuer_or_not_at_all(database_url: str, issuer: Issuer, spoil: Spoil) -> None:
    """A redirect is not followed, and a document of another issuer is not believed: 401, not even for a good token."""
    other = Issuer(key=issuer.key)
    with listening(other):
        spoil(issuer, other.url)
        async with secured(database_url, **settings_of(issuer)) as app:
            assert (await ask(app, issuer.token())).status_code == 401
        assert other.asked == []


async def test_a_key_that_is_of_no_use_takes_no_other_away(database_url: str, issuer: Issuer) -> None:
    """Providers publish keys of kinds that are new, or for other ends."""
    good = published("key-1", issuer.key)
    issuer.jwks = [
        {"kty": "LATTICE", "kid": "new", "use": "sig"},
        {**good, "kid": "wrap", "alg": "ECDH-ES"},
        {"kty": "EC", "kid": "half", "crv": "P-256", "x": "AA"},
        {"kid": "empty"},
        good,
    ]
    async with secured(database_url, **settings_of(issuer)) as app:
        assert (await ask(app, issuer.token())).status_code == 200


async def test_an_unknown_kid_asks_the_issuer_once_a_minute(database_url: str, issuer: Issuer) -> None:
    """Who makes up tokens cannot make the service ask for each of them."""
    assert oidc.REFRESH_AFTER == 60
    async with secured(database_url, **settings_of(issuer)) as app:
        for number in range(20):
            assert (await ask(app, issuer.token(kid=f"made-up-{number}"))).status_code == 401
        assert (await ask(app, issuer.token())).status_code == 200
    assert issuer.asked == [DISCOVERY, JWKS]


async def test_new_keys_are_found_and_old_ones_forgotten(
    database_url: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the minute is over; it is shortened here."""
    async with secured(database_url, **settings_of(issuer)) as app:
        assert (await ask(app, issuer.token())).status_code == 200
        old, issuer.key = issuer.key, new_key()
        issuer.jwks = [published("key-2", issuer.key)]
        assert (await ask(app, issuer.token(kid="key-2"))).status_code == 401
        monkeypatch.setattr(oidc, "REFRESH_AFTER", 0)
        assert (await ask(app, issuer.token(kid="key-2", jti="another"))).status_code == 200
        assert (await ask(app, issuer.token(key=old, jti="another"))).status_code == 401


async def test_a_key_that_was_withdrawn_is_forgotten_in_time(
    database_url: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nobody asks for another; the hour is shortened here."""
    monkeypatch.setattr(oidc, "REFRESH_AFTER", 0)
    async with secured(database_url, **settings_of(issuer)) as app:
        assert (await ask(app, issuer.token())).status_code == 200
        issuer.jwks = [published("key-2", new_key())]
        assert (await ask(app, issuer.token(jti="1"))).status_code == 200
        monkeypatch.setattr(oidc, "STALE_AFTER", 0)
        async with asyncio.timeout(5):  # nobody waits for the keys that are fetched meanwhile
            while (await ask(app, issuer.token(jti=secrets.token_hex(4)))).status_code != 401:
                pass


async def test_an_outage_of_the_issuer_is_survived(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that were had go on, even stale ones; an unknown kid is still a 401."""
    monkeypatch.setattr(oidc, "REFRESH_AFTER", 0)
    issuer = Issuer()
    async with AsyncExitStack() as stack:
        with listening(issuer):
            app = await stack.enter_async_context(secured(database_url, **settings_of(issuer)))
            assert (await ask(app, issuer.token())).status_code == 200
        monkeypatch.setattr(oidc, "STALE_AFTER", 0)
        assert (await ask(app, issuer.token(jti="new"))).status_code == 200
        assert (await ask(app, issuer.token(kid="unknown"))).status_code == 401


async def test_without_keys_nobody_can_be_verified(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After while they were never had; and as soon as they are, all is well."""
    issuer = Issuer()
    with listening(issuer) as server:
        port = server.server_port
    async with secured(database_url, **settings_of(issuer)) as app:
        for _ in range(3):
            answer = await ask(app, issuer.token())
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert answer.json()["detail"] == "The identity provider cannot be reached. Try again."
        monkeypatch.setattr(oidc, "ASK_AGAIN_AFTER", 0)
        with listening(issuer, port):
            issuer.answers[DISCOVERY] = (500, {}, None)
            assert (await ask(app, issuer.token())).status_code == 503
            issuer.answers.clear()
            assert (await ask(app, issuer.token())).status_code == 200


async def test_an_issuer_that_is_silent_keeps_nobody_for_long(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has three seconds, fewer here; requests that come meanwhile do not ask it one after the other."""
    monkeypatch.setattr(oidc, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        issuer = Issuer(url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        async with secured(database_url, **settings_of(issuer)) as app:
            began = time.monotonic()
            answers = await asyncio.gather(*(ask(app, issuer.token(jti=str(number))) for number in range(10)))
            assert time.monotonic() - began < 1.5
    assert {answer.status_code for answer in answers} == {503}


async def test_first_requests_at_once_fetch_once(database_url: str, issuer: Issuer) -> None:
    """They wait for the one that asks."""
    async with secured(database_url, **settings_of(issuer)) as app:
        answers = await asyncio.gather(*(ask(app, issuer.token(jti=str(number))) for number in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert issuer.asked == [DISCOVERY, JWKS]


async def test_who_hangs_up_does_not_take_the_keys_from_others(database_url: str, issuer: Issuer) -> None:
    """The request that asks the issuer is given up; the next has the keys all the same, asked for once."""
    issuer.open.clear()
    async with secured(database_url, **settings_of(issuer)) as app:
        gone = asyncio.create_task(ask(app, issuer.token()))
        await asyncio.to_thread(eventually, lambda: issuer.asked != [])
        gone.cancel()
        next_one = asyncio.create_task(ask(app, issuer.token()))
        await asyncio.gather(gone, return_exceptions=True)
        issuer.open.set()
        assert (await next_one).status_code == 200
    assert issuer.asked == [DISCOVERY, JWKS]
