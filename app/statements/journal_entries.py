"""Journal entries. The statement that writes and returns a record inserts its entry too, without another round trip."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    ColumnElement,
    Exists,
    FromClause,
    Select,
    String,
    Table,
    Text,
    and_,
    bindparam,
    case,
    column,
    func,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSON, aggregate_order_by, insert

from app.auth.principal import Principal
from app.db.base import non_generated_columns
from app.models import journal
from app.statements.documents import ToMany, as_contract_json

ENTRY_COLUMNS = frozenset({"unique_id", "version"})
"""Names of the columns that both the table of a record and the journal have. The `record` of a journal entry therefore
omits these columns."""


class EntryKind(NamedTuple):
    """What a journal entry says about its change."""

    action: str
    merge: Mapping[str, str] | None = None
    """The other record of a merge, if the change is a step of one (see `app.models.journal`)."""

    @property
    def is_merge(self) -> bool:
        """Whether the change is a step of a merge, or of undoing one."""
        return self.merge is not None


CREATED, UPDATED, DELETED, RESTORED = (EntryKind(action) for action in ("created", "updated", "deleted", "restored"))


def snapshot_columns(table: Table) -> list[str]:
    """Return the names of the columns of `table` that the `record` of a journal entry contains.

    Generated columns and `ENTRY_COLUMNS` are omitted.
    """
    return [column.name for column in non_generated_columns(table) if column.name not in ENTRY_COLUMNS]


def record_snapshot(
    table: Table, row: FromClause, links: Mapping[str, ToMany], *, are_sorted: bool = False
) -> ColumnElement[Any]:
    """Return the SQL expression for the snapshot of a `row` of `table` as JSON.

    The snapshot contains the columns of the row and the sorted ids of its links, without nulls. It contains the ids of
    linked records, not their names, so that it stays correct if a hospital is renamed later. If `row` has a column with
    the name of a set of links, the ids are those in this column, which saves reading the links. If they `are_sorted`,
    without duplicates, this saves sorting them.
    """
    fields: list[ColumnElement[Any]] = [as_contract_json(row.c[name]).label(name) for name in snapshot_columns(table)]
    for name, relation in links.items():
        if name in row.c and are_sorted:
            fields.append(func.array_to_json(row.c[name]).label(name))
            continue
        if name in row.c:
            linked_id = func.unnest(row.c[name]).column_valued(f"one_of_{name}")
            sorted_ids = func.array(select(linked_id).distinct().order_by(linked_id).correlate(row).scalar_subquery())
            # most records have no more than two links; the subquery takes longer than all else
            few = func.cardinality(row.c[name]) < literal_column("3")
            ascend = row.c[name][literal_column("1")] < row.c[name][literal_column("2")]  # null if there is no second
            is_sorted = and_(few, func.coalesce(ascend, true()))
            fields.append(func.array_to_json(case((is_sorted, row.c[name]), else_=sorted_ids)).label(name))
            continue
        _, owner, key = relation.link_columns
        ids = select(func.json_agg(aggregate_order_by(key, key))).where(owner == row.c.unique_id)
        fields.append(func.coalesce(ids.correlate(row).scalar_subquery(), literal_column("'[]'::json")).label(name))
    record = select(*fields).correlate(row).subquery("state")
    snapshot = select(func.json_strip_nulls(func.row_to_json(record.table_valued()), type_=JSON)).correlate(row)
    return snapshot.scalar_subquery()


def has_journal_entries(table: Table, unique_id: ColumnElement[str]) -> Exists:
    """Return the condition that the journal contains entries for the id of a record in `table`.

    `OFFSET 0` makes PostgreSQL look up each id separately. Otherwise, it would read the whole journal if there are many
    ids.
    """
    is_of_record = journal.c.resource == literal_column(f"'{table.name}'"), journal.c.unique_id == unique_id
    return select(literal_column("1")).select_from(journal).where(*is_of_record).offset(literal_column("0")).exists()


AUTHOR_COLUMNS = (column("actor", Text), column("request_id", String))
"""The columns that contain the author of a journal entry. The input rows of a statement have these columns if the
statement writes on behalf of several authors."""
MERGE_COLUMN = column("merge", JSON)
"""The column that names the other record of a merge. Only the input rows of statements for merges have it."""


def with_author(row: CTE, input_rows: CTE, *other_columns: str) -> CTE:
    """Return a CTE that adds `AUTHOR_COLUMNS` to each row of `row`, from the input row with the same `unique_id`.

    It adds `MERGE_COLUMN`, too, if the input rows have it, and `other_columns`.
    """
    names = (*(column.name for column in (*AUTHOR_COLUMNS, MERGE_COLUMN)), *other_columns)
    author_columns = [input_rows.c[name] for name in names if name in input_rows.c]
    return (
        select(*row.c, *author_columns)
        .join_from(row, input_rows, input_rows.c.unique_id == row.c.unique_id)
        .cte(f"signed_{row.name}")
    )


def insert_entry(table: Table, row: FromClause, links: Mapping[str, ToMany], action: ColumnElement[str]) -> CTE:
    """Return a CTE that inserts a journal entry for each row of `row`.

    `row` contains rows of `table` as they are after `action`. The author of an entry is in the `AUTHOR_COLUMNS` of
    `row` or, if `row` does not have these columns, in bind parameters with the same names. The CTE returns
    `(unique_id, version)` of each inserted entry. No entry is inserted for a first version if the journal already has
    entries for the id.
    """
    values = _entry_values(table, row, links, action)
    return _insert_into_journal(table, row, values.where(_is_insertable(table, row)))


def insert_deletion_entry(table: Table, row: FromClause, action: str = "deleted") -> CTE:
    """Return a CTE that inserts a journal entry for each row of `row`, which contains the deleted rows of `table`."""
    version = row.c.version + literal_column("1")
    return _insert_into_journal(table, row, select(row.c.unique_id, version, literal_column(f"'{action}'"), null()))


def entry_or_error(
    table: Table, row: FromClause, links: Mapping[str, ToMany], action: ColumnElement[str]
) -> Select[Any]:
    """Return a statement that selects the journal entry for each row of `row`, for `insert_all_entries`.

    It ends with an error if `insert_entry` would not insert an entry. If `row` has a column with the name of a set of
    links, the ids in it are sorted.
    """
    values = _entry_values(table, row, links, action, are_sorted=True).where(func.require(_is_insertable(table, row)))
    return _with_author_and_table(table, row, values)


def insert_all_entries(*entries: Select[Any]) -> CTE:
    """Return a CTE that inserts the rows of each `entry_or_error` into the journal, in this order.

    The statement ends with an error if the journal does not accept an entry.
    """
    return insert(journal).from_select(_entry_columns(), union_all(*entries)).cte("entries")


def _entry_values(
    table: Table,
    row: FromClause,
    links: Mapping[str, ToMany],
    action: ColumnElement[str],
    *,
    are_sorted: bool = False,
) -> Select[Any]:
    snapshot = record_snapshot(table, row, links, are_sorted=are_sorted)
    return select(row.c.unique_id, row.c.version, action, snapshot)


def _is_insertable(table: Table, row: FromClause) -> ColumnElement[bool]:
    return or_(row.c.version > literal_column("1"), not_(has_journal_entries(table, row.c.unique_id).correlate(row)))


def _entry_columns(*other_columns: str) -> tuple[str, ...]:
    return ("unique_id", "version", "action", "record", "resource", "actor", "request_id", *other_columns)


def _with_author_and_table(table: Table, row: FromClause, entry_values: Select[Any]) -> Select[Any]:
    author_columns = (row.c.get(name.name, bindparam(name.name, type_=name.type)) for name in AUTHOR_COLUMNS)
    return entry_values.add_columns(literal_column(f"'{table.name}'"), *author_columns)


def _insert_into_journal(table: Table, row: FromClause, entry_values: Select[Any]) -> CTE:
    merge_columns = [row.c[MERGE_COLUMN.name]] if MERGE_COLUMN.name in row.c else []
    entry_rows = _with_author_and_table(table, row, entry_values).add_columns(*merge_columns)
    column_names = _entry_columns(*(column.name for column in merge_columns))
    # only the primary key detects that another transaction has just deleted a record with this id
    statement = insert(journal).from_select(column_names, entry_rows).on_conflict_do_nothing()
    return statement.returning(journal.c.unique_id, journal.c.version).cte(f"entry_of_{table.name}")


def author_parameters(principal: Principal) -> dict[str, Any]:
    """Return the author of journal entries, as bind parameters or as the values of `AUTHOR_COLUMNS` in an input row."""
    return {"actor": principal.name, "request_id": principal.request_id}
