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
from app.db.base import non_generated_columns
from app.models import journal
from app.records.documents import ToMany, as_contract_json

ENTRY_COLUMNS = frozenset({"unique_id", "version"})
"""The columns of a record that are columns of its entries too."""


def snapshot_columns(table: Table) -> list[str]:
    """What of a row an entry's record holds: what is not computed, and not kept beside it."""
    return [column.name for column in non_generated_columns(table) if column.name not in ENTRY_COLUMNS]


def record_snapshot(table: Table, row: FromClause, links: Mapping[str, ToMany]) -> ColumnElement[Any]:
    """The record of a `row` of `table` as JSON: its own columns and the sorted ids of its links, without nulls.

    Ids, not names: a hospital that is renamed later was not named so then.
    """
    fields: list[ColumnElement[Any]] = [as_contract_json(row.c[name]).label(name) for name in snapshot_columns(table)]
    for name, relation in links.items():
        _, owner, key = relation.link_columns
        ids = select(func.json_agg(aggregate_order_by(key, key))).where(owner == row.c.unique_id)
        fields.append(func.coalesce(ids.correlate(row).scalar_subquery(), literal_column("'[]'::json")).label(name))
    record = select(*fields).correlate(row).subquery("state")
    snapshot = select(func.json_strip_nulls(func.row_to_json(record.table_valued()), type_=JSON)).correlate(row)
    return snapshot.scalar_subquery()


def has_journal_entries(table: Table, unique_id: ColumnElement[str]) -> Exists:
    """Whether the journal has entries of an id.

    Looked up one by one, which OFFSET has PostgreSQL do: for many ids at once it would read the whole journal.
    """
    is_of_record = journal.c.resource == literal_column(f"'{table.name}'"), journal.c.unique_id == unique_id
    return select(literal_column("1")).select_from(journal).where(*is_of_record).offset(literal_column("0")).exists()


AUTHOR_COLUMNS = (column("actor", Text), column("request_id", String))
"""What rows have with them of which each is by somebody else (`signed`)."""


def with_author(row: FromClause, input_rows: CTE) -> CTE:
    """The same rows, each with the author of the one that it was `given` as."""
    author_columns = (input_rows.c[name.name] for name in AUTHOR_COLUMNS)
    return (
        select(*row.c, *author_columns)
        .join_from(row, input_rows, input_rows.c.unique_id == row.c.unique_id)
        .cte("signed")
    )


def insert_entry(table: Table, row: FromClause, links: Mapping[str, ToMany], action: ColumnElement[str]) -> CTE:
    """Write down that `row`, as `table` has it now, came to be by `action`; by its author, or that of the parameters.

    Answers the id and the version; nothing where it is the first, and the journal has the id already.
    """
    is_insertable = or_(
        row.c.version > literal_column("1"), not_(has_journal_entries(table, row.c.unique_id).correlate(row))
    )
    return _insert_into_journal(
        table,
        row,
        select(row.c.unique_id, row.c.version, action, record_snapshot(table, row, links)).where(is_insertable),
    )


def insert_deletion_entry(table: Table, row: FromClause) -> CTE:
    """Write down that `row` of `table` was deleted."""
    version = row.c.version + literal_column("1")
    return _insert_into_journal(table, row, select(row.c.unique_id, version, literal_column("'deleted'"), null()))


def _insert_into_journal(table: Table, row: FromClause, entry_values: Select[Any]) -> CTE:
    author_columns = (row.c.get(name.name, bindparam(name.name, type_=name.type)) for name in AUTHOR_COLUMNS)
    entry_rows = entry_values.add_columns(literal_column(f"'{table.name}'"), *author_columns)
    column_names = ("unique_id", "version", "action", "record", "resource", "actor", "request_id")
    # where another transaction has just deleted a record of this id, only the key knows
    statement = insert(journal).from_select(column_names, entry_rows).on_conflict_do_nothing()
    return statement.returning(journal.c.unique_id, journal.c.version).cte("entry")


def author_parameters(principal: Principal) -> dict[str, Any]:
    """The author of entries: parameters of statements that have one in them, or columns of the rows that are given."""
    return {"actor": principal.name, "request_id": principal.request_id}
