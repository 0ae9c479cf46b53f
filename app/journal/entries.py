"""Entries of the journal, written by the statement that reads the changed record back: no round trip of their own."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Exists,
    FromClause,
    Select,
    String,
    Table,
    Text,
    bindparam,
    column,
    func,
    literal_column,
    not_,
    null,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSON, aggregate_order_by, insert

from app.auth.principal import Principal
from app.db.base import stored
from app.models import journal
from app.resource.document import ToMany, rendered

KEPT_BESIDE = frozenset({"unique_id", "version"})
"""The columns of a record that are columns of its entries too."""


def own_columns(table: Table) -> list[str]:
    """What of a row an entry's record holds: what is not computed, and not kept beside it."""
    return [column.name for column in stored(table) if column.name not in KEPT_BESIDE]


def state(table: Table, row: FromClause, links: Mapping[str, ToMany]) -> ColumnElement[Any]:
    """The record of a `row` of `table` as JSON: its own columns and the sorted ids of its links, without nulls.

    Ids, not names: a hospital that is renamed later was not named so then.
    """
    fields: list[ColumnElement[Any]] = [rendered(row.c[name]).label(name) for name in own_columns(table)]
    for name, relation in links.items():
        _, owner, key = relation.pairs
        ids = select(func.json_agg(aggregate_order_by(key, key))).where(owner == row.c.unique_id)
        fields.append(func.coalesce(ids.correlate(row).scalar_subquery(), literal_column("'[]'::json")).label(name))
    record = select(*fields).correlate(row).subquery("state")
    whole = select(func.json_strip_nulls(func.row_to_json(record.table_valued()), type_=JSON)).correlate(row)
    return whole.scalar_subquery()


def is_known(table: Table, unique_id: ColumnElement[str]) -> Exists:
    """Whether the journal has entries of an id.

    Looked up one by one, which OFFSET has PostgreSQL do: for many ids at once it would read the whole journal.
    """
    of_this = journal.c.resource == literal_column(f"'{table.name}'"), journal.c.unique_id == unique_id
    return select(literal_column("1")).select_from(journal).where(*of_this).offset(literal_column("0")).exists()


AUTHOR = (column("actor", Text), column("request_id", String))
"""What rows have with them of which each is by somebody else (`signed`)."""


def signed(row: FromClause, given: CTE) -> CTE:
    """The same rows, each with the author of the one that it was `given` as."""
    by = (given.c[name.name] for name in AUTHOR)
    return select(*row.c, *by).join_from(row, given, given.c.unique_id == row.c.unique_id).cte("signed")


def entry(table: Table, row: FromClause, links: Mapping[str, ToMany], action: ColumnElement[str]) -> CTE:
    """Write down that `row`, as `table` has it now, came to be by `action`; by its author, or that of the parameters.

    Answers the id and the version; nothing where it is the first, and the journal has the id already.
    """
    new = or_(row.c.version > literal_column("1"), not_(is_known(table, row.c.unique_id).correlate(row)))
    return _write(table, row, select(row.c.unique_id, row.c.version, action, state(table, row, links)).where(new))


def farewell(table: Table, row: FromClause) -> CTE:
    """Write down that `row` of `table` was deleted."""
    version = row.c.version + literal_column("1")
    return _write(table, row, select(row.c.unique_id, version, literal_column("'deleted'"), null()))


def _write(table: Table, row: FromClause, what: Select[Any]) -> CTE:
    by = (row.c.get(name.name, bindparam(name.name, type_=name.type)) for name in AUTHOR)
    about = what.add_columns(literal_column(f"'{table.name}'"), *by)
    names = ("unique_id", "version", "action", "record", "resource", "actor", "request_id")
    # where another transaction has just deleted a record of this id, only the key knows
    statement = insert(journal).from_select(names, about).on_conflict_do_nothing()
    return statement.returning(journal.c.unique_id, journal.c.version).cte("entry")


def author(principal: Principal) -> dict[str, Any]:
    """The author of entries: parameters of statements that have one in them, or columns of the rows that are given."""
    return {"actor": principal.name, "request_id": principal.request_id}
