"""Tokens with a valid signature and malformed claims get a 401, never a 500 or more rights."""

import json
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from structlog.testing import capture_logs

from app.auth.claims import MAX_CLAIM_VALUES
from app.auth.principal import Principal
from app.auth.scopes import Scope
from tests.auth.issuer import AUDIENCE, Issuer, run_issuer
from tests.auth.support import PATIENTS, client_for, secured_app
from tests.auth.test_oidc import authenticated_principal

DEEPLY_NESTED_JSON = "[" * 3000 + "]" * 3000
MALFORMED_CLAIMS: dict[str, tuple[str, ...]] = {
    "exp": (
        '"{later}"',
        '"٤٠٠٠٠٠٠٠٠٠"',
        "true",
        "null",
        "[{later}]",
        '{{"seconds": {later}}}',
        "1" + "0" * 400,
        "9" * 4301,
        "1e400",
        "NaN",
        "Infinity",
        "-1",
        "253402300800",
        "0",
    ),
    "nbf": ('"0"', "false", "null", "[]", "1" + "0" * 400, "NaN", "-1", "1e400"),
    "iat": ('"0"', "false", "null", "{{}}", "1" + "0" * 400, "-Infinity", "-1e400"),
    "sub": (
        "7",
        "true",
        "null",
        '["alice"]',
        '"a\\u0000"',
        '"\\ud800"',
        '"a\\n"',
        '""',
        '"a b"',
        '"é"',
        '"%s"' % ("a" * 256),
    ),
    "aud": ("7", "null", '[["patients-api"]]', '["patients-api", 7]', '{{"patients-api": 1}}', "[]", '"patients-api "'),
    "iss": ("7", "null", "[]", '""'),
    "scope": (
        "7",
        "true",
        "null",
        '{{"admin": true}}',
        '["admin", 1]',
        '[["admin"]]',
        json.dumps(["x"] * (MAX_CLAIM_VALUES + 1)),
    ),
    "clinics": (
        "7",
        "false",
        "null",
        '{{"hos123": true}}',
        '[["hos123"]]',
        '["hos123", null]',
        '["hos\\u0000"]',
        '"hos123\\u0000"',
        '["\\ud800"]',
        '"\\ud800"',
        '[" hos123"]',
        '["hos123 "]',
        '["hos123 hos456"]',
        '"hos123\\u00a0hos456"',
        '"hos123\\thos456"',
        '"hos123,hos456"',
        '[""]',
        '["%"]',
        '["%s"]' % ("h" * 65),
        json.dumps([f"h{number}" for number in range(MAX_CLAIM_VALUES + 1)]),
        DEEPLY_NESTED_JSON,
    ),
}
"""By claim: JSON that must be refused; `{later}` is an expiry for which the token would still be valid."""

PYJWT_ERRORS = {
    "exp: 0": "ExpiredSignatureError",
    'iss: ""': "InvalidIssuerError",
    "aud: []": "MissingRequiredClaimError",
    'aud: "patients-api "': "InvalidAudienceError",
}
"""The errors of PyJWT for claims that it refuses itself."""

REFUSED_HEADERS: dict[str, tuple[Any, ...]] = {
    "typ": ("logout+jwt", "dpop+jwt", "id_token", "", "JWTs", "application/", "application/text/jwt", None, 7, ["JWT"]),
    "crit": ([], ["exp"], ["b64"], None),
    "b64": (True, False, None),
    "zip": ("DEF",),
}


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    with run_issuer(issuer):
        yield issuer


def oidc_settings(issuer: Issuer) -> dict[str, Any]:
    return {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE, "oidc_hospitals_claim": "clinics"}


def sign_token(issuer: Issuer, payload: str, **header: Any) -> str:
    """Return a token with any payload and header, which PyJWT would refuse to sign."""
    algorithm = jwt.get_algorithm_by_name("ES256")
    head = {"alg": "ES256", "kid": "key-1", "typ": "JWT", **header}
    parts = [jwt.utils.base64url_encode(part.encode()).decode() for part in (json.dumps(head), payload)]
    signature = algorithm.sign(".".join(parts).encode(), issuer.key)
    return ".".join([*parts, jwt.utils.base64url_encode(signature).decode()])


def claims_with(issuer: Issuer, name: str, value: str) -> str:
    """Return the claims of a valid token as JSON, with one value replaced."""
    good = issuer.claims(clinics=["hos123"])
    text = value.format(later=good["exp"]) if value != DEEPLY_NESTED_JSON else value
    rest = json.dumps({other: kept for other, kept in good.items() if other != name})
    return f'{rest[:-1]}, "{name}": {text}}}'


async def refusal_reasons(
    issuer: Issuer, database_url: str, tokens: dict[str, str]
) -> dict[str, tuple[int, list[str]]]:
    """Return the status and the logged reasons for each token."""
    results = {}
    async with secured_app(database_url, **oidc_settings(issuer)) as app:
        assert (
            await authenticated_principal(app, sign_token(issuer, json.dumps(issuer.claims())))
        ).name == "oidc:alice"
        for number, (name, token) in enumerate(tokens.items()):
            with capture_logs() as logs:
                async with client_for(app, token, address=f"198.51.100.{number}") as client:
                    response = await client.get(PATIENTS)
            reasons = [line["reason"] for line in logs if line["event"] == "token refused"]
            results[name] = (int(response.status_code), reasons)
    return results


async def test_malformed_claims_are_named_and_refused(database_url: str, issuer: Issuer) -> None:
    """Each malformed claim is a 401, and the log names the claim; the signature is valid."""
    tokens, named = {}, {}
    for claim, values in MALFORMED_CLAIMS.items():
        for value in values:
            name = f"{claim}: {value[:50]}"
            tokens[name] = sign_token(issuer, claims_with(issuer, claim, value))
            named[name] = claim
    results = await refusal_reasons(issuer, database_url, tokens)
    assert {name: status for name, (status, _) in results.items() if status != 401} == {}
    ours = ("NaN", "Infinity", "-Infinity", "9" * 50, "[" * 50)  # not JSON at all
    for name, (_, reasons) in results.items():
        expected = "claims: " if name.partition(": ")[2] in ours else f"claim {named[name]}: "
        theirs = {
            "exp: 0": "ExpiredSignatureError",
            'iss: ""': "InvalidIssuerError",
            "aud: []": "MissingRequiredClaimError",
        }
        theirs['aud: "patients-api "'] = "InvalidAudienceError"
        assert len(reasons) == 1, name
        assert reasons[0].startswith(theirs.get(name, expected)), (name, reasons)


async def test_only_access_tokens_without_extensions_are_accepted(database_url: str, issuer: Issuer) -> None:
    """Only access tokens are accepted, and none with a header that changes how the rest is read."""
    payload = json.dumps(issuer.claims())
    tokens, named = {}, {}
    for parameter, values in REFUSED_HEADERS.items():
        for value in values:
            tokens[f"{parameter}: {value}"] = sign_token(issuer, payload, **{parameter: value})
            named[f"{parameter}: {value}"] = f"header {parameter}: "
    results = await refusal_reasons(issuer, database_url, tokens)
    for name, (status, reasons) in results.items():
        assert (status, len(reasons)) == (401, 1), name
        assert reasons[0].startswith(named[name]), (name, reasons)
    async with secured_app(database_url, **oidc_settings(issuer)) as app:
        for number, kind in enumerate(("at+jwt", "AT+JWT", "application/at+jwt", "jwt", "application/JWT")):
            token = sign_token(issuer, json.dumps(issuer.claims(sub=f"bob{number}")), typ=kind)
            assert (await authenticated_principal(app, token)).name == f"oidc:bob{number}"


async def test_duplicate_names_in_claims_or_header_are_refused(database_url: str, issuer: Issuer) -> None:
    """A duplicate name in claims or header is refused, because two programs may read different values."""
    good = json.dumps(issuer.claims())
    twice = f'{good[:-1]}, "scope": "admin"}}'
    head = '{"alg": "ES256", "kid": "key-1", "kid": "key-1"}'
    parts = [jwt.utils.base64url_encode(part.encode()).decode() for part in (head, good)]
    signature = jwt.get_algorithm_by_name("ES256").sign(".".join(parts).encode(), issuer.key)
    in_header = ".".join([*parts, jwt.utils.base64url_encode(signature).decode()])
    results = await refusal_reasons(issuer, database_url, {"claims": sign_token(issuer, twice), "header": in_header})
    for what, (status, reasons) in results.items():
        assert (status, reasons) == (401, [f"{what}: not valid JSON, or a key is repeated"])


async def test_valid_claims_at_the_limits_are_accepted(database_url: str, issuer: Issuer) -> None:
    """A thousand hospitals, none, fractional times and unknown claims are accepted."""
    many = [f"h{number}" for number in range(MAX_CLAIM_VALUES)]
    now = issuer.claims()["iat"]
    seen: dict[str, frozenset[str] | None] = {}
    tokens: dict[str, dict[str, Any]] = {
        "many": {"clinics": many},
        "repeated": {"clinics": "hos123 hos123  hos456 "},
        "none": {"clinics": []},
        "blank": {"clinics": ""},
        "fraction": {"exp": now + 600.5, "nbf": now - 0.5, "iat": float(now)},
        "others": {"hospitals": ["hos123"], "jti": 7, "groups": {"a": [1, None]}},
        "audiences": {"aud": ["billing", AUDIENCE]},
    }
    async with secured_app(database_url, **oidc_settings(issuer)) as app:
        for name, claims in tokens.items():
            principal: Principal = await authenticated_principal(app, issuer.token(**claims))
            assert principal.scopes == {Scope.PATIENTS_READ}, name
            seen[name] = principal.hospitals
    nobody = frozenset[str]()
    both = frozenset({"hos123", "hos456"})
    assert seen == dict.fromkeys(tokens, nobody) | {"many": frozenset(many), "repeated": both}
