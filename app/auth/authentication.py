"""Who asks: the one place where credentials become a principal."""

import asyncio
import dataclasses
import hashlib
import time
from datetime import datetime
from typing import TYPE_CHECKING

import structlog
from cachetools import LRUCache, TTLCache
from sqlalchemy.exc import DBAPIError
from starlette.requests import HTTPConnection

from app.auth import keys
from app.auth.principal import Principal
from app.auth.rate_limits import RateLimits
from app.auth.scopes import Scope
from app.db.database import Database
from app.errors import InvalidTokenError, UnauthorizedError, UnavailableError
from app.settings import Settings

if TYPE_CHECKING:
    from app.auth.oidc import IdentityProvider

log = structlog.get_logger()

CREDENTIAL_CACHE_SECONDS = 5
"""Seconds for which verified credentials are not verified again: a revoked key works for at most so long."""
MAX_CREDENTIAL_LENGTH = 16_384
"""Of credentials: more than any token has."""
LAST_USED_FLUSH_INTERVAL_SECONDS = 60
"""Seconds after which the use of keys is written down."""


class Authenticator:
    """Recognises principals by API key or access token."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.rate_limits = RateLimits(settings.effective_rate_limit)
        self.provider = _identity_provider(settings)
        self._credential_cache: TTLCache[bytes, tuple[Principal, float]] = TTLCache(
            maxsize=10_000, ttl=CREDENTIAL_CACHE_SECONDS
        )
        self._metrics_only_keys: LRUCache[bytes, tuple[Principal, datetime | None]] = LRUCache(maxsize=100)
        """Keys that may read metrics and nothing else."""
        self._used_since_flush: set[str] = set()

    async def authenticate(self, request: HTTPConnection, request_id: str, scope: Scope) -> Principal:
        """Who sent a request, who may do what `scope` grants.

        Raises:
            UnauthorizedError: there are no credentials, or they are not valid.
            MissingScopeError: the principal lacks the scope.
            TooManyRequestsError: it, or its address, asks too often.
            UnavailableError: its credentials cannot be verified at the moment.
        """
        address, _ = request.scope.get("client") or ("", 0)
        if not self.settings.auth_required:
            await self.rate_limits.count_request(address)
            return Principal("local", request_id)
        try:
            principal = await self._verify_credentials(_credentials(request), request_id)
        except UnauthorizedError:
            # counted after the fact: behind one address may be a whole clinic, with one broken device
            await self.rate_limits.count_failure(address)
            raise
        request.scope.setdefault("state", {})["who"] = principal.name  # for the log, also where it is refused
        await self.rate_limits.count_request(principal.name)
        if principal.name.startswith(keys.PRINCIPAL_PREFIX):
            self._used_since_flush.add(principal.name)
        principal.require(scope)
        return dataclasses.replace(principal, request_id=request_id)

    async def _verify_credentials(self, credentials: str | None, request_id: str) -> Principal:
        if credentials is None:
            raise UnauthorizedError
        # not the credentials: what is in memory may end in a dump
        digest = hashlib.sha256(credentials.encode()).digest()
        cached_principal, valid_until = self._credential_cache.get(digest, (None, 0.0))
        if cached_principal is not None and time.time() < valid_until:
            return cached_principal
        if credentials.startswith(keys.KEY_PREFIX):
            principal, valid_until = await self._principal_from_key(credentials, digest)
        else:
            principal, valid_until = await self._principal_from_token(credentials, request_id)
        self._credential_cache[digest] = (principal, valid_until)
        return principal

    async def _principal_from_key(self, key: str, digest: bytes) -> tuple[Principal, float]:
        if not keys.is_key(key):
            raise UnauthorizedError(invalid=True)
        cached_key = self._metrics_only_keys.pop(digest, None)
        try:
            async with self.database.read() as connection:
                active_key = await keys.find_active(connection, key)
        except UnavailableError:
            if cached_key is None:
                raise
            active_key = cached_key  # metrics are needed most while the database is away
        if active_key is None:
            raise UnauthorizedError(invalid=True)
        principal, expires = active_key
        if principal.scopes == {Scope.METRICS_READ}:
            self._metrics_only_keys[digest] = active_key
        return principal, expires.timestamp() if expires else float("inf")

    async def _principal_from_token(self, token: str, request_id: str) -> tuple[Principal, float]:
        if self.provider is None:
            raise UnauthorizedError(invalid=True)
        try:
            claims = await self.provider.verify(token)
        except InvalidTokenError as error:
            log.info("token refused", request_id=request_id, reason=str(error))
            raise UnauthorizedError(invalid=True) from None
        scopes = frozenset(scope for scope in Scope if scope in claims.scope)
        unrestricted = self.settings.oidc_hospitals_claim is None or (
            Scope.ADMIN in scopes and not claims.has_hospitals
        )
        hospitals = None if unrestricted else frozenset(claims.hospitals)
        return Principal(f"oidc:{claims.sub}", scopes=scopes, hospitals=hospitals), claims.exp

    async def flush_last_used_periodically(self) -> None:
        """Write down from time to time, until cancelled, which keys were used: not with each request."""
        while True:
            try:
                await asyncio.sleep(LAST_USED_FLUSH_INTERVAL_SECONDS)
            finally:
                await self._flush_last_used()

    async def _flush_last_used(self) -> None:
        used_names, self._used_since_flush = self._used_since_flush, set()
        if not used_names:
            return
        try:
            await self.database.transaction(lambda connection: keys.update_last_used(connection, used_names))
        except (DBAPIError, UnavailableError, asyncio.CancelledError) as error:
            self._used_since_flush |= used_names
            if isinstance(error, asyncio.CancelledError):
                raise
            log.warning("the use of keys was not noted", error=type(error).__name__)

    async def close(self) -> None:
        """Close what it holds open."""
        if self.provider is not None:
            await self.provider.close()


def _identity_provider(settings: Settings) -> "IdentityProvider | None":
    """The identity provider that the settings name, if they do."""
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        return None
    from app.auth.oidc import IdentityProvider  # noqa: PLC0415  # its libraries take five megabytes of each process

    claim_names = {"scope": settings.oidc_scope_claim}
    if settings.oidc_hospitals_claim is not None:
        claim_names["hospitals"] = settings.oidc_hospitals_claim
    return IdentityProvider(settings.oidc_issuer, settings.oidc_audience, claim_names)


def _credentials(request: HTTPConnection) -> str | None:
    """What the request sends to say who asks. Of several, a proxy may have looked at another one: none counts."""
    lines = [line.partition(" ") for line in request.headers.getlist("authorization")]
    candidates = [rest.strip() for scheme, _, rest in lines if scheme.lower() == "bearer"]
    candidates = [credentials for credentials in (*candidates, *request.headers.getlist("x-api-key")) if credentials]
    if len(candidates) > 1 or any(len(credentials) > MAX_CREDENTIAL_LENGTH for credentials in candidates):
        raise UnauthorizedError(invalid=True)
    return candidates[0] if candidates else None
