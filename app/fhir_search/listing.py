"""Lists of resources that meet the criteria of a search."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select

from app.errors import FieldError, InvalidSearchError
from app.fhir_search.criteria import (
    CriteriaShape,
    Criterion,
    Test,
    criteria_conditions,
    criteria_parameters,
    criteria_shape,
)
from app.listing.counting import RecordCount, sample_statement
from app.listing.listing import MAX_CACHED_STATEMENTS, Listing, ListShape, ordered_page
from app.listing.page import Page
from app.listing.query import ListQuery, Position
from app.vocabulary.expansion import MatchKind, expand

_SOUND_KINDS = (MatchKind.EXACT, MatchKind.SOUND)


class CriteriaListing(Listing):
    """The list of the records that meet the criteria in `ListQuery.search`, in the order of a column."""

    async def page(self, query: ListQuery, after: Position | None, limit: int) -> Page:
        """Return up to `limit` records that meet the criteria, starting after the position `after`."""
        if query.search is None:
            return await super().page(query, after, limit)
        criteria = await self._with_sounds(query.search)
        ordering = query.ordering or "unique_id"
        list_shape = await self.build_shape(query)
        statement = _page_statement(list_shape, criteria_shape(criteria), ordering, after.segment if after else None)
        position = self.decode_position(ordering, after)
        return await self.fetch_page(statement, criteria_parameters(criteria), position, limit)

    async def count(self, query: ListQuery) -> RecordCount:
        """Return the number of records that meet the criteria, exactly or as an estimate (see `Listing.count`)."""
        if query.search is None:
            return await super().count(query)
        criteria = await self._with_sounds(query.search)
        statement = _sample_statement(await self.build_shape(query), criteria_shape(criteria))
        return await self.fetch_sampled_count(statement, criteria_parameters(criteria))

    async def _with_sounds(self, criteria: Sequence[Criterion]) -> list[Criterion]:
        """Return the criteria with the words of the register that sound like those that are searched for."""
        words = [test.values["word"] for test in _tests(criteria) if test.kind == "sounds_like"]
        if not words:
            return list(criteria)
        if len(words) > MAX_SOUNDS or any(len(word.split()) != 1 for word in words):
            message = f"Must be one word; a search has at most {MAX_SOUNDS} of them"
            raise InvalidSearchError([FieldError(("query", "phonetic"), message, "parameter_value")])
        found = await expand(self.connection, words, self.repository.principal.hospitals, {})
        queries = {
            word: expanded.any_of(_SOUND_KINDS) if expanded else "" for word, expanded in zip(words, found, strict=True)
        }

        def known(test: Test) -> Test:
            if test.kind != "sounds_like":
                return test
            query = queries[test.values["word"]]
            return Test("query", test.target, {"query": query}) if query else Test("none", "")

        return [tuple(tuple(known(test) for test in tests) for tests in criterion) for criterion in criteria]


MAX_SOUNDS = 8
"""Maximum number of words in a search that are compared by their sound."""


def _tests(criteria: Sequence[Criterion]) -> list[Test]:
    return [test for criterion in criteria for tests in criterion for test in tests]


def _conditions(list_shape: ListShape, shape: CriteriaShape) -> list[ColumnElement[bool]]:
    found = criteria_conditions(list_shape.repository_class, shape)
    return [*list_shape.conditions, *list_shape.without_index_use(found)]


@lru_cache(MAX_CACHED_STATEMENTS)
def _page_statement(
    list_shape: ListShape, shape: CriteriaShape, ordering: str, first_segment: int | None
) -> Select[Any]:
    return ordered_page(list_shape.repository_class, ordering, first_segment, _conditions(list_shape, shape))


@lru_cache(MAX_CACHED_STATEMENTS)
def _sample_statement(list_shape: ListShape, shape: CriteriaShape) -> Select[Any]:
    return sample_statement(list_shape.repository_class.table, _conditions(list_shape, shape))
