"""API keys: made, listed, revoked, and recognised."""

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
"""What every key begins with: people, and scanners of code, recognise it."""


PRINCIPAL_PREFIX = "key:"
"""What the names of principals that are keys begin with."""
NAME_PATTERN = re.compile(r"(?=.{1,64}$)[A-Za-z0-9](?: ?[A-Za-z0-9._@-])*")
"""Of a key: no space before or after it, nor two in a row, which nobody sees."""
KEY_CREATION_LOCK_KEY = 0x6B657973
"""Any number that all versions agree on, held by who makes a key; this one spells `keys`."""
_KEY_PATTERN = re.compile(KEY_PREFIX + r"[A-Za-z0-9_-]{43}")


class KeyNameTakenError(Exception):
    """A key has the name, or had it before it was revoked."""


def is_key(text: str) -> bool:
    """Whether a text has the form of a key; what has not need not be looked up."""
    return _KEY_PATTERN.fullmatch(text) is not None


def key_digest(key: str) -> bytes:
    """What is stored of a key: 256 random bits need no salt, and no slow hash."""
    return hashlib.sha256(key.encode()).digest()


async def create(
    connection: AsyncConnection,
    name: str,
    scopes: Collection[Scope],
    hospitals: Collection[str] | None = None,
    expires: datetime | None = None,
) -> str:
    """Make a key of 256 random bits; it is not stored, and cannot be shown again.

    Raises:
        KeyNameTakenError: the name was used before, or one that people would take for it.
    """
    await connection.execute(select(func.pg_advisory_xact_lock(KEY_CREATION_LOCK_KEY)))
    select_similar_name = select(api_keys.c.name).where(_folded_name(api_keys.c.name) == _folded_name(literal(name)))
    if (taken_name := (await connection.execute(select_similar_name.limit(1))).scalar_one_or_none()) is not None:
        raise KeyNameTakenError(f"There is, or was, a key of the name {taken_name}: choose another.")
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    values = {"name": name, "digest": key_digest(key), "scopes": sorted(scopes), "expires": expires}
    await connection.execute(insert(api_keys).values(**values, hospitals=hospitals and sorted(hospitals)))
    return key


def _folded_name(name: ColumnElement[str]) -> ColumnElement[str]:
    """What two names have in common that differ only in capital letters or spaces."""
    return func.lower(func.replace(name, " ", ""))


async def revoke(connection: AsyncConnection, name: str) -> bool:
    """Revoke a key; whether there is one of this name that was not."""
    is_active = (api_keys.c.name == name, api_keys.c.revoked.is_(None))
    statement = update(api_keys).where(*is_active).values(revoked=func.statement_timestamp()).returning(api_keys.c.name)
    return (await connection.execute(statement)).one_or_none() is not None


async def list_keys(connection: AsyncConnection) -> list[RowMapping]:
    """All keys, without what would open anything."""
    columns = [column for column in api_keys.columns if column.name != "digest"]
    return list((await connection.execute(select(*columns).order_by(api_keys.c.name))).mappings())


_SELECT_ACTIVE_KEY = select(api_keys.c.name, api_keys.c.scopes, api_keys.c.hospitals, api_keys.c.expires).where(
    api_keys.c.digest == bindparam("digest"),
    api_keys.c.revoked.is_(None),
    or_(api_keys.c.expires.is_(None), api_keys.c.expires > func.statement_timestamp()),
)


async def find_active(connection: AsyncConnection, key: str) -> tuple[Principal, datetime | None] | None:
    """Whose key this is, and until when, if it is one that is neither expired nor revoked."""
    row = (await connection.execute(_SELECT_ACTIVE_KEY, {"digest": key_digest(key)})).one_or_none()
    if row is None:
        return None
    hospitals = None if row.hospitals is None else frozenset(row.hospitals)
    scopes = frozenset(scope for scope in Scope if scope in row.scopes)  # of a newer version there may be others
    return Principal(f"{PRINCIPAL_PREFIX}{row.name}", scopes=scopes, hospitals=hospitals), row.expires


async def update_last_used(connection: AsyncConnection, principal_names: Collection[str]) -> None:
    """Note that keys were used about now."""
    key_names = [principal.removeprefix(PRINCIPAL_PREFIX) for principal in principal_names]
    await connection.execute(
        update(api_keys).where(api_keys.c.name.in_(key_names)).values(last_used=func.statement_timestamp())
    )
