"""Lists of resources that meet the criteria of a search."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select

from app.db.connection import compiled_by_shape
from app.errors import FieldError, InvalidSearchError
from app.fhir_search.criteria import (
    CriteriaShape,
    Criterion,
    Predicate,
    criteria_conditions,
    criteria_parameters,
    criteria_shape,
)
from app.fhir_search.parsers import EVERYTHING, NOTHING
from app.fhir_search.places import containing_places
from app.listing.counting import MAX_EXACT_COUNT, RecordCount, sample_statement
from app.listing.listing import Listing, ListShape, ordered_page
from app.listing.page import Page
from app.listing.query import ListQuery, Position
from app.vocabulary.containing import containing_queries
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
        """Return the criteria with the words and places of the register to which their texts lead.

        Raises:
            InvalidSearchError: there are too many texts, or one is invalid.
        """
        texts: dict[tuple[str, str], dict[str, str]] = {}
        for predicate in (predicate for criterion in criteria for predicates in criterion for predicate in predicates):
            if predicate.kind in _FINDERS:
                of_target = texts.setdefault((predicate.kind, predicate.target), {})
                of_target[predicate.values["text"]] = predicate.values["parameter"]
        if not texts:
            return list(criteria)
        found: dict[tuple[str, str, str], Predicate] = {}
        for (kind, target), parameters in texts.items():
            if len(parameters) > MAX_TEXTS:
                raise _error([*parameters.values()][-1], f"A search has at most {MAX_TEXTS} values of this kind")
            predicates = await _FINDERS[kind](self, target, parameters)
            found |= {(kind, target, text): predicate for text, predicate in zip(parameters, predicates, strict=True)}

        def known(predicate: Predicate) -> Predicate:
            return (
                found[predicate.kind, predicate.target, predicate.values["text"]]
                if predicate.kind in _FINDERS
                else predicate
            )

        return [
            tuple(tuple(known(predicate) for predicate in predicates) for predicates in criterion)
            for criterion in criteria
        ]

    async def find_similar_words(self, vector: str, parameters: Mapping[str, str]) -> list[Predicate]:
        """Return the predicates whether a name has a word that sounds like each word."""
        for word, parameter in parameters.items():
            if len(word.split()) != 1:
                raise _error(parameter, "Must be one word")
        expanded = await expand(self.connection, [*parameters], self.repository.principal.hospitals, {})
        queries = [each.any_of(_SOUND_KINDS) if each else "" for each in expanded]
        return [Predicate("query", vector, {"query": query}) if query else NOTHING for query in queries]

    async def find_containing_words(self, vector: str, parameters: Mapping[str, str]) -> list[Predicate]:
        """Return predicates that all patients pass whose names contain each text, so that few remain to be compared."""
        queries = await containing_queries(self.connection, [*parameters], self.repository.principal.hospitals)
        return [Predicate("query", vector, {"query": query}) if query else EVERYTHING for query in queries]

    async def find_containing_places(self, column: str, parameters: Mapping[str, str]) -> list[Predicate]:
        """Return predicates that all patients pass in whose address the column contains each text, as for words.

        All patients pass if the principal is restricted, because the time would depend on the places of other patients.
        """
        if self.repository.restricted:
            return [EVERYTHING] * len(parameters)
        places = await containing_places(self.connection, column, [*parameters])
        return [EVERYTHING if values is None else Predicate("any_of", column, {"values": values}) for values in places]


_FINDERS: Mapping[str, Callable[[CriteriaListing, str, Mapping[str, str]], Awaitable[list[Predicate]]]] = {
    "has_word_sounding_like": CriteriaListing.find_similar_words,
    "has_word_containing": CriteriaListing.find_containing_words,
    "has_place_containing": CriteriaListing.find_containing_places,
}
"""The methods that replace a predicate whose condition depends on the register, by its kind."""
MAX_TEXTS = 8
"""Maximum number of values in a search that are compared by their sound, and of those that a name or place contains."""


def _error(parameter: str, message: str) -> InvalidSearchError:
    return InvalidSearchError([FieldError(("query", parameter), message, "parameter_value")])


def _conditions(list_shape: ListShape, shape: CriteriaShape) -> list[ColumnElement[bool]]:
    found = criteria_conditions(list_shape.repository_class, shape)
    return [*list_shape.conditions, *list_shape.without_index_use(found)]


@compiled_by_shape
def _page_statement(
    list_shape: ListShape, shape: CriteriaShape, ordering: str, first_segment: int | None
) -> Select[Any]:
    return ordered_page(list_shape.repository_class, ordering, first_segment, _conditions(list_shape, shape))


@compiled_by_shape
def _sample_statement(list_shape: ListShape, shape: CriteriaShape, max_exact: int) -> Select[Any]:
    return sample_statement(list_shape.repository_class.table, _conditions(list_shape, shape), max_exact)
