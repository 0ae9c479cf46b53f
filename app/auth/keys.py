"""Creation, listing, revocation and verification of API keys."""

import hashlib
import re
import secrets
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ARRAY, ColumnElement, any_, bindparam, func, insert, literal, or_, select, update
from sqlalchemy.engine import RowMapping

from app.auth.principal import Principal
from app.auth.scopes import Scope
from app.db.base import HUMAN_TEXT
from app.db.connection import Connection
from app.models import api_keys

KEY_PREFIX = "papi_"
"""Prefix of every API key, so that people and secret scanners recognise keys."""


PRINCIPAL_PREFIX = "key:"
"""Prefix of the principal name of an API key. The rest of the principal name is the name of the key."""
KEY_CREATION_LOCK_KEY = 0x6B657973
"""Key of the PostgreSQL advisory lock that serialises the creation of API keys. The number is arbitrary (the word
"keys" in ASCII), but must be the same in all versions of the service."""
_KEY_PATTERN = re.compile(KEY_PREFIX + r"[A-Za-z0-9_-]{43}")


class KeyNameTakenError(Exception):
    """An active or revoked key already has the same name, or one that differs only in case or spaces."""


def is_key(text: str) -> bool:
    """Return whether a text has the form of an API key. Any other text is rejected without a database query."""
    return _KEY_PATTERN.fullmatch(text) is not None


def key_digest(key: str) -> bytes:
    """Return the digest that is stored in place of a key. Keys have 256 random bits and need no salt or slow hash."""
    return hashlib.sha256(key.encode()).digest()


async def create(
    connection: Connection,
    name: str,
    scopes: Collection[Scope],
    hospitals: Collection[str] | None = None,
    expires: datetime | None = None,
) -> str:
    """Create a key of 256 random bits and return it. Only its digest is stored, so the key cannot be shown again.

    `hospitals` contains the ids of the hospitals that the key is restricted to. If it is None, the key is unrestricted.
    If `expires` is None, the key never expires.

    Raises:
        KeyNameTakenError: an active or revoked key has the same name, or one that differs only in case or spaces.
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
    """Return an SQL expression for `name` in lower case and without spaces.

    Names that differ only in case or spaces are thus equal.
    """
    return func.lower(func.replace(name, " ", ""))


async def revoke(connection: Connection, name: str) -> bool:
    """Revoke the key with this name. Return False if no key has the name, or if the key is already revoked."""
    is_active = (api_keys.c.name == name, api_keys.c.revoked.is_(None))
    statement = update(api_keys).where(*is_active).values(revoked=func.statement_timestamp()).returning(api_keys.c.name)
    return (await connection.execute(statement)).one_or_none() is not None


async def list_keys(connection: Connection) -> list[RowMapping]:
    """Return the table rows of all keys, including revoked and expired ones, ordered by name and without digests."""
    columns = [column for column in api_keys.columns if column.name != "digest"]
    return list((await connection.execute(select(*columns).order_by(api_keys.c.name))).mappings())


_SELECT_ACTIVE_KEY = select(api_keys.c.name, api_keys.c.scopes, api_keys.c.hospitals, api_keys.c.expires).where(
    api_keys.c.digest == bindparam("digest"),
    api_keys.c.revoked.is_(None),
    or_(api_keys.c.expires.is_(None), api_keys.c.expires > func.statement_timestamp()),
)


async def find_active(connection: Connection, key: str) -> tuple[Principal, datetime | None] | None:
    """Return the principal and the expiry time of an active key. The time is None if the key never expires.

    Return None if the key does not exist, has expired or is revoked.
    """
    row = (await connection.execute(_SELECT_ACTIVE_KEY, {"digest": key_digest(key)})).one_or_none()
    if row is None:
        return None
    hospitals = None if row.hospitals is None else frozenset(row.hospitals)
    scopes = frozenset(scope for scope in Scope if scope in row.scopes)  # a newer version may have stored other scopes
    return Principal(f"{PRINCIPAL_PREFIX}{row.name}", scopes=scopes, hospitals=hospitals), row.expires


_UPDATE_LAST_USED = (
    update(api_keys)
    .where(api_keys.c.name == any_(bindparam("names", type_=ARRAY(HUMAN_TEXT))))
    .values(last_used=func.statement_timestamp())
)


async def update_last_used(connection: Connection, principal_names: Collection[str]) -> None:
    """Store the current time as the last use of the API keys of these principals."""
    key_names = [principal.removeprefix(PRINCIPAL_PREFIX) for principal in principal_names]
    await connection.execute(_UPDATE_LAST_USED, {"names": key_names})
