"""Finding records: the statements of lists that are filtered, ordered or searched.

A parameter of a list is named after a column or a link (`hospital_id`), Django's way: `date_created__gte`. What people
have written is compared folded, without regard to case and accents, and folded by PostgreSQL alone: a second table of
accents would drift. A list has parts, one after the other, of which a page reads as many as it needs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    Column,
    ColumnElement,
    Date,
    DateTime,
    Integer,
    Select,
    Table,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    text,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import array

from app.db.base import ID, KEY
from app.resource.document import Document, ToMany

Compare = Callable[[ColumnElement[Any], ColumnElement[Any]], ColumnElement[bool]]

_LAST_CHARACTER: ColumnElement[str] = literal_column("chr(1114111)")
"""Sorts after all others, by bytes."""
# the number stands in the statement: for `LIMIT $2` PostgreSQL plans as if a tenth of the table were wanted
LIMIT = bindparam("limit", type_=Integer, literal_execute=True)
_AFTER_ID = bindparam("after_id", type_=ID)


def key_of(column: Column[Any]) -> Column[Any]:
    """The column by which a column is compared and sorted: where there is one, that which holds it folded."""
    key: Column[Any] = column.table.c.get(f"{column.name}_folded", column)
    return key


def begins_with(key: ColumnElement[str], beginning: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a key begins so: a range of its index, without patterns."""
    return and_(key >= beginning, key < beginning.concat(_LAST_CHARACTER))


_LOOKUPS: Mapping[str, Compare] = {
    "gte": lambda key, value: key >= value,
    "lte": lambda key, value: key <= value,
    "lt": lambda key, value: key < value,
    "startswith": begins_with,
}
"""By what follows the name of a column."""


def equals(key: ColumnElement[Any], values: Sequence[ColumnElement[Any]]) -> ColumnElement[bool]:
    """Whether a key is one of some values."""
    return key == values[0] if len(values) == 1 else key == any_(array(values))


def _values(name: str, column: Column[Any], filters: Mapping[str, int]) -> list[ColumnElement[Any]]:
    """The values of a filter, parameters of the statement."""
    # in the collation of what they are compared with: with another one PostgreSQL takes no index
    kind = key_of(column).type
    return [bindparam(f"{name}_{place}", type_=kind) for place in range(filters.get(name, 0))]


def condition(table: Table, links: Mapping[str, ToMany], name: str, values: int) -> ColumnElement[bool]:
    """What a parameter of a list asks of the rows of `table`: that one of its `values` matches.

    They are parameters of the statement, `{name}_0` and so on.
    """
    field, _, lookup = name.partition("__")
    column = links[f"{field}s"].key if f"{field}s" in links else table.c[field]
    given = _values(name, column, {name: values})
    if key_of(column) is not column:
        given = [func.fold(value, type_=KEY) for value in given]
    if lookup:
        return or_(*(_LOOKUPS[lookup](key_of(column), value) for value in given))
    if column.table is table:
        return equals(key_of(column), given)
    return exists().where(links[f"{field}s"].owner == table.c.unique_id, equals(column, given))


def values_of(filters: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The parameters of a statement with these filters."""
    return {f"{name}_{place}": value for name, values in filters.items() for place, value in enumerate(values)}


class Part(NamedTuple):
    """A part of a list."""

    number: int
    conditions: Sequence[ColumnElement[bool]] = ()
    key: ColumnElement[Any] | None = None
    """What it is ordered by, before `unique_id`."""
    fixed: bool = False
    """Whether the key is the same for all, and said only because an index has it."""
    gathered: bool = False
    """Whether all are to be gathered, then sorted: where PostgreSQL would walk the primary key for long."""


def ordered(table: Table, ordering: str) -> tuple[list[Part], bool]:
    """The parts of a list in the order of a column, nulls last both ways, and whether it is descending."""
    name = ordering.removeprefix("-")
    descending = name != ordering
    column = table.c[name]
    if name == "unique_id":
        return [Part(0)], descending
    key = key_of(column)
    if not column.nullable:
        return [Part(0, (), key)], descending
    return [Part(0, (key.is_not(None),), key), Part(1, (key.is_(None),), key, fixed=True)], descending


def _sorted(columns: Sequence[ColumnElement[Any]], *, descending: bool) -> list[ColumnElement[Any]]:
    return [column.desc() if descending else column for column in columns]


def _rows(table: Table, part: Part, *, after: bool, descending: bool) -> Select[Any]:
    """The first rows of a part, or those after a place."""
    unique_id: ColumnElement[str] = table.c.unique_id
    key = cast(null(), Text) if part.key is None else part.key
    rows = select(literal_column(str(part.number)).label("part"), key.label("key"), unique_id).where(*part.conditions)
    sorting: list[ColumnElement[Any]] = [unique_id] if part.key is None else [part.key, unique_id]
    if part.gathered:
        fenced = rows.offset(literal_column("0")).subquery()
        rows, unique_id, sorting = select(fenced), fenced.c.unique_id, [fenced.c.unique_id]
    if after:
        place: tuple[ColumnElement[Any], ColumnElement[Any]] = (unique_id, _AFTER_ID)
        if part.key is not None and not part.fixed:
            place = tuple_(*sorting), tuple_(bindparam("after_key", type_=part.key.type), _AFTER_ID)
        rows = rows.where(place[0] < place[1] if descending else place[0] > place[1])
    return rows.order_by(*_sorted(sorting, descending=descending)).limit(LIMIT)


def found(table: Table, parts: Sequence[Part], *, after: bool, descending: bool = False) -> CTE:
    """The first rows of a list, or those after a place in its first part: `part`, `key` and `unique_id` of each.

    PostgreSQL begins with a part only when those before it have not filled the limit.
    """
    selects = [
        select(_rows(table, part, after=after and place == 0, descending=descending).subquery())
        for place, part in enumerate(parts)
    ]
    return (union_all(*selects).limit(LIMIT) if len(selects) > 1 else selects[0]).cte("found")


def found_by_month(
    table: Table, name: str, filters: Sequence[tuple[str, int]], *, after: bool, descending: bool
) -> CTE:
    """The first rows in the order of `unique_id`, of those whose time in the column `name` the filters let through.

    So many are taken of each month, by an index. Ids are often given in the order of time: along the primary key, all
    that is older would be passed before what is wanted comes; and along the time, all that is wanted would be sorted.
    """
    column, unique_id = table.c[name], table.c.unique_id
    bounds = {lookup: _values(f"{name}__{lookup}", column, dict(filters)) for lookup in ("gte", "lt")}
    earliest, latest = (select(most(column)).scalar_subquery() for most in (func.min, func.max))
    first = func.greatest(earliest, *([func.least(*bounds["gte"])] if bounds["gte"] else []))
    last = func.least(latest, *([func.greatest(*bounds["lt"])] if bounds["lt"] else []))
    # of timestamps without a zone: with one, a month would begin when it does in the session's
    from_, to = (cast(func.month_of(moment), DateTime) for moment in (first, last))
    series = func.generate_series(from_, to, text("interval '1 month'"))
    months = series.table_valued("month", name="months").render_derived()
    of_month = select(unique_id).where(func.month_of(column) == cast(months.c.month, Date))
    of_month = of_month.where(*(condition(table, {}, *each) for each in filters))
    if after:
        of_month = of_month.where(unique_id < _AFTER_ID if descending else unique_id > _AFTER_ID)
    nearest = of_month.order_by(*_sorted([unique_id], descending=descending)).limit(LIMIT).lateral("nearest")
    rows = select(literal_column("0").label("part"), cast(null(), Text).label("key"), nearest.c.unique_id)
    rows = rows.select_from(months.join(nearest, true()))
    return rows.order_by(*_sorted([nearest.c.unique_id], descending=descending)).limit(LIMIT).cte("found")


def page_of(document: Document, rows: CTE, *, descending: bool = False) -> Select[Any]:
    """The documents of the rows that were `found`, in their order: `part`, `key`, `unique_id` and document of each."""
    of_page = document.of(document.rows().join(rows, rows.c.unique_id == document.table.c.unique_id)).subquery(
        "of_page"
    )
    unique_id, written = of_page.c
    return (
        select(rows.c.part, rows.c.key, rows.c.unique_id, written)
        .join(of_page, unique_id == rows.c.unique_id)
        .order_by(rows.c.part, *_sorted([rows.c.key, rows.c.unique_id], descending=descending))
    )
