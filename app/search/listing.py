"""The list of patients, including search."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal_column, select

from app.listing.counting import RecordCount, sample_statement
from app.listing.keyset import filter_parameters, keyset_page, page_documents
from app.listing.listing import MAX_CACHED_STATEMENTS, Listing, ListShape, add_conditions, ordered_page
from app.listing.page import EMPTY_PAGE, Page
from app.listing.query import ListQuery, Position
from app.search.parser import ParsedQuery
from app.search.ranking import QueryShape, bind_query, match_conditions, ranked_segments
from app.search.vocabulary import expand

_SEGMENTS_PER_INTERPRETATION, _DISTANT_OFFSET = 20, 10
"""Factor and offset that encode two decisions in the segment number of a position.

The first decision is which interpretation of the search text is used. The index of the interpretation, multiplied by
`_SEGMENTS_PER_INTERPRETATION`, is added to the segment number. The second decision, in a list that is ordered by a
column, is whether the list includes distant matches. If it does, `_DISTANT_OFFSET` is added to the segment number. Both
decisions are made only once, for the first page, so that patients created later cannot hide patients that matched
before.
"""


class PatientListing(Listing):
    """The list of patients.

    With a search, it contains the matching patients, best match first, or in the requested order.
    """

    async def page(self, query: ListQuery, after: Position | None, limit: int) -> Page:
        """Return up to `limit` patients that match the query, starting after the position `after`.

        If `after` is None, the page starts at the beginning of the list. The first page of a search uses the first
        interpretation of the search text that matches any patient, and later pages use the same interpretation.
        """
        if query.search is None:
            return await super().page(query, after, limit)
        first_interpretation, segment = divmod(after.segment, _SEGMENTS_PER_INTERPRETATION) if after else (0, 0)
        position = after and after._replace(segment=segment)
        page = EMPTY_PAGE
        for interpretation_index, interpretation in enumerate(
            query.search[first_interpretation:], first_interpretation
        ):
            if (search := await self._build_search(interpretation, query)) is not None:
                page = _shift_segments(
                    await search.page(position, limit), interpretation_index * _SEGMENTS_PER_INTERPRETATION
                )
            if page or position is not None:
                break
        return page

    async def count(self, query: ListQuery) -> RecordCount:
        """Return the number of patients that match the query.

        For a filtered or searched list, the result also contains the ids of the patients from which the number was
        calculated, so that they can be audited. They are all matching patients or, if there are many, a sample of them.
        """
        if query.search is None:
            return await super().count(query)
        result = RecordCount(0)
        for interpretation in query.search:
            search = await self._build_search(interpretation, query)
            result = await search.count() if search is not None else RecordCount(0)
            if result.ids:
                break
        return result

    async def _build_search(self, parsed: ParsedQuery, query: ListQuery) -> "_PatientSearch | None":
        """Return the search for one interpretation of the search text, or None if it cannot match any patient."""
        if parsed.matches_nothing:
            return None
        expanded_words = (
            await expand(self.connection, parsed.words, self.repository.principal.hospitals) if parsed.words else []
        )
        if len(expanded_words) < len(parsed.words):
            return None
        return _PatientSearch(self, await self.build_shape(query), query, *bind_query(parsed, expanded_words))


def _shift_segments(page: Page, offset: int) -> Page:
    """Return the page with `offset` added to the segment numbers of its positions."""

    def position_of(index: int) -> Position:
        position: Position = page.position_of(index)
        return position._replace(segment=position.segment + offset)

    return replace(page, position_of=position_of)


class _PatientSearch:
    """A search for patients, according to one interpretation of the search text."""

    def __init__(
        self,
        listing: PatientListing,
        list_shape: ListShape,
        query: ListQuery,
        query_shape: QueryShape,
        parameters: Mapping[str, Any],
    ) -> None:
        self._listing = listing
        self._list_shape = list_shape
        self._ordering = query.ordering
        self._query_shape = query_shape
        self._parameters = {**parameters, **filter_parameters(query.filters)}

    async def page(self, after: Position | None, limit: int) -> Page:
        if self._ordering is not None:
            return await self._page_by_column(self._ordering, after, limit)
        close_segments, _ = ranked_segments(self._query_shape)
        if after is not None and after.segment >= len(close_segments):
            return await self._page_by_relevance(after, limit, distant=True)
        page = await self._page_by_relevance(after, limit)
        if page or after is not None or not self._query_shape.short_words:
            return page
        return await self._page_by_relevance(None, limit, distant=True)

    async def count(self) -> RecordCount:
        reach = "far" if await self._needs_distant_matches() else "near"
        return await self._listing.fetch_sampled_count(
            _sample_statement(self._list_shape, self._query_shape, reach), self._parameters
        )

    async def _needs_distant_matches(self) -> bool:
        """Return whether the search has no close match, so that distant matches have to be included."""
        if not self._query_shape.short_words:
            return False
        return not await self._listing.fetch_count(
            _has_close_match_statement(self._list_shape, self._query_shape), self._parameters
        )

    async def _page_by_relevance(self, after: Position | None, limit: int, *, distant: bool = False) -> Page:
        statement = _relevance_statement(
            self._list_shape, self._query_shape, after.segment if after else None, distant=distant
        )
        return await self._listing.fetch_page(statement, self._parameters, after, limit)

    async def _page_by_column(self, ordering: str, after: Position | None, limit: int) -> Page:
        distant = await self._needs_distant_matches() if after is None else after.segment >= _DISTANT_OFFSET
        position = after and self._listing.decode_position(
            ordering, after._replace(segment=after.segment % _DISTANT_OFFSET)
        )
        first_segment = position.segment if position else None
        statement = _ordered_statement(
            self._list_shape, self._query_shape, "far" if distant else "near", ordering, first_segment
        )
        page = await self._listing.fetch_page(statement, self._parameters, position, limit)
        return _shift_segments(page, _DISTANT_OFFSET) if distant else page


@lru_cache(MAX_CACHED_STATEMENTS)
def _relevance_statement(
    list_shape: ListShape, query_shape: QueryShape, first_segment: int | None, *, distant: bool
) -> Select[Any]:
    segments = [
        segment._replace(conditions=list_shape.without_index_use(segment.conditions))
        for segment in ranked_segments(query_shape)[distant]
        if first_segment is None or segment.number >= first_segment
    ]
    resource = list_shape.repository_class
    rows = keyset_page(
        resource.table, add_conditions(segments, list_shape.conditions), is_continuation=first_segment is not None
    )
    return page_documents(resource.document, rows)


def _match_conditions(list_shape: ListShape, query_shape: QueryShape, reach: str) -> list[ColumnElement[bool]]:
    return list_shape.without_index_use(match_conditions(query_shape, reach))


@lru_cache(MAX_CACHED_STATEMENTS)
def _ordered_statement(
    list_shape: ListShape, query_shape: QueryShape, reach: str, ordering: str, first_segment: int | None
) -> Select[Any]:
    return ordered_page(
        list_shape.repository_class,
        ordering,
        first_segment,
        [*list_shape.conditions, *_match_conditions(list_shape, query_shape, reach)],
    )


def _matching_ids(list_shape: ListShape, query_shape: QueryShape, reach: str) -> Select[Any]:
    conditions = _match_conditions(list_shape, query_shape, reach)
    return select(list_shape.repository_class.table.c.unique_id).where(*list_shape.conditions, *conditions)


@lru_cache(MAX_CACHED_STATEMENTS)
def _sample_statement(list_shape: ListShape, query_shape: QueryShape, reach: str) -> Select[Any]:
    return sample_statement(_matching_ids(list_shape, query_shape, reach))


@lru_cache(MAX_CACHED_STATEMENTS)
def _has_close_match_statement(list_shape: ListShape, query_shape: QueryShape) -> Select[Any]:
    first_match = _matching_ids(list_shape, query_shape, "near").limit(literal_column("1"))
    return select(func.count()).select_from(first_match.subquery())
