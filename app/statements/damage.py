"""Statements that find lines which would damage stored records, because their ids or values are wrong.

A clinic that numbers its patients from 1 has the ids of another clinic, and a spreadsheet removes leading zeros.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    String,
    Table,
    and_,
    case,
    func,
    literal_column,
    null,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import array

OTHER_PERSON_PROBLEM = (
    "The stored patient has another name and another date of birth, so it may be another person: correct the id, or use"
)
"""The message about a line that replaces a person, to be followed by the option that allows it."""
LOST_ZEROS_MESSAGE = "Differs from the stored value only by the leading zeros that it lacks"


class ComparedLines(Protocol):
    """Lines as rows of a table of their own, which are compared with stored records."""

    @property
    def staging_table(self) -> FromClause:
        """The lines, with the columns `line`, `unique_id`, and those of the fields."""

    @property
    def table(self) -> Table:
        """The table of the stored records."""

    @property
    def client_columns(self) -> Sequence[str]:
        """The names of the columns to compare."""

    @property
    def same_record(self) -> ColumnElement[bool]:
        """The SQL condition that a stored record is that of a line."""

    def sets_field(self, name: str) -> ColumnElement[bool]:
        """Return the SQL condition that a line sets a field."""


def other_person_statement(lines: ComparedLines, names: Sequence[str], birth_date: str) -> Select[Any]:
    """Return a statement that selects the lines that change a name of a stored record as well as its date of birth.

    Case and accents of names do not matter. A name that is added or cleared does not count. If a date of birth is added
    or cleared, a line counts only if it keeps none of the names: somebody may have married, and stated the date.
    """
    staged, stored = lines.staging_table.c, lines.table.c
    replaces_birth_date = _replaces(lines, birth_date)
    changes_birth_date = and_(lines.sets_field(birth_date), staged[birth_date].is_distinct_from(stored[birth_date]))
    keeps_no_name = and_(
        *(or_(stored[name].is_(None), and_(lines.sets_field(name), _differs(lines, name))) for name in names)
    )
    return (
        select(staged.line)
        .select_from(lines.staging_table.join(lines.table, lines.same_record))
        .where(
            or_(*(_replaces(lines, name, func.fold) for name in names)),
            changes_birth_date,
            or_(replaces_birth_date, keeps_no_name),
        )
    )


def lost_zeros_statement(lines: ComparedLines) -> Select[Any]:
    """Return a statement that selects each line and field with a value that only lacks leading zeros."""
    cases = []
    for name in lines.client_columns:
        if isinstance(lines.table.c[name].type, String):
            staged, stored = lines.staging_table.c[name], lines.table.c[name]
            without_zeros = func.ltrim(stored, literal_column("'0'"))
            loses_zeros = and_(without_zeros == staged, stored != staged, lines.sets_field(name))
            cases.append(case((loses_zeros, literal_column(f"'{name}'"))))
    field = func.unnest(func.array_remove(array(cases), null()))
    rows = lines.staging_table.join(lines.table, lines.same_record)
    return select(lines.staging_table.c.line, field).select_from(rows)


def _differs(lines: ComparedLines, name: str) -> ColumnElement[bool]:
    """Return the SQL condition that a name of a line is not the stored one. Case and accents do not matter."""
    return func.fold(lines.staging_table.c[name]).is_distinct_from(func.fold(lines.table.c[name]))


def _replaces(
    lines: ComparedLines, name: str, normalized: Callable[[Any], ColumnElement[Any]] = lambda value: value
) -> ColumnElement[bool]:
    """Return the SQL condition that a line replaces a stored value with another one."""
    return and_(lines.sets_field(name), normalized(lines.staging_table.c[name]) != normalized(lines.table.c[name]))
