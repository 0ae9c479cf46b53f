"""The types of identifiers in the database: those of every register, and those that an operator has added."""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from app.db.connection import Connection
from app.models import identifier_types

_SELECT_TYPES = select(identifier_types).order_by(identifier_types.c.name)
_INSERT_TYPE = insert(identifier_types).on_conflict_do_nothing().returning(identifier_types.c.name)


class IdentifierType(NamedTuple):
    """A type of identifiers. `app.models.identifier` explains the values."""

    name: str
    checker: str | None
    uniqueness: str
    country: str | None


class TypeExistsError(Exception):
    """A type has this name already. None is changed, because stored identifiers have been checked by it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is a type {name} already, and types are never changed. Choose another name.")


async def read_types(connection: Connection) -> Mapping[str, IdentifierType]:
    """Return all types by name, in the order of their names."""
    rows = (await connection.execute(_SELECT_TYPES)).records
    return {name: IdentifierType(name, *rest) for name, *rest in rows}


async def add_type(connection: Connection, identifier_type: IdentifierType) -> None:
    """Add a type. Requests can use it at once.

    Raises:
        TypeExistsError: there is a type with this name.
    """
    added = await connection.execute(_INSERT_TYPE.values(**identifier_type._asdict()))
    if added.one_or_none() is None:
        raise TypeExistsError(identifier_type.name)
