"""Statements that find lines which would damage stored records, because their ids or values are wrong.

A clinic that numbers its patients from 1 has the ids of another clinic, and a spreadsheet removes leading zeros.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Select, String, and_, case, func, literal_column, null, or_, select
from sqlalchemy.dialects.postgresql import array

if TYPE_CHECKING:  # it imports this module
    from app.transfer.staging import Staging

OTHER_PERSON_MESSAGE = (
    "The stored patient has another name and another date of birth, so it may be another person: correct the id, or "
    "use --allow-other-person"
)
LOST_ZEROS_MESSAGE = "Differs from the stored value only by the leading zeros that it lacks"


def other_person_statement(staging: "Staging", names: Sequence[str], birth_date: str) -> Select[Any]:
    """Return a statement that selects the lines that replace a name of a stored record as well as its date of birth.

    Case and accents of names do not matter. A value that replaces nothing, or that is cleared, does not count.
    """
    names_differ = or_(*(_replaces(staging, name, func.fold) for name in names))
    return (
        select(staging.staging_table.c.line)
        .join(staging.table, staging.same_record)
        .where(names_differ, _replaces(staging, birth_date))
    )


def lost_zeros_statement(staging: "Staging") -> Select[Any]:
    """Return a statement that selects each line and field with a value that only lacks leading zeros."""
    cases = []
    for name in staging.client_columns:
        if isinstance(staging.table.c[name].type, String):
            staged, stored = staging.staging_table.c[name], staging.table.c[name]
            without_zeros = func.ltrim(stored, literal_column("'0'"))
            loses_zeros = and_(without_zeros == staged, stored != staged, staging.sets_field(name))
            cases.append(case((loses_zeros, literal_column(f"'{name}'"))))
    field = func.unnest(func.array_remove(array(cases), null()))
    rows = staging.staging_table.join(staging.table, staging.same_record)
    return select(staging.staging_table.c.line, field).select_from(rows)


def _replaces(
    staging: "Staging", name: str, normalized: Callable[[Any], ColumnElement[Any]] = lambda value: value
) -> ColumnElement[bool]:
    """Return the SQL condition that a line replaces a stored value with another one."""
    return and_(
        staging.sets_field(name), normalized(staging.staging_table.c[name]) != normalized(staging.table.c[name])
    )
