"""Reads pages of record lists from the database, and counts the records that match a list query."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, CTE, ColumnElement, Select, bindparam, column, func, literal_column, select

from app.db.base import ID_TEXT
from app.db.connection import Result, Statement, compiled_by_shape
from app.listing.counting import MAX_EXACT_COUNT, RecordCount, count_from_sample, sample_statement
from app.listing.keyset import (
    LIMIT_PARAMETER,
    Segment,
    filter_condition,
    filter_parameters,
    keyset_page,
    keyset_page_by_month,
    page_documents,
    page_keys,
    segments_for,
)
from app.listing.page import FIRST_SEGMENT, NO_KEY, Page, aggregate_page, page_from_aggregates
from app.listing.query import ListQuery, Position
from app.records.repository import Repository
from app.statements import hospital_scope


class ListShape(NamedTuple):
    """The part of a list query that determines its SQL, without the parameter values."""

    repository_class: type[Repository]
    restricted: bool
    """Whether the principal is restricted to certain hospitals."""
    is_id_lookup: bool = False
    """Whether the principal can see so few records that the statement looks them up by their ids."""
    filters: tuple[tuple[str, int], ...] = ()
    """The name of each filter, with the number of its values."""

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """SQL conditions for the records that match the filters and are visible to the principal."""
        visible = (
            hospital_scope.is_in_few_ids(self.repository_class.table.c.unique_id)
            if self.is_id_lookup
            else self.repository_class.visibility_condition(restricted=self.restricted)
        )
        return [visible, *self.without_index_use(self.filter_conditions)]

    @property
    def filter_conditions(self) -> list[ColumnElement[bool]]:
        """SQL conditions for the records that match the filters."""
        return [self._filter_condition(name, count) for name, count in self.filters]

    def _filter_condition(self, name: str, value_count: int) -> ColumnElement[bool]:
        repository = self.repository_class
        if (build := repository.special_filters.get(name)) is not None:
            values = [bindparam(f"{name}_{index}", type_=ID_TEXT) for index in range(value_count)]
            return build(repository.table.c.unique_id, values)
        return filter_condition(repository.table, repository.link_relations, name, value_count)

    def without_index_use(self, conditions: Iterable[ColumnElement[bool]]) -> list[ColumnElement[bool]]:
        """Return the conditions, rewritten for an id lookup so that PostgreSQL uses no index for them.

        PostgreSQL then checks the conditions for each record. If it used an index, it would also read matching records
        outside the principal's hospital scope, and the response time would reveal that these records exist. If this is
        not an id lookup, the conditions are returned unchanged.
        """
        return [each.is_(literal_column("true")) if self.is_id_lookup else each for each in conditions]

    @property
    def has_single_values(self) -> bool:
        """Whether every filter is one value of a column, for a principal that is not restricted.

        An index for such a filter has its rows in the order of `unique_id`, so no more of them are read than are shown.
        """
        columns = self.repository_class.table.c
        return not self.restricted and all(count == 1 and name in columns for name, count in self.filters)

    @property
    def month_indexed_column(self) -> str | None:
        """The column that all filters apply to, if this column has an index on the month.

        The value is None if the filters do not all apply to one such column, or if the principal is restricted.
        """
        columns = {name.partition("__")[0] for name, _ in self.filters}
        return (
            None
            if self.restricted or len(columns) != 1
            else next(iter(columns & self.repository_class.month_indexed_columns), None)
        )


class Listing:
    """The list of one resource, restricted to the records that are visible to the principal of `repository`."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.connection = repository.connection
        self._scope_parameters = hospital_scope.scope_parameters(repository.principal)
        self.headers: Mapping[str, str] = {}
        """Further headers of the response to a list request, after a page was read."""

    async def page(self, query: ListQuery, after: Position | None, limit: int) -> Page:
        """Return up to `limit` records that match the query, starting after the position `after`.

        If `after` is None, the page starts at the beginning of the list.
        """
        list_shape = self._unfiltered_shape if query.is_unfiltered else await self.build_shape(query)
        parameters, ordering = filter_parameters(query.filters), query.ordering or "unique_id"
        if query.is_unfiltered or (list_shape.has_single_values and ordering == "unique_id"):
            in_id_order = _id_order_statement(list_shape)
            return await self.fetch_page(in_id_order, parameters, after or Position(0, None, ""), limit)
        statement = _page_statement(list_shape, ordering, after.segment if after else None)
        return await self.fetch_page(statement, parameters, self.decode_position(ordering, after), limit)

    async def position_after(self, after: Position, distance: int) -> Position | None:
        """Return the position that is `distance` records after the position `after` in the unfiltered list.

        Return None if fewer records follow. Return None also for a restricted principal, because finding the position
        would take too long.
        """
        if self.repository.restricted:
            return None
        result = await self._execute(
            _position_after_statement(self._unfiltered_shape, distance), {"after_id": after.unique_id}
        )
        unique_id: str | None = result.scalar_one_or_none()
        return None if unique_id is None else Position(0, None, unique_id)

    async def read_range(self, after: Position, last: Position) -> Page:
        """Return the records of the unfiltered list after the position `after`, up to and including `last`.

        This method does not apply the hospital scope, so call it only for unrestricted principals.
        """
        bounds = {"after_id": after.unique_id, "last_id": last.unique_id}
        return await self._fetch_page(_range_statement(self._unfiltered_shape), bounds)

    @property
    def _unfiltered_shape(self) -> ListShape:
        return ListShape(type(self.repository), self.repository.restricted)

    async def count(self, query: ListQuery) -> RecordCount:
        """Return the number of records that match the query.

        For a filtered list, the result also contains the ids of the records on which the number depends, so that they
        can be audited. For an unfiltered list it contains no ids, because a principal may know how many records it can
        see.
        """
        if not query.filters:
            return RecordCount(await self.total(query))
        return await self.fetch_sampled_count(
            _sample_statement(await self.build_shape(query)), filter_parameters(query.filters)
        )

    async def total(self, query: ListQuery) -> int:
        """Return the exact number of records that match the query, without ids for the audit.

        Use this method only if the principal may know the number anyway: if the list is unfiltered, or if the principal
        is shown all matching records.
        """
        return await self.fetch_count(_count_statement(await self.build_shape(query)), filter_parameters(query.filters))

    async def build_shape(self, query: ListQuery) -> ListShape:
        """Return the shape of the list for a query, within the hospital scope of the principal.

        If the principal can see only a few records, this method also adds the ids of these records to the parameters of
        all later statements of this listing.
        """
        repository = self.repository
        visible_ids = await repository.visible_ids_if_few()
        self._scope_parameters |= visible_ids or {}
        filters = tuple((name, len(values)) for name, values in sorted(query.filters.items()))
        return ListShape(type(repository), repository.restricted, visible_ids is not None, filters)

    def decode_position(self, ordering: str, position: Position | None) -> Position | None:
        """Return the position, with its key converted from JSON to the type of the column that `ordering` names.

        Only dates and timestamps are converted; cursors contain them as text.
        """
        if position is None or position.key is None:
            return position
        python_type = self.repository.table.c[ordering.removeprefix("-")].type.python_type
        return (
            position._replace(key=python_type.fromisoformat(position.key))
            if issubclass(python_type, date)
            else position
        )

    async def fetch_page(
        self, statement: Statement, parameters: Mapping[str, Any], after: Position | None, limit: int
    ) -> Page:
        """Execute a statement that `aggregate_page` or `aggregate_keys` has built, and return the page.

        The position `after` and `limit` are passed to the statement in addition to `parameters`.
        """
        position_parameters = {} if after is None else {"after_key": after.key, "after_id": after.unique_id}
        return await self._fetch_page(statement, {**parameters, **position_parameters, "limit": limit})

    async def _fetch_page(self, statement: Statement, parameters: Mapping[str, Any]) -> Page:
        [aggregates] = (await self._execute(statement, parameters)).records
        return page_from_aggregates(*aggregates)

    async def with_documents(self, page: Page) -> Page:
        """Return a page that `aggregate_keys` selected in the same snapshot, with its documents."""
        if not page:
            return page
        statement = _documents_statement(self._unfiltered_shape)
        return replace(page, lines=(await self._execute(statement, {"ids": page.ids})).scalar_one())

    async def fetch_sampled_count(
        self, statement: Statement, parameters: Mapping[str, Any], max_exact: int = MAX_EXACT_COUNT
    ) -> RecordCount:
        """Execute a `sample_statement` with this `max_exact`, and return the count that results from the sample."""
        rows: Iterable[Any] = await self._execute(statement, parameters)
        return count_from_sample([(key, unique_id) for key, unique_id in rows], max_exact)

    async def fetch_count(self, statement: Statement, parameters: Mapping[str, Any]) -> int:
        """Execute a statement that selects a single number, and return this number."""
        return int((await self._execute(statement, parameters)).scalar_one())

    async def _execute(self, statement: Statement, parameters: Mapping[str, Any]) -> Result:
        return await self.connection.execute(statement, {**parameters, **self._scope_parameters})


_AFTER_ID_PARAMETER = bindparam("after_id", type_=ID_TEXT)


@compiled_by_shape
def _id_order_statement(list_shape: ListShape) -> Select[Any]:
    """Return the statement for a page in the order of `unique_id` that reads each record once."""
    rows = list_shape.repository_class.next_visible_rows(
        _AFTER_ID_PARAMETER, LIMIT_PARAMETER, restricted=list_shape.restricted
    ).where(*list_shape.filter_conditions)
    return _documents_in_id_order(list_shape.repository_class, rows)


@cache
def _range_statement(list_shape: ListShape) -> Select[Any]:
    key = list_shape.repository_class.table.c.unique_id
    rows = list_shape.repository_class.document.select_rows().where(
        key > _AFTER_ID_PARAMETER, key <= bindparam("last_id", type_=ID_TEXT)
    )
    return _documents_in_id_order(list_shape.repository_class, rows)


def _documents_in_id_order(repository_class: type[Repository], rows: Select[Any]) -> Select[Any]:
    documents = repository_class.document.select_documents(rows).subquery("of_page")
    unique_id, json_text = documents.c
    return aggregate_page(select(FIRST_SEGMENT, NO_KEY, unique_id, json_text).order_by(unique_id))


@cache
def _documents_statement(list_shape: ListShape) -> Select[Any]:
    """Return the statement that selects the documents of the records with the ids in the bind parameter `ids`."""
    ids = func.unnest(bindparam("ids", type_=ARRAY(ID_TEXT)))
    given = ids.table_valued(column("unique_id", ID_TEXT), with_ordinality="place", name="given").render_derived()
    rows = select(literal_column("0").label("part"), given.c.place.label("key"), given.c.unique_id).cte("found")
    *_, lines = page_documents(list_shape.repository_class.document, rows).subquery().c
    return select(lines)


@cache
def _position_after_statement(list_shape: ListShape, distance: int) -> Select[str]:
    key = list_shape.repository_class.table.c.unique_id
    ids = select(key).where(key > _AFTER_ID_PARAMETER).order_by(key).offset(literal_column(str(distance - 1)))
    return ids.limit(literal_column("1"))


@compiled_by_shape
def _page_statement(list_shape: ListShape, ordering: str, first_segment: int | None) -> Select[Any]:
    repository_class, month_indexed_column = list_shape.repository_class, list_shape.month_indexed_column
    if month_indexed_column is None or ordering.removeprefix("-") != "unique_id":
        return ordered_page(repository_class, ordering, first_segment, list_shape.conditions)
    descending = ordering.startswith("-")
    rows = keyset_page_by_month(
        repository_class.table,
        month_indexed_column,
        list_shape.filters,
        is_continuation=first_segment is not None,
        descending=descending,
    )
    return page_documents(repository_class.document, rows, descending=descending)


@compiled_by_shape
def _count_statement(list_shape: ListShape) -> Select[Any]:
    return select(func.count()).select_from(list_shape.repository_class.table).where(*list_shape.conditions)


@compiled_by_shape
def _sample_statement(list_shape: ListShape) -> Select[Any]:
    return sample_statement(list_shape.repository_class.table, list_shape.conditions)


def ordered_page(
    repository_class: type[Repository],
    ordering: str,
    first_segment: int | None,
    conditions: Sequence[ColumnElement[bool]],
) -> Select[Any]:
    """Return the statement for a page of the records that meet `conditions` (see `_ordered_rows`)."""
    rows, descending = _ordered_rows(repository_class, ordering, first_segment, conditions)
    return page_documents(repository_class.document, rows, descending=descending)


def ordered_keys(
    repository_class: type[Repository],
    ordering: str,
    first_segment: int | None,
    conditions: Sequence[ColumnElement[bool]],
) -> Select[Any]:
    """Return the statement for the same page as `ordered_page`, but without the documents."""
    rows, descending = _ordered_rows(repository_class, ordering, first_segment, conditions)
    return page_keys(rows, descending=descending)


def _ordered_rows(
    repository_class: type[Repository],
    ordering: str,
    first_segment: int | None,
    conditions: Sequence[ColumnElement[bool]],
) -> tuple[CTE, bool]:
    """Return the rows of a page of the records that meet `conditions`, and whether the order is descending.

    The records are ordered by the column that `ordering` names; a preceding `-` means descending order. If
    `first_segment` is given, the page starts after a position in the segment with this number.
    """
    all_segments, descending = segments_for(repository_class.table, ordering)
    segments = add_conditions(all_segments[first_segment or 0 :], conditions)
    rows = keyset_page(
        repository_class.table, segments, is_continuation=first_segment is not None, descending=descending
    )
    return rows, descending


def add_conditions(segments: Sequence[Segment], conditions: Sequence[ColumnElement[bool]]) -> list[Segment]:
    """Return copies of the segments, with `conditions` added to the conditions of each segment."""
    return [segment._replace(conditions=(*segment.conditions, *conditions)) for segment in segments]
