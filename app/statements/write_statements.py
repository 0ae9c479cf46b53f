"""Builds the statements that write records. Each writes rows, links and journal entries, and returns documents.

A CTE does not see the rows that other CTEs of the same statement write. The journal entry and the document are
therefore built from the results of these CTEs: the written row, and the links after the write.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnClause,
    ColumnElement,
    FromClause,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    case,
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

from app.auth.principal import Principal
from app.db.base import ID_TEXT, non_generated_columns
from app.db.transaction_batching import input_rows
from app.statements.documents import Document, ToMany
from app.statements.journal_entries import (
    AUTHOR_COLUMNS,
    MERGE_COLUMN,
    author_parameters,
    insert_deletion_entry,
    insert_entry,
    with_author,
)
from app.statements.links import LinkReplacement, linkable_id_columns, replace_links

DATABASE_DEFAULTED_COLUMNS = frozenset({"version", "date_created", "last_updated"})
"""Names of the columns that the database fills in if a statement gives no value."""


@cache
def client_columns(table: Table) -> tuple[str, ...]:
    """Return the names of the columns that a client can set with a request, without `unique_id`."""
    excluded = DATABASE_DEFAULTED_COLUMNS | {"unique_id"}
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


def _input_rows(
    table: Table, link_names: Iterable[str], extra_columns: Iterable[ColumnClause[Any]], *, short_lock_timeout: bool
) -> CTE:
    value_columns: list[ColumnClause[Any]] = [column(name, table.c[name].type) for name in client_columns(table)]
    link_id_columns: list[ColumnClause[Any]] = [column(name, ARRAY(ID_TEXT)) for name in sorted(link_names)]
    columns = (column("unique_id", ID_TEXT), *value_columns, *extra_columns, *link_id_columns, *AUTHOR_COLUMNS)
    return input_rows(*columns, short_lock_timeout=short_lock_timeout)


def input_row(values: Mapping[str, Any], links: Mapping[str, list[str]], principal: Principal) -> dict[str, Any]:
    """Return an input row with these values and requested ids of links, on behalf of a principal."""
    link_ids = {name: sorted(set(ids)) for name, ids in links.items()}
    return {**values, **link_ids, **author_parameters(principal)}


class StatementParts(NamedTuple):
    """The parts of a statement that writes records, from which `returning_document` makes the statement."""

    input_rows: CTE
    written: CTE
    """The rows that the statement inserts or updates."""
    page: CTE
    """All rows as they are after the statement, including the rows that the statement does not change."""
    link_replacement: LinkReplacement
    locked: CTE
    """The rows that the statement has locked: the stored rows that it updates, or the rows that it inserts."""


def insert_parts(
    table: Table,
    link_relations: Mapping[str, ToMany],
    stored_columns: frozenset[str] = frozenset(),
    other_inputs: Sequence[ColumnClause[Any]] = (),
    *,
    restricted: bool,
) -> StatementParts:
    """Build the parts that insert the input rows and their links.

    The input rows have the column `unique_id`, the columns in `client_columns`, `stored_columns` and `other_inputs`, a
    column with the requested ids of each set of links, and the columns in `AUTHOR_COLUMNS`. All except `other_inputs`
    and the links are stored in the row. `other_inputs` contains the `MERGE_COLUMN` for a step of a merge. With any
    other inputs, the statement runs without a transaction around it. It then must not wait long for a lock, and it ends
    with an error if a record has the id of an input row.
    """
    is_alone = _is_alone(other_inputs)
    stored = [column(name, table.c[name].type) for name in sorted(stored_columns)]
    inputs = _input_rows(table, link_relations, [*stored, *other_inputs], short_lock_timeout=is_alone)
    names = ("unique_id", *client_columns(table), *sorted(stored_columns))
    rows = select(*(inputs.c[name] for name in names)).order_by(inputs.c.unique_id)
    statement = insert(table).from_select(names, rows)
    if not is_alone:
        statement = statement.on_conflict_do_nothing(index_elements=[table.c.unique_id])
    written = statement.returning(*non_generated_columns(table)).cte("written")
    inserted = inputs if is_alone else written
    links = replace_links(link_relations, inputs, inserted, restricted=restricted)
    return StatementParts(inputs, written, written, links, written)


def update_parts(
    table: Table,
    replaced_relations: Mapping[str, ToMany],
    other_inputs: Sequence[ColumnClause[Any]] = (),
    *,
    restricted: bool,
) -> StatementParts:
    """Build the parts that update the rows of the table that have the same `unique_id` as the input rows.

    The input rows also have the columns in `client_columns`, a column `sent` with the names of those to write,
    `other_inputs`, a column with the requested ids of each set in `replaced_relations`, and the `AUTHOR_COLUMNS`. The
    parts lock the rows, and update those of which a value differs or a link changes. If `other_inputs` contains the
    `MERGE_COLUMN`, they update all rows. With any other inputs, the statement runs without a transaction around it. It
    then must not wait long for a lock, and it ends with an error if a record has changed between the beginning of the
    statement and the time at which the statement locked it, because the links may have changed too.
    """
    is_alone = _is_alone(other_inputs)
    extra_columns = (column("sent", ARRAY(Text)), *other_inputs)
    inputs = _input_rows(table, replaced_relations, extra_columns, short_lock_timeout=is_alone)
    stored_columns = non_generated_columns(table)
    rows = select(*stored_columns).join(inputs, table.c.unique_id == inputs.c.unique_id)
    if is_alone:
        seen = table.alias()  # is not locked, so it stays as it was when the statement began
        rows = rows.join(seen, seen.c.unique_id == table.c.unique_id).add_columns(seen.c.version.label("seen_version"))
    # FOR UPDATE would deadlock with the foreign-key checks of other transactions
    locked = rows.order_by(table.c.unique_id).with_for_update(key_share=True, of=table).cte("locked")
    new_values = [
        case((literal_column(f"'{name}'") == any_(inputs.c.sent), inputs.c[name]), else_=locked.c[name]).label(name)
        for name in client_columns(table)
    ]
    new = select(locked.c.unique_id, *new_values).join_from(locked, inputs, locked.c.unique_id == inputs.c.unique_id)
    if is_alone:
        new = new.where(func.require(locked.c.version == locked.c.seen_version))
    new_rows = new.cte("new")
    links = replace_links(replaced_relations, inputs, restricted=restricted)
    links_changed = (contains_record(part, table.c.unique_id) for part in links.changes)
    differences = (table.c[name].is_distinct_from(new_rows.c[name]) for name in client_columns(table))
    changes = () if MERGE_COLUMN.name in inputs.c else (or_(*differences, *links_changed),)
    written = (
        update(table)
        .where(table.c.unique_id == new_rows.c.unique_id, *changes)
        .values({name: new_rows.c[name] for name in client_columns(table)} | next_version_values(table))
        .returning(*non_generated_columns(table))
        .cte("written")
    )
    unchanged = select(*(locked.c[column.name] for column in stored_columns)).where(
        ~contains_record(written, locked.c.unique_id)
    )
    page = union_all(select(written), unchanged).cte("page")
    return StatementParts(inputs, written, page, links, locked)


def _is_alone(other_inputs: Sequence[ColumnClause[Any]]) -> bool:
    """Return whether a statement with these inputs has no transaction around it."""
    return any(each is not MERGE_COLUMN for each in other_inputs)


def contains_record(rows: FromClause, record_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that the first column of `rows` contains `record_id`."""
    return record_id.in_(select(rows.c[0]))


def returning_document(
    document: Document, link_relations: Mapping[str, ToMany], action: str, parts: StatementParts
) -> Select[Any]:
    """Return the statement that writes records and their journal entries, which contain `action`.

    For each record of `parts.page`, the statement returns a row with `unique_id`, `document`, the linkable ids of each
    replaced set of links, and `entered`. The column `entered` is true if the journal accepted the entry or if there was
    nothing to write.
    """
    replacement = parts.link_replacement
    authored = with_author(parts.written, parts.input_rows)
    links_after = replacement.relations_after(link_relations)
    entries = insert_entry(document.table, authored, links_after, literal_column(f"'{action}'"))
    statement = select_result(document, parts)
    unique_id = statement.selected_columns[0]
    journaled = or_(~contains_record(parts.written, unique_id), contains_record(entries, unique_id)).label("entered")
    return statement.add_columns(journaled).add_cte(*replacement.changes)


def select_result(document: Document, parts: StatementParts) -> Select[Any]:
    """Return a statement that selects `unique_id`, `document` and the linkable ids for each record of `parts.page`."""
    replacement = parts.link_replacement
    statement = document.replace_relations(replacement.relations).select_page(parts.page)
    unique_id = statement.selected_columns[0]
    return statement.add_columns(*linkable_id_columns(replacement.linkable_pairs, unique_id))


@cache
def delete_record(table: Table, action: str, *, is_merge: bool = False) -> Select[Any]:
    """Build the statement that deletes the record with the id `:id` and inserts the journal entry for it.

    The entry contains `action` and, if the record is merged into another one, `:merge`.
    """
    is_record = table.c.unique_id == bindparam("id", type_=ID_TEXT)
    merge_columns = [bindparam("merge", type_=MERGE_COLUMN.type).label(MERGE_COLUMN.name)] if is_merge else []
    deleted = delete(table).where(is_record).returning(table.c.unique_id, table.c.version, *merge_columns).cte("gone")
    return select(insert_deletion_entry(table, deleted, action))


@cache
def advisory_lock(table: Table) -> Select[Any]:
    """Build the statement that locks the id `:id` of the records in `table` until the transaction ends."""
    lock_name = literal_column(f"'{table.name}/'").concat(bindparam("id", type_=ID_TEXT))
    return select(func.pg_advisory_xact_lock(func.hashtextextended(lock_name, literal_column("0"))))
