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
from app.auth.limiting import RateLimits
from app.auth.principal import Principal
from app.auth.scopes import Scope
from app.db.session import Database
from app.errors import InvalidTokenError, UnauthorizedError, UnavailableError
from app.settings import Settings

if TYPE_CHECKING:
    from app.auth.oidc import Provider

log = structlog.get_logger()

TRUSTED_FOR = 5
"""Seconds for which verified credentials are not verified again: a revoked key works for at most so long."""
MOST_CHARACTERS = 16_384
"""Of credentials: more than any token has."""
NOTED_EVERY = 60
"""Seconds after which the use of keys is written down."""


class Authenticator:
    """Recognises principals by API key or access token."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.limits = RateLimits(settings.effective_rate_limit)
        self.provider = _provider(settings)
        self._verified: TTLCache[bytes, tuple[Principal, float]] = TTLCache(maxsize=10_000, ttl=TRUSTED_FOR)
        self._known: LRUCache[bytes, tuple[Principal, datetime | None]] = LRUCache(maxsize=100)
        """Keys that may read metrics and nothing else."""
        self._used: set[str] = set()

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
            await self.limits.count_request(address)
            return Principal("local", request_id)
        try:
            principal = await self._recognise(_credentials(request), request_id)
        except UnauthorizedError:
            # counted after the fact: behind one address may be a whole clinic, with one broken device
            await self.limits.count_failure(address)
            raise
        request.scope.setdefault("state", {})["who"] = principal.name  # for the log, also where it is refused
        await self.limits.count_request(principal.name)
        if principal.name.startswith(keys.ACTOR):
            self._used.add(principal.name)
        principal.require(scope)
        return dataclasses.replace(principal, request_id=request_id)

    async def _recognise(self, credentials: str | None, request_id: str) -> Principal:
        if credentials is None:
            raise UnauthorizedError
        # not the credentials: what is in memory may end in a dump
        digest = hashlib.sha256(credentials.encode()).digest()
        verified, until = self._verified.get(digest, (None, 0.0))
        if verified is not None and time.time() < until:
            return verified
        if credentials.startswith(keys.PREFIX):
            principal, until = await self._of_key(credentials, digest)
        else:
            principal, until = await self._of_token(credentials, request_id)
        self._verified[digest] = (principal, until)
        return principal

    async def _of_key(self, key: str, digest: bytes) -> tuple[Principal, float]:
        if not keys.is_key(key):
            raise UnauthorizedError(invalid=True)
        known = self._known.pop(digest, None)
        try:
            async with self.database.read() as connection:
                found = await keys.find(connection, key)
        except UnavailableError:
            if known is None:
                raise
            found = known  # metrics are needed most while the database is away
        if found is None:
            raise UnauthorizedError(invalid=True)
        principal, expires = found
        if principal.scopes == {Scope.METRICS_READ}:
            self._known[digest] = found
        return principal, expires.timestamp() if expires else float("inf")

    async def _of_token(self, token: str, request_id: str) -> tuple[Principal, float]:
        if self.provider is None:
            raise UnauthorizedError(invalid=True)
        try:
            claims = await self.provider.verify(token)
        except InvalidTokenError as error:
            log.info("token refused", request_id=request_id, reason=str(error))
            raise UnauthorizedError(invalid=True) from None
        scopes = frozenset(scope for scope in Scope if scope in claims.scope)
        unlimited = self.settings.oidc_hospitals_claim is None or (Scope.ADMIN in scopes and not claims.says_hospitals)
        hospitals = None if unlimited else frozenset(claims.hospitals)
        return Principal(f"oidc:{claims.sub}", scopes=scopes, hospitals=hospitals), claims.exp

    async def note_uses(self) -> None:
        """Write down from time to time, until cancelled, which keys were used: not with each request."""
        while True:
            try:
                await asyncio.sleep(NOTED_EVERY)
            finally:
                await self._note()

    async def _note(self) -> None:
        used, self._used = self._used, set()
        if not used:
            return
        try:
            await self.database.transaction(lambda connection: keys.note_use(connection, used))
        except (DBAPIError, UnavailableError, asyncio.CancelledError) as error:
            self._used |= used
            if isinstance(error, asyncio.CancelledError):
                raise
            log.warning("the use of keys was not noted", error=type(error).__name__)

    async def close(self) -> None:
        """Close what it holds open."""
        if self.provider is not None:
            await self.provider.close()


def _provider(settings: Settings) -> "Provider | None":
    """The identity provider that the settings name, if they do."""
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        return None
    from app.auth.oidc import Provider  # noqa: PLC0415  # its libraries take five megabytes of each process

    names = {"scope": settings.oidc_scope_claim}
    if settings.oidc_hospitals_claim is not None:
        names["hospitals"] = settings.oidc_hospitals_claim
    return Provider(settings.oidc_issuer, settings.oidc_audience, names)


def _credentials(request: HTTPConnection) -> str | None:
    """What the request sends to say who asks. Of several, a proxy may have looked at another one: none counts."""
    lines = [line.partition(" ") for line in request.headers.getlist("authorization")]
    sent = [rest.strip() for scheme, _, rest in lines if scheme.lower() == "bearer"]
    sent = [credentials for credentials in (*sent, *request.headers.getlist("x-api-key")) if credentials]
    if len(sent) > 1 or any(len(credentials) > MOST_CHARACTERS for credentials in sent):
        raise UnauthorizedError(invalid=True)
    return sent[0] if sent else None
