"""Authentication of requests. This is the only module that turns credentials into a principal."""

import asyncio
import dataclasses
import hashlib
import time
from datetime import datetime
from typing import TYPE_CHECKING

import asyncpg
import structlog
from cachetools import LRUCache, TTLCache
from starlette.requests import HTTPConnection

from app.auth import keys
from app.auth.principal import UNAUTHENTICATED_NAME, Principal
from app.auth.rate_limits import RateLimits
from app.auth.scopes import Scope
from app.db.database import Database
from app.errors import InvalidTokenError, UnauthorizedError, UnavailableError
from app.request_state import RequestState
from app.settings import Settings

if TYPE_CHECKING:
    from app.auth.oidc import IdentityProvider

log = structlog.get_logger()

CREDENTIAL_CACHE_SECONDS = 5
"""Seconds for which verified credentials are cached. A revoked key keeps working for at most this long."""
MAX_CREDENTIAL_LENGTH = 16_384
"""Maximum length of the credentials in a request, in characters. No real token is longer."""
LAST_USED_FLUSH_INTERVAL_SECONDS = 60
"""Seconds between two writes to the database that store which API keys were used."""


class Authenticator:
    """Authenticates requests by API key or access token, and enforces the rate limits."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.rate_limits = RateLimits(settings.effective_rate_limit)
        self.provider = _identity_provider(settings)
        self._credential_cache: TTLCache[bytes, tuple[Principal, float]] = TTLCache(
            maxsize=10_000, ttl=CREDENTIAL_CACHE_SECONDS
        )
        self._metrics_only_keys: LRUCache[bytes, tuple[Principal, datetime | None]] = LRUCache(maxsize=100)
        """The verified API keys that have only the scope `metrics:read`, by digest, each with its principal and expiry.

        These keys are also accepted while the database is unavailable.
        """
        self._used_since_flush: set[str] = set()

    async def authenticate(self, request: HTTPConnection, request_id: str, scope: Scope | None) -> Principal:
        """Authenticate a request, check that its principal has `scope`, and return the principal.

        If `scope` is None, any valid credentials suffice.

        Raises:
            UnauthorizedError: the credentials are missing or invalid.
            MissingScopeError: the principal lacks the scope.
            TooManyRequestsError: the principal exceeds its limit on requests, or the client's address exceeds its limit
                on failed authentications.
            UnavailableError: the credentials cannot be verified, because the database or the identity provider is
                unavailable.
        """
        address, _ = request.scope.get("client") or ("", 0)
        if not self.settings.auth_required:
            await self.rate_limits.count_request(address)
            return Principal(UNAUTHENTICATED_NAME, request_id)
        try:
            principal = await self._verify_credentials(_credentials(request), request_id)
        except UnauthorizedError:
            # only failures count per address: a clinic may share one address, and one device must not block the others
            await self.rate_limits.count_failure(address)
            raise
        # this is set first, so that the name is logged even if the request is rejected
        RequestState.from_scope(request.scope).principal_name = principal.name
        await self.rate_limits.count_request(principal.name)
        if principal.name.startswith(keys.PRINCIPAL_PREFIX):
            self._used_since_flush.add(principal.name)
        if scope is not None:
            principal.require(scope)
            if scope is not Scope.METRICS_READ:  # a monitoring system is active all the time, and needs little
                self.database.note_activity(principal.name)
        return dataclasses.replace(principal, request_id=request_id)

    async def _verify_credentials(self, credentials: str | None, request_id: str) -> Principal:
        if credentials is None:
            raise UnauthorizedError
        # the cache contains digests instead of credentials, because memory may end up in a dump
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
            active_key = cached_key  # metrics are most useful while the database is unavailable
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
        """Store which API keys were used, every `LAST_USED_FLUSH_INTERVAL_SECONDS` instead of with every request.

        This runs until it is cancelled, and then stores the remaining uses.
        """
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
        except (asyncpg.PostgresError, UnavailableError, asyncio.CancelledError) as error:
            self._used_since_flush |= used_names
            if isinstance(error, asyncio.CancelledError):
                raise
            log.warning("the last use of keys was not stored", error=type(error).__name__)

    async def close(self) -> None:
        """Close the connections to the identity provider, if there is one."""
        if self.provider is not None:
            await self.provider.close()


def _identity_provider(settings: Settings) -> "IdentityProvider | None":
    """Return the identity provider that the settings specify, or None if they specify none."""
    if settings.oidc_issuer is None:
        return None
    from app.auth.oidc import IdentityProvider  # noqa: PLC0415  # its libraries take five megabytes in each process

    return IdentityProvider.from_settings(settings)


def _credentials(request: HTTPConnection) -> str | None:
    """Return the API key or access token that a request carries, or None if it carries neither.

    A request with several credentials is rejected, because a proxy may have checked a different one than this service
    would.

    Raises:
        UnauthorizedError: the request has several credentials, or one that is longer than `MAX_CREDENTIAL_LENGTH`.
    """
    lines = [line.partition(" ") for line in request.headers.getlist("authorization")]
    candidates = [rest.strip() for scheme, _, rest in lines if scheme.lower() == "bearer"]
    candidates = [credentials for credentials in (*candidates, *request.headers.getlist("x-api-key")) if credentials]
    if len(candidates) > 1 or any(len(credentials) > MAX_CREDENTIAL_LENGTH for credentials in candidates):
        raise UnauthorizedError(invalid=True)
    return candidates[0] if candidates else None
