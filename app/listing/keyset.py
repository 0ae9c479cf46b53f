"""Keyset pagination: builds the SQL statements for pages of lists that are filtered, ordered or searched.

A list parameter is named after a column or a link (`hospital_id`). As in Django, a suffix such as `__gte` selects the
comparison: `date_created__gte`. Free text is compared case- and accent-folded, so that case and accents make no
difference. Only PostgreSQL folds text, because a second folding table in Python would sooner or later differ from
the first. A list consists of consecutive segments, and the statement for a page reads as many of them as it needs.
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
    collate,
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
from sqlalchemy.dialects.postgresql import TSQUERY, TSVECTOR, array

from app.db.base import FOLDED_TEXT, HUMAN_TEXT, ID_TEXT
from app.listing.page import aggregate_keys, aggregate_page
from app.statements.documents import Document, ToMany

Comparator = Callable[[ColumnElement[Any], ColumnElement[Any]], ColumnElement[bool]]

_LAST_CHARACTER: ColumnElement[str] = literal_column("chr(1114111)")
"""The last Unicode character. In byte order it sorts after all other characters."""
# rendered as a literal, because for `LIMIT $2` PostgreSQL plans as if a tenth of the table were requested
LIMIT_PARAMETER = bindparam("limit", type_=Integer, literal_execute=True)
_AFTER_ID_PARAMETER = bindparam("after_id", type_=ID_TEXT)


def sort_key(column: Column[Any]) -> Column[Any]:
    """Return the column that replaces `column` in comparisons and in the sort order.

    This is the case- and accent-folded counterpart of `column` if the table has one, otherwise `column` itself.
    """
    key: Column[Any] = column.table.c.get(f"{column.name}_folded", column)
    return key


def starts_with(key: ColumnElement[str], prefix: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that `key` starts with `prefix`.

    The condition is a range comparison and not a pattern match, so that PostgreSQL can use an index on `key`.
    """
    return and_(key >= prefix, key < prefix.concat(_LAST_CHARACTER))


def has_word(vector: ColumnElement[str], typed_word: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that one of the words in `vector`, which `spellings` returned, begins with a typed word."""
    folded = collate(func.fold(typed_word), "pg_c_utf8")
    letters = func.regexp_replace(folded, literal_column("'[[:punct:][:space:]]+'"), literal_column("''"), text("'g'"))
    # null if nothing is left of the word, and then no row meets the condition
    word = func.quote_literal(func.nullif(letters, literal_column("''")))
    return vector.bool_op("@@")(cast(word.concat(literal_column("':*'")), TSQUERY))


_LOOKUP_COMPARATORS: Mapping[str, Comparator] = {
    "gte": lambda key, value: key >= value,
    "lte": lambda key, value: key <= value,
    "lt": lambda key, value: key < value,
    "startswith": starts_with,
    "words": has_word,
}
"""Maps the suffix of a list parameter (`gte` in `date_created__gte`) to the function that builds the comparison."""


def equals(key: ColumnElement[Any], values: Sequence[ColumnElement[Any]]) -> ColumnElement[bool]:
    """Return the condition that `key` equals one of `values`."""
    return key == values[0] if len(values) == 1 else key == any_(array(values))


def _value_parameters(name: str, column: Column[Any], filters: Mapping[str, int]) -> list[ColumnElement[Any]]:
    """Return the bind parameters for the values of the filter `name`.

    `filters` maps the name of each filter to the number of its values.
    """
    # the type includes the collation of the compared column, because PostgreSQL uses no index with another collation
    value_type = HUMAN_TEXT if isinstance(column.type, TSVECTOR) else sort_key(column).type
    return [bindparam(f"{name}_{index}", type_=value_type) for index in range(filters.get(name, 0))]


def filter_condition(
    table: Table, link_relations: Mapping[str, ToMany], name: str, value_count: int
) -> ColumnElement[bool]:
    """Return the condition that a row of `table` matches at least one value of the list parameter `name`.

    With the suffix `__words`, the row must match all values, which are the words of a search text.

    The `value_count` values come from the bind parameters `{name}_0`, `{name}_1` and so on.
    """
    field, _, lookup = name.partition("__")
    column = link_relations[f"{field}s"].target_column if f"{field}s" in link_relations else table.c[field]
    operands = _value_parameters(name, column, {name: value_count})
    if sort_key(column) is not column:
        operands = [func.fold(value, type_=FOLDED_TEXT) for value in operands]
    if lookup:
        combine = and_ if lookup == "words" else or_
        return combine(*(_LOOKUP_COMPARATORS[lookup](sort_key(column), value) for value in operands))
    if column.table is table:
        return equals(sort_key(column), operands)
    return exists().where(link_relations[f"{field}s"].owner_column == table.c.unique_id, equals(column, operands))


def filter_parameters(filters: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return the values of the bind parameters in a statement with these filters."""
    return {f"{name}_{index}": value for name, values in filters.items() for index, value in enumerate(values)}


class Segment(NamedTuple):
    """One of the consecutive parts of a list. It has its own conditions and sort key."""

    number: int
    conditions: Sequence[ColumnElement[bool]] = ()
    key: ColumnElement[Any] | None = None
    """The expression to sort by first, before `unique_id`. None if the segment is sorted by `unique_id` alone."""
    has_constant_key: bool = False
    """Whether all rows have the same key.

    Such a key is in the ORDER BY clause only so that PostgreSQL can use an index that contains it.
    """
    is_materialized: bool = False
    """Whether the statement makes PostgreSQL collect all matching rows before it sorts them.

    This is true for segments for which PostgreSQL would otherwise scan the primary key in order, which would take too
    long.
    """


def segments_for(table: Table, ordering: str) -> tuple[list[Segment], bool]:
    """Return the segments of a list that is ordered by a column, and whether the order is descending.

    `ordering` is the name of the column, preceded by `-` for descending order. Null values come last in both
    directions.
    """
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
    """Return the statement for the first rows of a segment.

    If `is_continuation` is true, the rows start after the position in the bind parameters `after_key` and `after_id`.
    """
    unique_id: ColumnElement[str] = table.c.unique_id
    key = (cast(null(), Text) if segment.key is None else segment.key).label("key")
    rows = select(literal_column(str(segment.number)).label("part"), key, unique_id).where(*segment.conditions)
    sorting: list[ColumnElement[Any]] = [unique_id] if segment.key is None else [key, unique_id]
    if segment.is_materialized:
        fenced = rows.offset(literal_column("0")).subquery()
        rows, unique_id, sorting = select(fenced), fenced.c.unique_id, [fenced.c.unique_id]
    if is_continuation:
        position: tuple[ColumnElement[Any], ColumnElement[Any]] = (unique_id, _AFTER_ID_PARAMETER)
        if segment.key is not None and not segment.has_constant_key:
            after_key = bindparam("after_key", type_=segment.key.type)
            position = tuple_(segment.key, unique_id), tuple_(after_key, _AFTER_ID_PARAMETER)
        rows = rows.where(position[0] < position[1] if descending else position[0] > position[1])
    return rows.order_by(*_sort_columns(sorting, descending=descending)).limit(LIMIT_PARAMETER)


def keyset_page(table: Table, segments: Sequence[Segment], *, is_continuation: bool, descending: bool = False) -> CTE:
    """Return a CTE of the first rows of a list, with the columns `part` (segment number), `key` and `unique_id`.

    If `is_continuation` is true, the rows start after a position in the first of the `segments`. PostgreSQL reads a
    segment only if the segments before it have fewer rows than the limit.
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
    """Return a CTE like `keyset_page`, for a list that is filtered by one timestamp and ordered by `unique_id`.

    `column_name` is the column with the timestamp. `filters` contains the names of the list parameters, each with the
    number of its values. PostgreSQL uses an index on the month, and reads from each month at most as many rows as the
    page needs. It would be slower to scan the primary key: ids are often assigned in chronological order, so the scan
    would pass all older rows before it reached a match. It would also be slower to scan by time, because all matching
    rows would have to be sorted.
    """
    column, unique_id = table.c[column_name], table.c.unique_id
    bounds = {lookup: _value_parameters(f"{column_name}__{lookup}", column, dict(filters)) for lookup in ("gte", "lt")}
    earliest, latest = (select(aggregate(column)).scalar_subquery() for aggregate in (func.min, func.max))
    first = func.greatest(earliest, *([func.least(*bounds["gte"])] if bounds["gte"] else []))
    last = func.least(latest, *([func.greatest(*bounds["lt"])] if bounds["lt"] else []))
    # without a time zone, because otherwise months would begin at midnight in the session's time zone
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


def page_keys(rows: CTE, *, descending: bool = False) -> Select[Any]:
    """Return the statement that selects the same row as `page_documents`, but without the documents."""
    sorting = (rows.c.part, *_sort_columns([rows.c.key, rows.c.unique_id], descending=descending))
    return aggregate_keys(select(rows.c.part, rows.c.key, rows.c.unique_id).order_by(*sorting))


def page_documents(document: Document, rows: CTE, *, descending: bool = False) -> Select[Any]:
    """Return the statement that selects the documents of a page, in the order of the list, as one row.

    `rows` is a CTE that `keyset_page` or `keyset_page_by_month` has returned.
    """
    documents = document.select_documents(
        document.select_rows().join(rows, rows.c.unique_id == document.table.c.unique_id)
    ).subquery("of_page")
    unique_id, json_text = documents.c
    return aggregate_page(
        select(rows.c.part, rows.c.key, rows.c.unique_id, json_text)
        .join(documents, unique_id == rows.c.unique_id)
        .order_by(rows.c.part, *_sort_columns([rows.c.key, rows.c.unique_id], descending=descending))
    )
