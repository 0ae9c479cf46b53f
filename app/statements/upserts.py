"""Builds the statement parts that create or overwrite records, whichever is needed, with their journal entries."""

from typing import Any, NamedTuple

from sqlalchemy import CTE, ColumnElement, Select, Table, case, exists, literal_column, or_, select, union_all
from sqlalchemy.dialects.postgresql import insert

from app.db.base import non_generated_columns
from app.statements.journal_entries import insert_entry, with_author
from app.statements.write_statements import contains_record, next_version_values


class Upsert(NamedTuple):
    """The CTEs that create or overwrite records."""

    table: Table
    fields: frozenset[str]
    input_rows: CTE
    changed: CTE
    """The rows that were created or changed, with all columns and the author."""
    entries: CTE
    """The id and version of each journal entry."""

    def has_changed(self, unique_id: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the condition that the record was created or changed."""
        return contains_record(self.changed, unique_id)

    def is_journaled(self, unique_id: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the condition that the journal accepted the entry for a record that was created or changed."""
        return contains_record(self.entries, unique_id)

    def has_succeeded(self, unique_id: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the condition that the record has the values of its input row after the statement.

        It is false if the journal did not accept the entry. It is also false if another transaction has changed the
        record since this statement began, because `rows_after` may then lack these changes.
        """
        stored, requested = self.table.alias(), self.input_rows.alias()
        has_values = exists().where(
            stored.c.unique_id == unique_id,
            requested.c.unique_id == unique_id,
            *(stored.c[name].is_not_distinct_from(requested.c[name]) for name in sorted(self.fields)),
        )
        return case((self.has_changed(unique_id), self.is_journaled(unique_id)), else_=has_values)

    def rows_after(self) -> Any:
        """Return a subquery with the rows of all input rows as they are after the statement."""
        columns = non_generated_columns(self.table)
        unchanged = select(*columns).where(
            contains_record(self.input_rows, self.table.c.unique_id), ~self.has_changed(self.table.c.unique_id)
        )
        changed = select(*(self.changed.c[column.name] for column in columns))
        return union_all(changed, unchanged).cte(f"{self.table.name}_after")


def upsert(table: Table, input_rows: CTE, fields: frozenset[str], *, overwrite: bool = True) -> Upsert:
    """Build the CTEs that create the records of `input_rows`, or overwrite `fields` of those that exist.

    `input_rows` has the columns `unique_id`, the `fields` and the `AUTHOR_COLUMNS`. If `overwrite` is false, existing
    records stay as they are.
    """
    key, names = [table.c.unique_id], ("unique_id", *sorted(fields))
    rows: Select[Any] = select(*(input_rows.c[name] for name in names)).order_by(input_rows.c.unique_id)
    statement = insert(table).from_select(names, rows)
    if fields and overwrite:
        excluded = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=key,
            set_={**{name: excluded[name] for name in fields}, **next_version_values(table)},
            where=or_(*(table.c[name].is_distinct_from(excluded[name]) for name in fields)),
        )
    else:
        statement = statement.on_conflict_do_nothing(index_elements=key)
    changed = with_author(statement.returning(*non_generated_columns(table)).cte(f"upserted_{table.name}"), input_rows)
    action = case(
        (changed.c.version == literal_column("1"), literal_column("'created'")), else_=literal_column("'updated'")
    )
    return Upsert(table, fields, input_rows, changed, insert_entry(table, changed, {}, action))
