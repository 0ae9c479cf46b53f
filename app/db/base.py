"""The declarative base: how constraints are named, and what every resource's table has."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Column, Computed, DateTime, MetaData, Table, Text, func
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedColumn, mapped_column

ID_TEXT = Text(collation="C")
"""Identifiers sort by their bytes on every server, whatever its locale."""

HUMAN_TEXT = Text(collation="pg_c_utf8")
"""People's text sorts and folds alike on every server (a collation built into PostgreSQL 17 and newer)."""

FOLDED_TEXT = Text(collation="C")
"""People's text, folded by the database's `fold`: compared without regard to case and accents, sorted by its bytes."""

NO_FASTUPDATE = {"fastupdate": "off"}
"""Of a GIN index: rows enter it as they are written, not at some later search's cost."""


class Base(DeclarativeBase):
    """All tables. Constraint names follow from the convention, so that migrations can name what they change."""

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
    """What profiles, hospitals, doctors and patients have in common."""

    __abstract__ = True
    __table__: ClassVar[Table]

    unique_id: Mapped[str] = mapped_column(ID_TEXT, primary_key=True, sort_order=-2)
    version: Mapped[int] = mapped_column(BigInteger, server_default="1", sort_order=-1)
    """Counts the changes of the record, from 1."""
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
    """The columns of a table that are given values; PostgreSQL computes the others of these."""
    return [column for column in table.columns if column.computed is None]


def text_column(max_length: int, *, nullable: bool = True) -> MappedColumn[Any]:
    """A column of people's text, of at most `max_length` characters by a named CHECK constraint."""
    return mapped_column(HUMAN_TEXT, nullable=nullable, info={"max_length": max_length})


def folded_column(name: str) -> MappedColumn[Any]:
    """A column that holds another one folded, for filters and orderings; by convention `{name}_folded`."""
    return mapped_column(FOLDED_TEXT, Computed(f"fold({name})", persisted=True))


def max_length(column: Column[Any]) -> int:
    """The most characters that a column made by `text_column` takes."""
    return int(column.info["max_length"])
