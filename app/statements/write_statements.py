"""Builds the statements that write records. Each writes rows, links and journal entries, and returns documents.

A CTE does not see the rows that other CTEs of the same statement write. The journal entry and the document are
therefore built from the results of these CTEs: the written row, and the links after the write.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    CTE,
    Boolean,
    ColumnClause,
    ColumnElement,
    FromClause,
    Select,
    Table,
    bindparam,
    column,
    delete,
    func,
    literal_column,
    or_,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from app.db.base import ID_TEXT, non_generated_columns
from app.db.transaction_batching import input_rows
from app.statements.documents import Document, ToMany
from app.statements.journal_entries import AUTHOR_COLUMNS, insert_deletion_entry, insert_entry, with_author
from app.statements.links import LinkReplacement, linkable_id_columns, replace_links

_DATABASE_DEFAULTED_COLUMNS = frozenset({"version", "date_created", "last_updated"})
"""Names of the columns that the database fills in if a statement gives no value."""


@cache
def client_columns(table: Table) -> tuple[str, ...]:
    """Return the names of the columns that a client can set with a request, without `unique_id`."""
    excluded = _DATABASE_DEFAULTED_COLUMNS | {"unique_id"}
    return tuple(column.name for column in non_generated_columns(table) if column.name not in excluded)


def next_version_values(table: Table) -> dict[str, ColumnElement[Any]]:
    """Return the new values of `version` and `last_updated`, which every update of a row must set.

    `last_updated` increases with every update, even if the clock does not advance between two updates.
    """
    just_after_previous = table.c.last_updated + text("interval '1 microsecond'")
    return {
        "version": table.c.version + literal_column("1"),
        "last_updated": func.greatest(func.clock_timestamp(), just_after_previous),
    }


def _input_rows(table: Table, link_names: Iterable[str], extra_columns: Iterable[ColumnClause[Any]] = ()) -> CTE:
    value_columns: list[ColumnClause[Any]] = [column(name, table.c[name].type) for name in client_columns(table)]
    link_id_columns: list[ColumnClause[Any]] = [column(name, ARRAY(ID_TEXT)) for name in sorted(link_names)]
    return input_rows(column("unique_id", ID_TEXT), *value_columns, *extra_columns, *link_id_columns, *AUTHOR_COLUMNS)


def insert_records(
    document: Document,
    link_relations: Mapping[str, ToMany],
    action: str,
    extra_columns: frozenset[str],
    *,
    restricted: bool,
) -> Select[Any]:
    """Return a statement that inserts its input rows and their links.

    The input rows have the column `unique_id`, the columns in `client_columns` and `extra_columns`, a column with the
    requested ids of each set of links, and the columns in `AUTHOR_COLUMNS`. For each inserted record, the statement
    returns a row with `unique_id`, `document`, the linkable ids of each set of links, and `entered`. The column
    `entered` is true if the journal accepted the entry. For an input row with the id of an existing record, the
    statement returns no row.
    """
    table = document.table
    inputs = _input_rows(table, link_relations, [column(name, table.c[name].type) for name in sorted(extra_columns)])
    names = ("unique_id", *client_columns(table), *sorted(extra_columns))
    rows = select(*(inputs.c[name] for name in names)).order_by(inputs.c.unique_id)
    written = (
        insert(table)
        .from_select(names, rows)
        .on_conflict_do_nothing(index_elements=[table.c.unique_id])
        .returning(*non_generated_columns(table))
        .cte("written")
    )
    return _returning_document(
        document,
        link_relations,
        action,
        _StatementParts(
            inputs, written, written, replace_links(link_relations, inputs, written, restricted=restricted)
        ),
    )


def update_records(
    document: Document,
    link_relations: Mapping[str, ToMany],
    action: str,
    replaced_links: frozenset[str],
    *,
    restricted: bool,
) -> Select[Any]:
    """Return a statement that updates the rows of the table that have the same `unique_id` as its input rows.

    The rows of the table must already be locked. A row is updated if the column `differs` of its input row is true or
    if its links change. The input rows also have the columns in `client_columns` and `AUTHOR_COLUMNS`, and a column
    with the requested ids of each set in `replaced_links`. For every input row, whether or not anything changed, the
    statement returns a row with the columns that `insert_records` describes.
    """
    table = document.table
    inputs = _input_rows(table, replaced_links, [column("differs", Boolean)])
    same_id = table.c.unique_id == inputs.c.unique_id
    link_replacement = replace_links(
        {name: link_relations[name] for name in replaced_links}, inputs, restricted=restricted
    )
    links_changed = (_contains_record(part, table.c.unique_id) for part in link_replacement.changes)
    written = (
        update(table)
        .where(same_id, or_(inputs.c.differs, *links_changed))
        .values({name: inputs.c[name] for name in client_columns(table)} | next_version_values(table))
        .returning(*non_generated_columns(table))
        .cte("written")
    )
    unchanged = (
        select(*non_generated_columns(table)).join(inputs, same_id).where(~_contains_record(written, table.c.unique_id))
    )
    page = union_all(select(written), unchanged).cte("page")
    return _returning_document(
        document, link_relations, action, _StatementParts(inputs, written, page, link_replacement)
    )


def _contains_record(rows: FromClause, record_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that the first column of `rows` contains `record_id`."""
    return record_id.in_(select(rows.c[0]))


class _StatementParts(NamedTuple):
    input_rows: CTE
    written: CTE
    """The rows that the statement inserts or updates."""
    page: CTE
    """All rows as they are after the statement, including the rows that the statement does not change."""
    link_replacement: LinkReplacement


def _returning_document(
    document: Document, link_relations: Mapping[str, ToMany], action: str, parts: _StatementParts
) -> Select[Any]:
    replaced_relations = parts.link_replacement.relations
    relations_after = {name: replaced_relations.get(relation, relation) for name, relation in link_relations.items()}
    authored = with_author(parts.written, parts.input_rows)
    entries = insert_entry(document.table, authored, relations_after, literal_column(f"'{action}'"))
    statement = document.replace_relations(replaced_relations).select_page(parts.page)
    unique_id, _ = statement.selected_columns
    journaled = or_(~_contains_record(parts.written, unique_id), _contains_record(entries, unique_id)).label("entered")
    linkable = linkable_id_columns(parts.link_replacement.linkable_pairs, unique_id)
    return statement.add_columns(*linkable, journaled).add_cte(*parts.link_replacement.changes)


@cache
def advisory_lock(table: Table) -> Select[Any]:
    """Build the statement that locks the id `:id` of the records in `table` until the transaction ends."""
    lock_name = literal_column(f"'{table.name}/'").concat(bindparam("id", type_=ID_TEXT))
    return select(func.pg_advisory_xact_lock(func.hashtextextended(lock_name, literal_column("0"))))


@cache
def delete_record(table: Table) -> Select[Any]:
    """Build the statement that deletes the record with the id `:id` and inserts the journal entry for it."""
    is_record = table.c.unique_id == bindparam("id", type_=ID_TEXT)
    deleted = delete(table).where(is_record).returning(table.c.unique_id, table.c.version).cte("gone")
    return select(insert_deletion_entry(table, deleted))
