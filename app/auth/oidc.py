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
from app.settings import is_safe

log = structlog.get_logger()

LEEWAY = 30
"""Seconds by which clocks may differ."""
REFRESH_AFTER = 60
"""Seconds between two fetches of the provider's keys, at least."""
STALE_AFTER = 3600
"""Seconds after which keys are fetched anew, so that one that was withdrawn is not trusted for ever."""
ASK_AGAIN_AFTER = 3
"""Seconds between two fetches as long as there are no keys at all."""
TIMEOUT = 3
"""Seconds that the provider has to answer."""


class _UntrustedError(ValueError):
    """What answered is not the provider that the settings name, or sends elsewhere."""


class _Tokens(jwt.PyJWT):
    """PyJWT, which reads claims as strictly as `app.auth.claims` does before it looks at them."""

    def __init__(self, names: Mapping[str, str]) -> None:
        super().__init__()
        self._names = names

    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        """PyJWT's hook: read what was signed."""
        claims = decoded["claims"] = read_claims(decoded["payload"], self._names)
        return claims.model_dump()


class Provider:
    """An identity provider, found by its issuer URL (OpenID Connect Discovery 1.0)."""

    def __init__(self, issuer: str, audience: str, names: Mapping[str, str]) -> None:
        """`names` has what the claims `scope` and, where it counts, `hospitals` are called in its tokens."""
        self.issuer = issuer
        self.audience = audience
        self._names = names
        # no redirects: keys come from where the provider says they are, or not at all
        self._client = httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False)
        self._keys: dict[str, jwt.PyJWK] = {}
        self._trusted = True
        self._asked = float("-inf")
        self._fetched = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None

    async def verify(self, token: str) -> Claims:
        """The claims of a token.

        Raises:
            InvalidTokenError: it is none of this provider's for us, or not valid now; or somebody else answers as it.
            UnavailableError: the provider's keys were never had, and cannot be had now.
        """
        header = read_header(token)
        key = await self._key(header.kid)
        try:
            decoded = _Tokens(self._names).decode_complete(
                token, key, algorithms=[header.alg], issuer=self.issuer, audience=self.audience, leeway=LEEWAY
            )
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            raise InvalidTokenError(type(error).__name__) from None
        claims: Claims = decoded["claims"]
        return claims

    async def _key(self, kid: str) -> jwt.PyJWK:
        if kid not in self._keys:
            self._refresh_if_due()
            if self._refreshing is not None:
                await asyncio.shield(self._refreshing)  # a client that hangs up does not end it for the others
        elif time.monotonic() - self._fetched > STALE_AFTER:
            self._refresh_if_due()  # nobody waits for it: the provider may be away
        if not self._keys and self._trusted:
            raise UnavailableError("The identity provider cannot be reached. Try again.")
        if kid not in self._keys:
            raise InvalidTokenError("kid")
        return self._keys[kid]

    def _refresh_if_due(self) -> None:
        """Begin to fetch the keys, if it is time."""
        idle = self._refreshing is None or self._refreshing.done()
        if idle and time.monotonic() - self._asked > (REFRESH_AFTER if self._keys else ASK_AGAIN_AFTER):
            self._refreshing = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        """Fetch the keys; where that fails, go on with those that there are."""
        try:
            about = await self._fetch(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration", self.issuer)
            self._keys = _usable((await self._fetch(about["jwks_uri"]))["keys"])
            self._trusted = True
            self._fetched = time.monotonic()
        except (httpx.HTTPError, httpx.InvalidURL, LookupError, TimeoutError, TypeError, ValueError) as error:
            self._trusted = not isinstance(error, _UntrustedError)
            log.warning("the identity provider's keys could not be fetched", error=type(error).__name__)
        finally:
            self._asked = time.monotonic()

    async def _fetch(self, url: str, issuer: str | None = None) -> dict[str, Any]:
        if not is_safe(url):
            raise _UntrustedError("its keys are not behind https")
        async with asyncio.timeout(TIMEOUT):  # in all: a provider that trickles is as good as none
            answer = await self._client.get(url)
        if answer.is_redirect:
            raise _UntrustedError("it sends elsewhere")
        if answer.status_code != httpx.codes.OK:
            raise ValueError(f"it answered {answer.status_code}")
        document: dict[str, Any] = answer.json()
        if issuer is not None and document["issuer"] != issuer:  # Discovery 1.0, section 4.3
            raise _UntrustedError("it calls itself otherwise")
        return document

    async def close(self) -> None:
        """Close its connections."""
        if self._refreshing is not None:
            self._refreshing.cancel()
        await self._client.aclose()


def _usable(keys: list[Any]) -> dict[str, jwt.PyJWK]:
    """The keys that verify signatures, by their kid. One that cannot be read takes none of the others away."""
    usable = {}
    for key in keys:
        if isinstance(key, dict) and key.get("use", "sig") == "sig" and key.get("kty") != "oct":
            with suppress(jwt.PyJWTError, LookupError, TypeError, ValueError):
                usable[key["kid"]] = jwt.PyJWK(key)
    return usable
