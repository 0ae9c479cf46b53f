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

from app.db.base import FOLDED_TEXT, ID_TEXT
from app.records.documents import Document, ToMany

Comparator = Callable[[ColumnElement[Any], ColumnElement[Any]], ColumnElement[bool]]

_LAST_CHARACTER: ColumnElement[str] = literal_column("chr(1114111)")
"""Sorts after all others, by bytes."""
# the number stands in the statement: for `LIMIT $2` PostgreSQL plans as if a tenth of the table were wanted
LIMIT_PARAMETER = bindparam("limit", type_=Integer, literal_execute=True)
_AFTER_ID_PARAMETER = bindparam("after_id", type_=ID_TEXT)


def sort_key(column: Column[Any]) -> Column[Any]:
    """The column by which a column is compared and sorted: where there is one, that which holds it folded."""
    key: Column[Any] = column.table.c.get(f"{column.name}_folded", column)
    return key


def starts_with(key: ColumnElement[str], prefix: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a key begins so: a range of its index, without patterns."""
    return and_(key >= prefix, key < prefix.concat(_LAST_CHARACTER))


_LOOKUP_COMPARATORS: Mapping[str, Comparator] = {
    "gte": lambda key, value: key >= value,
    "lte": lambda key, value: key <= value,
    "lt": lambda key, value: key < value,
    "startswith": starts_with,
}
"""By what follows the name of a column."""


def equals(key: ColumnElement[Any], values: Sequence[ColumnElement[Any]]) -> ColumnElement[bool]:
    """Whether a key is one of some values."""
    return key == values[0] if len(values) == 1 else key == any_(array(values))


def _value_parameters(name: str, column: Column[Any], filters: Mapping[str, int]) -> list[ColumnElement[Any]]:
    """The values of a filter, parameters of the statement."""
    # in the collation of what they are compared with: with another one PostgreSQL takes no index
    value_type = sort_key(column).type
    return [bindparam(f"{name}_{index}", type_=value_type) for index in range(filters.get(name, 0))]


def filter_condition(
    table: Table, link_relations: Mapping[str, ToMany], name: str, value_count: int
) -> ColumnElement[bool]:
    """What a parameter of a list asks of the rows of `table`: that one of its `values` matches.

    They are parameters of the statement, `{name}_0` and so on.
    """
    field, _, lookup = name.partition("__")
    column = link_relations[f"{field}s"].target_column if f"{field}s" in link_relations else table.c[field]
    operands = _value_parameters(name, column, {name: value_count})
    if sort_key(column) is not column:
        operands = [func.fold(value, type_=FOLDED_TEXT) for value in operands]
    if lookup:
        return or_(*(_LOOKUP_COMPARATORS[lookup](sort_key(column), value) for value in operands))
    if column.table is table:
        return equals(sort_key(column), operands)
    return exists().where(link_relations[f"{field}s"].owner_column == table.c.unique_id, equals(column, operands))


def filter_parameters(filters: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The parameters of a statement with these filters."""
    return {f"{name}_{index}": value for name, values in filters.items() for index, value in enumerate(values)}


class Segment(NamedTuple):
    """A part of a list."""

    number: int
    conditions: Sequence[ColumnElement[bool]] = ()
    key: ColumnElement[Any] | None = None
    """What it is ordered by, before `unique_id`."""
    has_constant_key: bool = False
    """Whether the key is the same for all, and said only because an index has it."""
    is_materialized: bool = False
    """Whether all are to be gathered, then sorted: where PostgreSQL would walk the primary key for long."""


def segments_for(table: Table, ordering: str) -> tuple[list[Segment], bool]:
    """The parts of a list in the order of a column, nulls last both ways, and whether it is descending."""
    name = ordering.removeprefix("-")
    descending = name != ordering
    column = table.c[name]
    if name == "unique_id":
        return [Segment(0)], descending
    key = sort_key(column)
    if not column.nullable:
        return [Segment(0, (), key)], descending
    return [Segment(0, (key.is_not(None),), key), Segment(1, (key.is_(None),), key, has_constant_key=True)], descending


def _sort_columns(columns: Sequence[ColumnElement[Any]], *, descending: bool) -> list[ColumnElement[Any]]:
    return [column.desc() if descending else column for column in columns]


def _segment_rows(table: Table, segment: Segment, *, is_continuation: bool, descending: bool) -> Select[Any]:
    """The first rows of a part, or those after a place."""
    unique_id: ColumnElement[str] = table.c.unique_id
    key = cast(null(), Text) if segment.key is None else segment.key
    rows = select(literal_column(str(segment.number)).label("part"), key.label("key"), unique_id).where(
        *segment.conditions
    )
    sorting: list[ColumnElement[Any]] = [unique_id] if segment.key is None else [segment.key, unique_id]
    if segment.is_materialized:
        fenced = rows.offset(literal_column("0")).subquery()
        rows, unique_id, sorting = select(fenced), fenced.c.unique_id, [fenced.c.unique_id]
    if is_continuation:
        position: tuple[ColumnElement[Any], ColumnElement[Any]] = (unique_id, _AFTER_ID_PARAMETER)
        if segment.key is not None and not segment.has_constant_key:
            position = tuple_(*sorting), tuple_(bindparam("after_key", type_=segment.key.type), _AFTER_ID_PARAMETER)
        rows = rows.where(position[0] < position[1] if descending else position[0] > position[1])
    return rows.order_by(*_sort_columns(sorting, descending=descending)).limit(LIMIT_PARAMETER)


def keyset_page(table: Table, segments: Sequence[Segment], *, is_continuation: bool, descending: bool = False) -> CTE:
    """The first rows of a list, or those after a place in its first part: `part`, `key` and `unique_id` of each.

    PostgreSQL begins with a part only when those before it have not filled the limit.
    """
    selects = [
        select(
            _segment_rows(
                table, segment, is_continuation=is_continuation and index == 0, descending=descending
            ).subquery()
        )
        for index, segment in enumerate(segments)
    ]
    return (union_all(*selects).limit(LIMIT_PARAMETER) if len(selects) > 1 else selects[0]).cte("found")


def keyset_page_by_month(
    table: Table, column_name: str, filters: Sequence[tuple[str, int]], *, is_continuation: bool, descending: bool
) -> CTE:
    """The first rows in the order of `unique_id`, of those whose time in the column `name` the filters let through.

    So many are taken of each month, by an index. Ids are often given in the order of time: along the primary key, all
    that is older would be passed before what is wanted comes; and along the time, all that is wanted would be sorted.
    """
    column, unique_id = table.c[column_name], table.c.unique_id
    bounds = {lookup: _value_parameters(f"{column_name}__{lookup}", column, dict(filters)) for lookup in ("gte", "lt")}
    earliest, latest = (select(aggregate(column)).scalar_subquery() for aggregate in (func.min, func.max))
    first = func.greatest(earliest, *([func.least(*bounds["gte"])] if bounds["gte"] else []))
    last = func.least(latest, *([func.greatest(*bounds["lt"])] if bounds["lt"] else []))
    # of timestamps without a zone: with one, a month would begin when it does in the session's
    from_, to = (cast(func.month_of(timestamp), DateTime) for timestamp in (first, last))
    series = func.generate_series(from_, to, text("interval '1 month'"))
    months = series.table_valued("month", name="months").render_derived()
    of_month = select(unique_id).where(func.month_of(column) == cast(months.c.month, Date))
    of_month = of_month.where(*(filter_condition(table, {}, *each) for each in filters))
    if is_continuation:
        of_month = of_month.where(unique_id < _AFTER_ID_PARAMETER if descending else unique_id > _AFTER_ID_PARAMETER)
    nearest = (
        of_month.order_by(*_sort_columns([unique_id], descending=descending)).limit(LIMIT_PARAMETER).lateral("nearest")
    )
    rows = select(literal_column("0").label("part"), cast(null(), Text).label("key"), nearest.c.unique_id)
    rows = rows.select_from(months.join(nearest, true()))
    return (
        rows.order_by(*_sort_columns([nearest.c.unique_id], descending=descending)).limit(LIMIT_PARAMETER).cte("found")
    )


def page_documents(document: Document, rows: CTE, *, descending: bool = False) -> Select[Any]:
    """The documents of the rows that were `found`, in their order: `part`, `key`, `unique_id` and document of each."""
    documents = document.select_documents(
        document.select_rows().join(rows, rows.c.unique_id == document.table.c.unique_id)
    ).subquery("of_page")
    unique_id, json_text = documents.c
    return (
        select(rows.c.part, rows.c.key, rows.c.unique_id, json_text)
        .join(documents, unique_id == rows.c.unique_id)
        .order_by(rows.c.part, *_sort_columns([rows.c.key, rows.c.unique_id], descending=descending))
    )
