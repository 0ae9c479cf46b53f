"""OpenID Connect: access tokens of people, signed by an identity provider (RFC 9068, RFC 8725)."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx
import jwt
import structlog

from app.auth.claims import Claims, read_claims, read_header
from app.errors import InvalidTokenError, UnavailableError
from app.settings import is_secure_url

log = structlog.get_logger()

CLOCK_LEEWAY_SECONDS = 30
"""Seconds by which clocks may differ."""
JWKS_REFRESH_INTERVAL_SECONDS = 60
"""Seconds between two fetches of the provider's keys, at least."""
JWKS_MAX_AGE_SECONDS = 3600
"""Seconds after which keys are fetched anew, so that one that was withdrawn is not trusted for ever."""
JWKS_RETRY_SECONDS = 3
"""Seconds between two fetches as long as there are no keys at all."""
FETCH_TIMEOUT_SECONDS = 3
"""Seconds that the provider has to answer."""


class _UntrustedProviderError(ValueError):
    """What answered is not the provider that the settings name, or sends elsewhere."""


class _StrictPyJWT(jwt.PyJWT):
    """PyJWT, which reads claims as strictly as `app.auth.claims` does before it looks at them."""

    def __init__(self, claim_names: Mapping[str, str]) -> None:
        super().__init__()
        self._claim_names = claim_names

    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        """PyJWT's hook: read what was signed."""
        claims = decoded["claims"] = read_claims(decoded["payload"], self._claim_names)
        return claims.model_dump()


class IdentityProvider:
    """An identity provider, found by its issuer URL (OpenID Connect Discovery 1.0)."""

    def __init__(self, issuer: str, audience: str, claim_names: Mapping[str, str]) -> None:
        """`names` has what the claims `scope` and, where it counts, `hospitals` are called in its tokens."""
        self.issuer = issuer
        self.audience = audience
        self._claim_names = claim_names
        # no redirects: keys come from where the provider says they are, or not at all
        self._client = httpx.AsyncClient(timeout=FETCH_TIMEOUT_SECONDS, follow_redirects=False)
        self._signing_keys: dict[str, jwt.PyJWK] = {}
        self._is_provider_trusted = True
        self._last_attempt_at = float("-inf")
        self._last_success_at = float("-inf")
        self._refresh_task: asyncio.Task[None] | None = None

    async def verify(self, token: str) -> Claims:
        """The claims of a token.

        Raises:
            InvalidTokenError: it is none of this provider's for us, or not valid now; or somebody else answers as it.
            UnavailableError: the provider's keys were never had, and cannot be had now.
        """
        header = read_header(token)
        key = await self._signing_key(header.kid)
        try:
            decoded = _StrictPyJWT(self._claim_names).decode_complete(
                token,
                key,
                algorithms=[header.alg],
                issuer=self.issuer,
                audience=self.audience,
                leeway=CLOCK_LEEWAY_SECONDS,
            )
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            raise InvalidTokenError(type(error).__name__) from None
        claims: Claims = decoded["claims"]
        return claims

    async def _signing_key(self, kid: str) -> jwt.PyJWK:
        if kid not in self._signing_keys:
            self._refresh_if_due()
            if self._refresh_task is not None:
                await asyncio.shield(self._refresh_task)  # a client that hangs up does not end it for the others
        elif time.monotonic() - self._last_success_at > JWKS_MAX_AGE_SECONDS:
            self._refresh_if_due()  # nobody waits for it: the provider may be away
        if not self._signing_keys and self._is_provider_trusted:
            raise UnavailableError("The identity provider cannot be reached. Try again.")
        if kid not in self._signing_keys:
            raise InvalidTokenError("kid")
        return self._signing_keys[kid]

    def _refresh_if_due(self) -> None:
        """Begin to fetch the keys, if it is time."""
        is_idle = self._refresh_task is None or self._refresh_task.done()
        if is_idle and time.monotonic() - self._last_attempt_at > (
            JWKS_REFRESH_INTERVAL_SECONDS if self._signing_keys else JWKS_RETRY_SECONDS
        ):
            self._refresh_task = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        """Fetch the keys; where that fails, go on with those that there are."""
        try:
            metadata = await self._fetch_json(
                f"{self.issuer.rstrip('/')}/.well-known/openid-configuration", self.issuer
            )
            self._signing_keys = _usable_signing_keys((await self._fetch_json(metadata["jwks_uri"]))["keys"])
            self._is_provider_trusted = True
            self._last_success_at = time.monotonic()
        except (httpx.HTTPError, httpx.InvalidURL, LookupError, TimeoutError, TypeError, ValueError) as error:
            self._is_provider_trusted = not isinstance(error, _UntrustedProviderError)
            log.warning("the identity provider's keys could not be fetched", error=type(error).__name__)
        finally:
            self._last_attempt_at = time.monotonic()

    async def _fetch_json(self, url: str, expected_issuer: str | None = None) -> dict[str, Any]:
        if not is_secure_url(url):
            raise _UntrustedProviderError("its keys are not behind https")
        async with asyncio.timeout(FETCH_TIMEOUT_SECONDS):  # in all: a provider that trickles is as good as none
            response = await self._client.get(url)
        if response.is_redirect:
            raise _UntrustedProviderError("it sends elsewhere")
        if response.status_code != httpx.codes.OK:
            raise ValueError(f"it answered {response.status_code}")
        document: dict[str, Any] = response.json()
        if expected_issuer is not None and document["issuer"] != expected_issuer:  # Discovery 1.0, section 4.3
            raise _UntrustedProviderError("it calls itself otherwise")
        return document

    async def close(self) -> None:
        """Close its connections."""
        if self._refresh_task is not None:
            self._refresh_task.cancel()
        await self._client.aclose()


def _usable_signing_keys(jwks: list[Any]) -> dict[str, jwt.PyJWK]:
    """The keys that verify signatures, by their kid. One that cannot be read takes none of the others away."""
    keys_by_kid = {}
    for key in jwks:
        if isinstance(key, dict) and key.get("use", "sig") == "sig" and key.get("kty") != "oct":
            with suppress(jwt.PyJWTError, LookupError, TypeError, ValueError):
                keys_by_kid[key["kid"]] = jwt.PyJWK(key)
    return keys_by_kid
