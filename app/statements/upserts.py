"""Builds the statement parts that create or overwrite records, whichever is needed."""

from typing import Any, NamedTuple

from sqlalchemy import CTE, ColumnElement, Select, Table, case, exists, literal_column, or_, select
from sqlalchemy.dialects.postgresql import insert

from app.db.base import non_generated_columns
from app.statements.journal_entries import with_author
from app.statements.write_statements import contains_record, next_version_values


class Upsert(NamedTuple):
    """The CTEs that create or overwrite records."""

    table: Table
    fields: frozenset[str]
    input_rows: CTE
    changed: CTE
    """The rows that were created or changed, with all columns."""

    @property
    def authored(self) -> CTE:
        """The same rows with their authors."""
        return with_author(self.changed, self.input_rows)

    def has_requested_values(self, unique_id: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the condition that the record has the values of its input row after the statement.

        It is false if nothing was written, but the record did not have these values when the statement began, because
        another transaction has written them since. The statement cannot see its other changes.
        """
        stored, requested = self.table.alias(), self.input_rows.alias()
        had_values = exists().where(
            stored.c.unique_id == unique_id,
            requested.c.unique_id == unique_id,
            *(stored.c[name].is_not_distinct_from(requested.c[name]) for name in sorted(self.fields)),
        )
        return or_(contains_record(self.changed, unique_id), had_values)


def upsert_action(changed: CTE) -> ColumnElement[str]:
    """Return the action of the journal entry for a row that was created or changed."""
    is_new = changed.c.version == literal_column("1")
    return case((is_new, literal_column("'created'")), else_=literal_column("'updated'"))


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
    changed = statement.returning(*non_generated_columns(table)).cte(f"upserted_{table.name}")
    return Upsert(table, fields, input_rows, changed)
