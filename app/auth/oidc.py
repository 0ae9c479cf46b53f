"""Verification of access tokens, which an OpenID Connect identity provider issues to people (RFC 9068, RFC 8725)."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

import httpx
import jwt
import structlog

from app.auth.claims import Claims, read_claims, read_header
from app.errors import InvalidTokenError, UnavailableError
from app.settings import Settings, is_secure_url

log = structlog.get_logger()

CLOCK_LEEWAY_SECONDS = 30
"""Seconds by which the clocks of the provider and of this service may differ without a token being rejected."""
JWKS_REFRESH_INTERVAL_SECONDS = 60
"""Minimum number of seconds between two fetches of the provider's signing keys."""
JWKS_MAX_AGE_SECONDS = 3600
"""Age in seconds after which signing keys are fetched again, so that a withdrawn key is not trusted forever."""
JWKS_RETRY_SECONDS = 3
"""Minimum number of seconds between two fetches while no signing keys are available."""
FETCH_TIMEOUT_SECONDS = 3
"""Maximum number of seconds that one HTTP request to the provider may take."""
FETCH_ERRORS = (httpx.HTTPError, httpx.InvalidURL, LookupError, TimeoutError, TypeError, ValueError)
"""Errors that mean that the provider cannot be reached, or that its responses cannot be used."""


class _UntrustedProviderError(ValueError):
    """The provider uses an insecure URL, redirects, or has a different issuer URL than the one in the settings."""


class _StrictPyJWT(jwt.PyJWT):
    """PyJWT, except that `app.auth.claims` strictly validates the claims before PyJWT checks them."""

    def __init__(self, claim_names: Mapping[str, str]) -> None:
        super().__init__()
        self._claim_names = claim_names

    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        """Return the claims of a payload whose signature PyJWT has verified. PyJWT calls this method."""
        claims = decoded["claims"] = read_claims(decoded["payload"], self._claim_names)
        return claims.model_dump()


class IdentityProvider:
    """An identity provider, discovered through its issuer URL (OpenID Connect Discovery 1.0)."""

    def __init__(self, issuer: str, audience: str, claim_names: Mapping[str, str]) -> None:
        """Prepare to verify tokens that `issuer` has issued for `audience`. Nothing is fetched yet.

        `claim_names` maps `scope` to the name of the claim with the scopes. If tokens may restrict people to hospitals,
        it also maps `hospitals` to the name of the claim with the hospitals.
        """
        self.issuer = issuer
        self.audience = audience
        self._claim_names = claim_names
        # redirects are not followed, because keys are accepted only from the URL that the provider names
        self._client = httpx.AsyncClient(timeout=FETCH_TIMEOUT_SECONDS, follow_redirects=False)
        self._signing_keys: dict[str, jwt.PyJWK] = {}
        self._is_provider_trusted = True
        self._last_attempt_at = float("-inf")
        self._last_success_at = float("-inf")
        self._refresh_task: asyncio.Task[None] | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the identity provider that the settings specify."""
        assert settings.oidc_issuer is not None and settings.oidc_audience is not None  # noqa: S101, PT018  # callers check
        claim_names = {"scope": settings.oidc_scope_claim}
        if settings.oidc_hospitals_claim is not None:
            claim_names["hospitals"] = settings.oidc_hospitals_claim
        return cls(settings.oidc_issuer, settings.oidc_audience, claim_names)

    async def verify(self, token: str) -> Claims:
        """Verify a token and return its claims.

        Raises:
            InvalidTokenError: the token is malformed, expired or not valid yet, or it was not issued by this provider
                for this audience. Also raised if the service has no keys because it does not trust the provider: the
                provider redirects, has another issuer URL, or its keys have an insecure URL.
            UnavailableError: the service has no keys of the provider yet and cannot fetch them now.
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
                # a client that disconnects must not cancel the fetch for other clients
                await asyncio.shield(self._refresh_task)
        elif time.monotonic() - self._last_success_at > JWKS_MAX_AGE_SECONDS:
            self._refresh_if_due()  # not awaited, because the provider may be unavailable
        if not self._signing_keys and self._is_provider_trusted:
            raise UnavailableError("The identity provider cannot be reached. Try again.")
        if kid not in self._signing_keys:
            raise InvalidTokenError("kid")
        return self._signing_keys[kid]

    def _refresh_if_due(self) -> None:
        """Start to fetch the keys in the background, unless a fetch is running or the last fetch was too recent."""
        is_idle = self._refresh_task is None or self._refresh_task.done()
        if is_idle and time.monotonic() - self._last_attempt_at > (
            JWKS_REFRESH_INTERVAL_SECONDS if self._signing_keys else JWKS_RETRY_SECONDS
        ):
            self._refresh_task = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        """Fetch the provider's signing keys. If that fails, log a warning and keep the keys of the previous fetch."""
        try:
            self._signing_keys = await self.fetch_signing_keys()
            self._is_provider_trusted = True
            self._last_success_at = time.monotonic()
        except FETCH_ERRORS as error:
            self._is_provider_trusted = not isinstance(error, _UntrustedProviderError)
            log.warning("the identity provider's keys could not be fetched", error=type(error).__name__)
        finally:
            self._last_attempt_at = time.monotonic()

    async def fetch_signing_keys(self) -> dict[str, jwt.PyJWK]:
        """Return the provider's usable signing keys by `kid`. A failure is one of `FETCH_ERRORS`."""
        metadata = await self._fetch_json(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration", self.issuer)
        return _usable_signing_keys((await self._fetch_json(metadata["jwks_uri"]))["keys"])

    async def _fetch_json(self, url: str, expected_issuer: str | None = None) -> dict[str, Any]:
        if not is_secure_url(url):
            raise _UntrustedProviderError("the URL does not use https")
        # the timeout covers the whole response, so that a provider that sends it byte by byte counts as unavailable
        async with asyncio.timeout(FETCH_TIMEOUT_SECONDS):
            response = await self._client.get(url)
        if response.is_redirect:
            raise _UntrustedProviderError("the provider redirects to another URL")
        if response.status_code != httpx.codes.OK:
            raise ValueError(f"the provider responded with {response.status_code}")
        document: dict[str, Any] = response.json()
        if expected_issuer is not None and document["issuer"] != expected_issuer:  # Discovery 1.0, section 4.3
            raise _UntrustedProviderError(f"the provider's issuer URL is {str(document['issuer'])[:200]}")
        return document

    async def close(self) -> None:
        """Cancel a running fetch and close the connections to the provider."""
        if self._refresh_task is not None:
            self._refresh_task.cancel()
        await self._client.aclose()


def _usable_signing_keys(jwks: list[Any]) -> dict[str, jwt.PyJWK]:
    """Return the signing keys in a JWK set as a mapping from `kid` to key. Keys that cannot be parsed are skipped."""
    keys_by_kid = {}
    for key in jwks:
        if isinstance(key, dict) and key.get("use", "sig") == "sig" and key.get("kty") != "oct":
            with suppress(jwt.PyJWTError, LookupError, TypeError, ValueError):
                keys_by_kid[key["kid"]] = jwt.PyJWK(key)
    return keys_by_kid
