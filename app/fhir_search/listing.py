"""Lists of resources that meet the criteria of a search."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select

from app.error_types import FhirErrorType
from app.errors import FieldError, InvalidSearchError
from app.fhir_search.criteria import (
    CriteriaShape,
    Criterion,
    Test,
    criteria_conditions,
    criteria_parameters,
    criteria_shape,
)
from app.listing.counting import MAX_EXACT_COUNT, RecordCount, sample_statement
from app.listing.listing import MAX_CACHED_STATEMENTS, Listing, ListShape, ordered_page
from app.listing.page import Page
from app.listing.query import ListQuery, Position
from app.vocabulary.containing import MAX_CONTAINING_WORDS, MIN_LETTERS, find_containing_words
from app.vocabulary.expansion import MatchKind, expand

_SOUND_KINDS = (MatchKind.EXACT, MatchKind.SOUND)


class CriteriaListing(Listing):
    """The list of the records that meet the criteria in `ListQuery.search`, in the order of a column."""

    async def page(self, query: ListQuery, after: Position | None, limit: int) -> Page:
        """Return up to `limit` records that meet the criteria, starting after the position `after`."""
        if query.search is None:
            return await super().page(query, after, limit)
        criteria = await self._with_words(query.search)
        ordering = query.ordering or "unique_id"
        list_shape = await self.build_shape(query)
        statement = _page_statement(list_shape, criteria_shape(criteria), ordering, after.segment if after else None)
        position = self.decode_position(ordering, after)
        return await self.fetch_page(statement, criteria_parameters(criteria), position, limit)

    async def count(self, query: ListQuery, max_exact: int = MAX_EXACT_COUNT) -> RecordCount:
        """Return the number of records that meet the criteria, with the ids on which it depends (see `Listing.count`).

        If there are more ids than `max_exact`, the number is an estimate.
        """
        if query.search is None:
            return await super().count(query)
        criteria = await self._with_words(query.search)
        statement = _sample_statement(await self.build_shape(query), criteria_shape(criteria), max_exact)
        return await self.fetch_sampled_count(statement, criteria_parameters(criteria), max_exact)

    async def _with_words(self, criteria: Sequence[Criterion]) -> list[Criterion]:
        """Return the criteria with the words of the register that sound like a value, or that contain it."""
        queries = {
            **await self._find("has_word_sounding_like", criteria, self._words_sounding_like),
            **await self._find("has_word_containing", criteria, self._words_containing),
        }

        def known(test: Test) -> Test:
            if "text" not in test.values:
                return test
            query = queries[test.kind, test.values["text"]]
            return Test("query", test.target, {"query": query}) if query else Test("none", "")

        if not queries:
            return list(criteria)
        return [tuple(tuple(known(test) for test in tests) for tests in criterion) for criterion in criteria]

    async def _find(
        self, kind: str, criteria: Sequence[Criterion], find: Callable[[Mapping[str, str]], Awaitable[Iterable[str]]]
    ) -> dict[tuple[str, str], str]:
        """Return the tsquery for the words that `find` finds for each text in tests of a kind."""
        tests = (test for criterion in criteria for tests in criterion for test in tests if test.kind == kind)
        parameters = {test.values["text"]: test.values["parameter"] for test in tests}
        if len(parameters) > MAX_TEXTS:
            message = f"A search has at most {MAX_TEXTS} values of this kind"
            raise _error([*parameters.values()][-1], message)
        queries = await find(parameters) if parameters else ()
        return {(kind, text): query for text, query in zip(parameters, queries, strict=True)}

    async def _words_sounding_like(self, parameters: Mapping[str, str]) -> list[str]:
        for word, parameter in parameters.items():
            if len(word.split()) != 1:
                raise _error(parameter, "Must be one word")
        found = await expand(self.connection, [*parameters], self.repository.principal.hospitals, {})
        return [expanded.any_of(_SOUND_KINDS) if expanded else "" for expanded in found]

    async def _words_containing(self, parameters: Mapping[str, str]) -> list[str]:
        found = await find_containing_words(self.connection, [*parameters], self.repository.principal.hospitals)
        for words, parameter in zip(found, parameters.values(), strict=True):
            if words.is_too_short:
                raise _error(parameter, f"Must have {MIN_LETTERS} or more letters beside each other")
            if words.are_too_many:
                message = f"More than {MAX_CONTAINING_WORDS:,} words of names contain this: send more letters"
                raise _error(parameter, message, "too_costly")
        return [words.query for words in found]


MAX_TEXTS = 8
"""Maximum number of values in a search that are compared by their sound, and of those that names contain."""


def _error(parameter: str, message: str, error_type: FhirErrorType = "parameter_value") -> InvalidSearchError:
    return InvalidSearchError([FieldError(("query", parameter), message, error_type)])


def _conditions(list_shape: ListShape, shape: CriteriaShape) -> list[ColumnElement[bool]]:
    found = criteria_conditions(list_shape.repository_class, shape)
    return [*list_shape.conditions, *list_shape.without_index_use(found)]


@lru_cache(MAX_CACHED_STATEMENTS)
def _page_statement(
    list_shape: ListShape, shape: CriteriaShape, ordering: str, first_segment: int | None
) -> Select[Any]:
    return ordered_page(list_shape.repository_class, ordering, first_segment, _conditions(list_shape, shape))


@lru_cache(MAX_CACHED_STATEMENTS)
def _sample_statement(list_shape: ListShape, shape: CriteriaShape, max_exact: int) -> Select[Any]:
    return sample_statement(list_shape.repository_class.table, _conditions(list_shape, shape), max_exact)
