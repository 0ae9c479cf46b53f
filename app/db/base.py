"""The declarative base of all tables: constraint names, column types, and the columns that resource tables share."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Column, Computed, DateTime, MetaData, Table, Text, func
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedColumn, mapped_column

ID_TEXT = Text(collation="C")
"""Column type of identifiers. They sort by bytes, so their order is the same on every server, whatever its locale."""

HUMAN_TEXT = Text(collation="pg_c_utf8")
"""Column type of text that people write. Every server sorts it and changes its case in the same way, because the
collation is built into PostgreSQL 17 and newer."""

FOLDED_TEXT = Text(collation="C")
"""Column type of case- and accent-folded text, the result of the database function `fold`. It sorts by bytes."""

NO_FASTUPDATE = {"fastupdate": "off"}
"""Storage parameter for GIN indexes. With it, each write adds its rows to the index at once. By default, PostgreSQL
postpones this work, and a later search bears its cost."""


class Base(DeclarativeBase):
    """Base class of all tables. Constraints are named by a convention, so that migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


class Resource(Base):
    """Base class of the profile, hospital, doctor and patient tables.

    It defines the columns and constraints that these tables share.
    """

    __abstract__ = True
    __table__: ClassVar[Table]

    unique_id: Mapped[str] = mapped_column(ID_TEXT, primary_key=True, sort_order=-2)
    version: Mapped[int] = mapped_column(BigInteger, server_default="1", sort_order=-1)
    """Number of the record's current version. It starts at 1, and each change increments it."""
    date_created: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.statement_timestamp())
    last_updated: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.statement_timestamp())

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.__table__.append_constraint(CheckConstraint("char_length(unique_id) <= 64", name="unique_id"))
        for column in cls.__table__.columns:
            if "max_length" in column.info:
                is_within_length = func.char_length(column) <= column.info["max_length"]
                cls.__table__.append_constraint(CheckConstraint(is_within_length, name=f"{column.name}_length"))


def non_generated_columns(table: Table) -> list[Column[Any]]:
    """Return the columns of a table that statements can set. PostgreSQL computes all others, the generated columns."""
    return [column for column in table.columns if column.computed is None]


def text_column(max_length: int, *, nullable: bool = True) -> MappedColumn[Any]:
    """Return a column for text that people write. A named CHECK constraint limits it to `max_length` characters."""
    return mapped_column(HUMAN_TEXT, nullable=nullable, info={"max_length": max_length})


def folded_column(name: str) -> MappedColumn[Any]:
    """Return a generated column for filters and sorting: the case- and accent-folded value of the column `name`.

    By convention, the generated column is called `{name}_folded`.
    """
    return mapped_column(FOLDED_TEXT, Computed(f"fold({name})", persisted=True))


def max_length(column: Column[Any]) -> int:
    """Return the maximum number of characters in a column that `text_column` returned."""
    return int(column.info["max_length"])


def serving_rights(table: Table) -> str:
    """Return the rights on a table that serving needs, such as `SELECT, UPDATE (last_used)`."""
    rights: str = table.info.get("serving_rights", "SELECT, INSERT, UPDATE, DELETE")
    return rights
