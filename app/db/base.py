"""The declarative base: constraint names, column types, and the columns that all resource tables share."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Column, Computed, DateTime, MetaData, Table, Text, func
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedColumn, mapped_column

ID_TEXT = Text(collation="C")
"""Type of identifiers: sorts by bytes on every server, regardless of its locale."""

HUMAN_TEXT = Text(collation="pg_c_utf8")
"""Type of people's text: sorts and folds the same on every server (a collation built into PostgreSQL 17 and newer)."""

FOLDED_TEXT = Text(collation="C")
"""Type of text folded by the database function `fold`: compared without case and accents, sorted by bytes."""

NO_FASTUPDATE = {"fastupdate": "off"}
"""Storage parameter of GIN indexes: rows enter the index when they are written, not at the cost of a later search."""


class Base(DeclarativeBase):
    """Base class of all tables. A convention names the constraints, so that migrations can refer to them."""

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
    """The columns and constraints that profiles, hospitals, doctors and patients have in common."""

    __abstract__ = True
    __table__: ClassVar[Table]

    unique_id: Mapped[str] = mapped_column(ID_TEXT, primary_key=True, sort_order=-2)
    version: Mapped[int] = mapped_column(BigInteger, server_default="1", sort_order=-1)
    """Number of the record's current version; each change increments it, starting from 1."""
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
    """Return the columns of a table that statements can set; PostgreSQL computes the generated ones."""
    return [column for column in table.columns if column.computed is None]


def text_column(max_length: int, *, nullable: bool = True) -> MappedColumn[Any]:
    """Return a column for people's text, which a named CHECK constraint limits to `max_length` characters."""
    return mapped_column(HUMAN_TEXT, nullable=nullable, info={"max_length": max_length})


def folded_column(name: str) -> MappedColumn[Any]:
    """Return a generated column with column `name` folded, for filters and sorting; it is called `{name}_folded`."""
    return mapped_column(FOLDED_TEXT, Computed(f"fold({name})", persisted=True))


def max_length(column: Column[Any]) -> int:
    """Return the maximum number of characters in a column that `text_column` made."""
    return int(column.info["max_length"])
