"""The list of patients, including search."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

from sqlalchemy import ARRAY, ColumnElement, Select, any_, bindparam, func

from app.db.base import ID_TEXT
from app.db.connection import Statement, compiled_by_shape
from app.db.database import PLAN_FOR_VALUES, PLAN_ONCE
from app.listing.counting import RecordCount, sample_statement
from app.listing.keyset import Segment, filter_parameters, keyset_page, page_keys
from app.listing.listing import Listing, ListShape, add_conditions, ordered_keys
from app.listing.page import EMPTY_PAGE, Page
from app.listing.query import ListQuery, Position
from app.search.candidate_scores import (
    MAX_PROMISING_CANDIDATES,
    ScoredPatient,
    best_candidates_statement,
    factors_by_rarity,
)
from app.search.candidates import (
    NAMES,
    PAIRS,
    PLACES,
    Candidates,
    candidate_groups,
    candidate_parameters,
    candidates_statement,
    pair_parameters,
)
from app.search.misspelled_places import spellings_of_towns, towns_statement
from app.search.probes import probe
from app.search.ranking import AgreementShape, agreement_conditions, agreement_segments, bind_agreement
from app.search.word_branches import WordBranches
from app.search_scores.conditions import Reach
from app.search_scores.scoring import score_parameters
from app.search_scores.terms import SearchTerm
from app.search_scores.weights import FEW_MATCHES, WEAK_AGREEMENT_PERCENT
from app.search_text.parser import ParsedQuery
from app.vocabulary.expansion import expand

_FEW_OFFSET = 100
"""Offset that encodes in the segment number of a position that few patients agree with all terms.

Others then follow. This is decided only once, for the first page, so that patients created later cannot hide patients
that followed before.
"""
_MAX_AGREEING = 200
"""Maximum number of patients that may agree with all terms on a later page, although few did on the first page."""
_OTHERS_SEGMENT = 200
"""Segment number of patients that do not agree with all terms, if they follow the patients that do.

Cursors contain the ids of those that are still to come, because patients created later may score higher.
"""


class Agreement(NamedTuple):
    """How well the best patient of a search agrees with the search text."""

    level: str
    """`full` if patients agree with all terms, `partial` or `weak` if none does, and `none` if no patient is found."""
    set_aside: int
    """Number of terms that the best patient does not agree with."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the first page of a search."""
        return {"Search-Agreement": self.level, "Search-Set-Aside": str(self.set_aside)}


class PatientListing(Listing):
    """The list of patients.

    With a search, it contains the patients that agree with all terms of the search text, best match first, or in the
    requested order. If they are fewer than `FEW_MATCHES`, the best of the other patients follow. In a requested order,
    these follow only if no patient agrees with all terms.
    """

    async def page(self, query: ListQuery, after: Position | None, limit: int) -> Page:
        """Return up to `limit` patients that match the query, starting after the position `after`.

        If `after` is None, the page starts at the beginning of the list.
        """
        if query.search is None:
            return await super().page(query, after, limit)
        if after is not None and after.segment == _OTHERS_SEGMENT:
            remaining = await self._page_of_others(await self.build_shape(query), query, after.key)
            return await self.with_documents(remaining.first(limit))
        search = await _PatientSearch.prepare(self, query)
        position = after and after._replace(segment=after.segment % _FEW_OFFSET)
        enough = FEW_MATCHES if query.ordering is None else 1
        page = await search.page(position, limit if after else max(limit, enough))
        few = len(page) < enough if after is None else after.segment >= _FEW_OFFSET
        agreement = search.full_agreement if page else search.no_agreement
        page = _shift_segments(page, _FEW_OFFSET * few)
        if few and len(page) < limit:
            agreeing = page if after is None else await search.page(None, _MAX_AGREEING)
            others = await search.best_others(agreeing.ids)
            if not agreeing and others:
                agreement = search.describe(others[0])
            ids = [other.unique_id for other in others]
            sorted_others = _others(ids)
            if query.ordering is not None:
                sorted_others = await self._page_of_others(search.list_shape, query, ids)
            page = page.followed_by(sorted_others)
        if after is None:
            self.headers = agreement.headers
        if page:
            await search.plan_once()
        return await self.with_documents(page.first(limit))

    async def count(self, query: ListQuery) -> RecordCount:
        """Return the number of patients that match the query.

        For a filtered or searched list, the result also contains the ids of the patients from which the number was
        calculated, so that they can be audited. They are all matching patients or, if there are many, a sample of them.
        """
        if query.search is None:
            return await super().count(query)
        search = await _PatientSearch.prepare(self, query)
        number, ids = await search.count()
        if number >= (FEW_MATCHES if query.ordering is None else 1):
            return RecordCount(number, ids)
        others = [other.unique_id for other in await search.best_others(ids)]
        return RecordCount(number + len(others), [*ids, *others])

    async def _page_of_others(self, list_shape: ListShape, query: ListQuery, ids: Sequence[str]) -> Page:
        """Return the visible patients with these ids, in the order of the ids or in the requested order."""
        parameters = {"ids": list(ids), **filter_parameters(query.filters)}
        found = await self.fetch_page(_others_statement(list_shape, query.ordering), parameters, None, len(ids))
        return _others(found.ids)

    async def run(self, statement: Statement, parameters: Mapping[str, Any]) -> Any:
        """Execute a statement with the principal's hospital scope in addition to the parameters."""
        return await self._execute(statement, parameters)


def _others(ids: Sequence[str]) -> Page:
    """Return the page of patients that do not agree with all terms, without their documents."""

    def position_of(index: int) -> Position:
        return Position(_OTHERS_SEGMENT, list(ids[index + 1 :]), ids[index])

    return Page(ids, b"", position_of)


def _shift_segments(page: Page, offset: int) -> Page:
    """Return the page with `offset` added to the segment numbers of its positions."""

    def position_of(index: int) -> Position:
        position: Position = page.position_of(index)
        return position._replace(segment=position.segment + offset)

    return replace(page, position_of=position_of)


class _PatientSearch:
    """A search for patients that agree with a search text."""

    def __init__(
        self, listing: PatientListing, list_shape: ListShape, query: ListQuery, terms: Sequence[SearchTerm]
    ) -> None:
        parsed: ParsedQuery = query.search
        restricted = listing.repository.restricted
        shape, parameters = bind_agreement(terms, parsed.titles, restricted=restricted)
        self.list_shape = list_shape
        self._listing = listing
        self._ordering = query.ordering
        self._terms = terms
        self._shape = shape
        self._parameters = {**parameters, **filter_parameters(query.filters)}
        self._set_aside = parsed.ignored + len(parsed.terms) - len(terms)
        """Number of terms that are not considered."""
        self._plans_once = self.has_one_plan
        """Whether the next statement is planned once for all values."""
        self._highest_score = 0
        """Score of a patient that would agree with all terms, in thousandths of a point. It is set by `best_others`."""

    @property
    def has_one_plan(self) -> bool:
        """Whether the statements that find patients need the same plan for all values.

        If all terms are names, and one of several is longer than two letters, they use the index of words.
        """
        return self._is_plain and self._ordering is None and self._shape.consists_of_names

    @property
    def _is_plain(self) -> bool:
        """Whether the list has no filters and the principal is unrestricted."""
        return self.list_shape == ListShape(self.list_shape.repository_class, restricted=False)

    @classmethod
    async def prepare(cls, listing: PatientListing, query: ListQuery) -> Self:
        """Return the search for a query, after reading what the vocabulary and the records know of its terms."""
        list_shape = await listing.build_shape(query)
        if not list_shape.restricted:  # the number of its hospitals or patients decides how a scope is read
            await listing.connection.execute_sql(PLAN_ONCE)
        parsed: ParsedQuery = query.search
        typed = [term.word for term in parsed.terms if term.word]
        hospitals = listing.repository.principal.hospitals
        expanded = await expand(listing.connection, typed, hospitals, parsed.short_forms) if typed else []
        by_word = dict(zip(typed, expanded, strict=True))
        searchable = [term for term in parsed.terms if not term.word or by_word[term.word]]
        probes = await probe(listing.run, list_shape, searchable, parsed.spans, hospitals)
        terms = [
            SearchTerm.from_parsed(term, by_word.get(term.word), of_term, has_words=any(expanded))
            for term, of_term in zip(searchable, probes, strict=True)
        ]
        search = cls(listing, list_shape, query, terms)
        if not (list_shape.restricted or search.has_one_plan):
            await listing.connection.execute_sql(PLAN_FOR_VALUES)
        return search

    async def page(self, after: Position | None, limit: int) -> Page:
        """Return up to `limit` patients that agree with all terms, starting after the position `after`.

        Their documents are read later, by a statement that is the same for all searches.
        """
        if not self._terms:
            return EMPTY_PAGE
        first_segment = after.segment if after else None
        if self._ordering is None:
            statement = _relevance_statement(self.list_shape, self._shape, first_segment)
            return await self._listing.fetch_page(statement, self._parameters, after, limit)
        position = self._listing.decode_position(self._ordering, after)
        statement = _ordered_statement(self.list_shape, self._shape, self._ordering, first_segment)
        return await self._listing.fetch_page(statement, self._parameters, position, limit)

    async def count(self) -> RecordCount:
        """Return the number of patients that agree with all terms."""
        if not self._terms:
            return RecordCount(0)
        statement = _sample_statement(self.list_shape, self._shape)
        return await self._listing.fetch_sampled_count(statement, self._parameters)

    async def best_others(self, shown: Sequence[str]) -> list[ScoredPatient]:
        """Return the patients with the highest scores, without those in `shown`."""
        if not self._terms:
            return []
        is_id_lookup, branches = self.list_shape.is_id_lookup, WordBranches(self._terms)
        parameters = {**self._parameters, **candidate_parameters(self._terms, branches, is_id_lookup=is_id_lookup)}
        parameters |= {"shown": list(shown), "kept": []}
        factors = [term.factor for term in self._terms]
        if not is_id_lookup:
            candidates = await self._find_candidates(branches, parameters)
            counts = {index: len(candidates.found.get(index, ())) for index in parameters["single_indexes"]}
            factors = factors_by_rarity(self._terms, counts)
            await self.plan_once()
            parameters |= score_parameters(self._terms, factors)
            parameters |= {"candidates": " ".join(candidates.ids), "kept": candidates.kept}
        self._highest_score = sum(
            10 * term.highest_weight * factor for term, factor in zip(self._terms, factors, strict=True)
        )
        rows = await self._listing.run(best_candidates_statement(self.list_shape), parameters)
        scored = [ScoredPatient(*row) for row in rows]
        return [patient for patient in scored if max(patient.points or (0,)) > 0]

    async def _find_candidates(self, branches: WordBranches, parameters: Mapping[str, Any]) -> Candidates:
        present = frozenset(name for term in self._terms for name in term.values)
        candidates = Candidates()
        for group in candidate_groups(present):
            if group == NAMES and self._is_plain and not parameters["alone"]:
                await self.plan_once()
            if group == PAIRS:
                parameters = {**parameters, **pair_parameters(branches, candidates.frequent)}
                if not parameters["pair_first"]:
                    continue
            candidates.add(await self._listing.run(candidates_statement(self.list_shape, group), parameters))
        if len(candidates.ids) > MAX_PROMISING_CANDIDATES:
            await self._find_in_misspelled_towns(parameters, candidates)
        return candidates

    async def _find_in_misspelled_towns(self, parameters: Mapping[str, Any], candidates: Candidates) -> None:
        """Add the patients whose name has a typed word and whose town is typed with one error.

        A restricted principal has fewer patients with a name, and must not find out from the time it takes which towns
        others live in.
        """
        spellings = [] if self._shape.restricted else spellings_of_towns(self._terms, candidates.frequent)
        if not spellings:
            return
        statement = towns_statement(self.list_shape._replace(filters=()))
        towns = [town for (town,) in await self._listing.run(statement, {"spellings": spellings})]
        if towns:
            in_towns = {**parameters, "all_places": towns}
            rows = await self._listing.run(candidates_statement(self.list_shape, PLACES), in_towns)
            candidates.add(rows, keep=MAX_PROMISING_CANDIDATES)

    async def plan_once(self) -> None:
        """Have the statements that follow planned once for all values."""
        if not self._plans_once:
            await self._listing.connection.execute_sql(PLAN_ONCE)
            self._plans_once = True

    @property
    def full_agreement(self) -> Agreement:
        """The agreement if patients agree with all terms that are considered."""
        return Agreement("full", self._set_aside)

    @property
    def no_agreement(self) -> Agreement:
        """The agreement if no patient is found."""
        return Agreement("none", self._set_aside + len(self._terms))

    def describe(self, best: ScoredPatient) -> Agreement:
        """Return how well the best patient agrees with the search text, if no patient agrees with all terms."""
        missed = len(self._terms) - sum(points > 0 for points in best.points)
        is_weak = sum(best.points) * 100 < self._highest_score * WEAK_AGREEMENT_PERCENT
        return Agreement("weak" if is_weak else "partial", self._set_aside + missed)


@compiled_by_shape
def _relevance_statement(list_shape: ListShape, shape: AgreementShape, first_segment: int | None) -> Select[Any]:
    segments = [
        segment._replace(conditions=list_shape.without_index_use(segment.conditions))
        for segment in agreement_segments(shape)
        if first_segment is None or segment.number >= first_segment
    ]
    resource = list_shape.repository_class
    rows = keyset_page(
        resource.table, add_conditions(segments, list_shape.conditions), is_continuation=first_segment is not None
    )
    return page_keys(rows)


def _agreement_conditions(list_shape: ListShape, shape: AgreementShape) -> list[ColumnElement[bool]]:
    return [*list_shape.conditions, *list_shape.without_index_use(agreement_conditions(shape, Reach.CLOSE))]


@compiled_by_shape
def _ordered_statement(
    list_shape: ListShape, shape: AgreementShape, ordering: str, first_segment: int | None
) -> Select[Any]:
    return ordered_keys(list_shape.repository_class, ordering, first_segment, _agreement_conditions(list_shape, shape))


@compiled_by_shape
def _sample_statement(list_shape: ListShape, shape: AgreementShape) -> Select[Any]:
    return sample_statement(list_shape.repository_class.table, _agreement_conditions(list_shape, shape))


@compiled_by_shape
def _others_statement(list_shape: ListShape, ordering: str | None) -> Select[Any]:
    """Return the statement that sorts the visible patients with the ids in the bind parameter `ids`."""
    resource = list_shape.repository_class
    ids = bindparam("ids", type_=ARRAY(ID_TEXT))
    conditions = [resource.table.c.unique_id == any_(ids), *list_shape.conditions]
    if ordering is not None:
        return ordered_keys(resource, ordering, None, conditions)
    rank = func.array_position(ids, resource.table.c.unique_id)
    return page_keys(keyset_page(resource.table, [Segment(0, conditions, rank)], is_continuation=False))
