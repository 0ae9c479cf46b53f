"""Journal entries, inserted by the statement that also returns the changed record, without an extra round trip."""

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
"""The columns of a record that are also columns of its journal entries."""


def snapshot_columns(table: Table) -> list[str]:
    """Return the names of the columns in the record of an entry: those not generated and not in `ENTRY_COLUMNS`."""
    return [column.name for column in non_generated_columns(table) if column.name not in ENTRY_COLUMNS]


def record_snapshot(table: Table, row: FromClause, links: Mapping[str, ToMany]) -> ColumnElement[Any]:
    """Return the record of a `row` of `table` as JSON: its own columns and the sorted ids of its links, without nulls.

    It contains ids, not names: a hospital that is renamed later did not have its new name then.
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
    """Return the condition that the journal has entries of an id.

    OFFSET makes PostgreSQL look up ids one by one: for many ids at once, it would otherwise read the whole journal.
    """
    is_of_record = journal.c.resource == literal_column(f"'{table.name}'"), journal.c.unique_id == unique_id
    return select(literal_column("1")).select_from(journal).where(*is_of_record).offset(literal_column("0")).exists()


AUTHOR_COLUMNS = (column("actor", Text), column("request_id", String))
"""The additional columns of rows that may each have another author (see `with_author`)."""


def with_author(row: FromClause, input_rows: CTE) -> CTE:
    """Return the same rows, each with the author of the input row with the same `unique_id`."""
    author_columns = (input_rows.c[name.name] for name in AUTHOR_COLUMNS)
    return (
        select(*row.c, *author_columns)
        .join_from(row, input_rows, input_rows.c.unique_id == row.c.unique_id)
        .cte("signed")
    )


def insert_entry(table: Table, row: FromClause, links: Mapping[str, ToMany], action: ColumnElement[str]) -> CTE:
    """Insert an entry that `action` led to `row`, the current row of `table`.

    The author is that of the row, if it has `AUTHOR_COLUMNS`, or that of the statement's parameters. Return the id and
    version of the entry; nothing for a first version if the journal already has entries of the id.
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
    """Insert an entry that `row` of `table` was deleted."""
    version = row.c.version + literal_column("1")
    return _insert_into_journal(table, row, select(row.c.unique_id, version, literal_column("'deleted'"), null()))


def _insert_into_journal(table: Table, row: FromClause, entry_values: Select[Any]) -> CTE:
    author_columns = (row.c.get(name.name, bindparam(name.name, type_=name.type)) for name in AUTHOR_COLUMNS)
    entry_rows = entry_values.add_columns(literal_column(f"'{table.name}'"), *author_columns)
    column_names = ("unique_id", "version", "action", "record", "resource", "actor", "request_id")
    # if another transaction has just deleted a record with this id, only the primary key detects it
    statement = insert(journal).from_select(column_names, entry_rows).on_conflict_do_nothing()
    return statement.returning(journal.c.unique_id, journal.c.version).cte("entry")


def author_parameters(principal: Principal) -> dict[str, Any]:
    """Return the author of entries, as parameters of a statement or as `AUTHOR_COLUMNS` of its input rows."""
    return {"actor": principal.name, "request_id": principal.request_id}
