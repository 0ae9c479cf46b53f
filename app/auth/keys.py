"""API keys: creation, listing, revocation and verification."""

import hashlib
import re
import secrets
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, bindparam, func, insert, literal, or_, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.auth.scopes import Scope
from app.models import api_keys

KEY_PREFIX = "papi_"
"""Prefix of every key, so that people and secret scanners recognise it."""


PRINCIPAL_PREFIX = "key:"
"""Prefix of the names of principals that are API keys."""
NAME_PATTERN = re.compile(r"(?=.{1,64}$)[A-Za-z0-9](?: ?[A-Za-z0-9._@-])*")
"""Pattern of key names; leading, trailing and repeated spaces are not allowed, because nobody sees them."""
KEY_CREATION_LOCK_KEY = 0x6B657973
"""Key of the advisory lock that serialises key creation: an arbitrary number, the same in all versions (for `keys`)."""
_KEY_PATTERN = re.compile(KEY_PREFIX + r"[A-Za-z0-9_-]{43}")


class KeyNameTakenError(Exception):
    """An active or revoked key already has the name, or a similar one."""


def is_key(text: str) -> bool:
    """Return whether a text has the form of a key; any other text needs no database query."""
    return _KEY_PATTERN.fullmatch(text) is not None


def key_digest(key: str) -> bytes:
    """Return the digest of a key that is stored instead of it: 256 random bits need neither a salt nor a slow hash."""
    return hashlib.sha256(key.encode()).digest()


async def create(
    connection: AsyncConnection,
    name: str,
    scopes: Collection[Scope],
    hospitals: Collection[str] | None = None,
    expires: datetime | None = None,
) -> str:
    """Create a key of 256 random bits and return it; it is not stored and cannot be shown again.

    `hospitals` are the ids of the hospitals that the key is restricted to; None leaves it unrestricted.

    Raises:
        KeyNameTakenError: an active or revoked key has the name, or one that differs only in case or spaces.
    """
    await connection.execute(select(func.pg_advisory_xact_lock(KEY_CREATION_LOCK_KEY)))
    select_similar_name = select(api_keys.c.name).where(_folded_name(api_keys.c.name) == _folded_name(literal(name)))
    if (taken_name := (await connection.execute(select_similar_name.limit(1))).scalar_one_or_none()) is not None:
        raise KeyNameTakenError(f"A key named {taken_name} exists or existed: choose another name.")
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    values = {"name": name, "digest": key_digest(key), "scopes": sorted(scopes), "expires": expires}
    await connection.execute(insert(api_keys).values(**values, hospitals=hospitals and sorted(hospitals)))
    return key


def _folded_name(name: ColumnElement[str]) -> ColumnElement[str]:
    """Return a form of a name that is equal for names that differ only in case or spaces."""
    return func.lower(func.replace(name, " ", ""))


async def revoke(connection: AsyncConnection, name: str) -> bool:
    """Revoke a key and return whether there was an active key with this name."""
    is_active = (api_keys.c.name == name, api_keys.c.revoked.is_(None))
    statement = update(api_keys).where(*is_active).values(revoked=func.statement_timestamp()).returning(api_keys.c.name)
    return (await connection.execute(statement)).one_or_none() is not None


async def list_keys(connection: AsyncConnection) -> list[RowMapping]:
    """Return all keys, ordered by name, without their digests."""
    columns = [column for column in api_keys.columns if column.name != "digest"]
    return list((await connection.execute(select(*columns).order_by(api_keys.c.name))).mappings())


_SELECT_ACTIVE_KEY = select(api_keys.c.name, api_keys.c.scopes, api_keys.c.hospitals, api_keys.c.expires).where(
    api_keys.c.digest == bindparam("digest"),
    api_keys.c.revoked.is_(None),
    or_(api_keys.c.expires.is_(None), api_keys.c.expires > func.statement_timestamp()),
)


async def find_active(connection: AsyncConnection, key: str) -> tuple[Principal, datetime | None] | None:
    """Return the principal of a key and when the key expires, if ever; None if it is unknown, expired or revoked."""
    row = (await connection.execute(_SELECT_ACTIVE_KEY, {"digest": key_digest(key)})).one_or_none()
    if row is None:
        return None
    hospitals = None if row.hospitals is None else frozenset(row.hospitals)
    scopes = frozenset(scope for scope in Scope if scope in row.scopes)  # a newer version may have stored other scopes
    return Principal(f"{PRINCIPAL_PREFIX}{row.name}", scopes=scopes, hospitals=hospitals), row.expires


async def update_last_used(connection: AsyncConnection, principal_names: Collection[str]) -> None:
    """Store the current time as the last use of the keys of these principals."""
    key_names = [principal.removeprefix(PRINCIPAL_PREFIX) for principal in principal_names]
    await connection.execute(
        update(api_keys).where(api_keys.c.name.in_(key_names)).values(last_used=func.statement_timestamp())
    )
