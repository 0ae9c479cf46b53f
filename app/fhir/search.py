"""Searches: their parameters, pages as Bundles, and the cursors that continue them."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from app.api.list_source import MAX_HOSPITALS_FOR_CHEAP_PAGES
from app.api.services import get_services
from app.audit.recorder import MAX_IDS_PER_STATEMENT, RequestAudit
from app.auth.principal import Principal
from app.errors import FieldError, InvalidSearchError, ValidationFailedError
from app.fhir.resources import ResourceType
from app.fhir.responses import bundle, fhir_response, link_member, match_entries
from app.fhir.routing import base_url, check_format, query_pairs, read_form, refuse_unknown, safe_name
from app.fhir_resources.elements import NAME_PATTERN
from app.fhir_search.criteria import Criterion
from app.fhir_search.listing import CriteriaListing
from app.fhir_search.parameters import ELEMENTS, RESULT_PARAMETERS, parse_criteria
from app.fhir_search.parsers import SearchContext
from app.listing.counting import MAX_EXACT_COUNT
from app.listing.page import EMPTY_PAGE, Page
from app.listing.query import ListQuery, Position

DEFAULT_COUNT = 50
MAX_COUNT = 1000
MAX_ACCURATE_TOTAL = MAX_IDS_PER_STATEMENT
"""Maximum number of matches that are counted exactly, because the audit records each of them (decision 27)."""
MAX_CRITERIA = 20
"""Maximum number of parameters that select resources."""
CURSOR_PARAMETER = "_cursor"
"""Name of the parameter in links that continues a search. It holds the other parameters, which links never show."""


class Search(BaseModel):
    """The parameters of a search. Cursors contain all of them except `limit`, `cursor` and `count`."""

    criteria: list[tuple[str, str]] | None = None
    """The names, with their modifiers, and the values of the parameters that select resources."""
    sort: str | None = None
    elements: list[str] | None = None
    limit: int = DEFAULT_COUNT
    cursor: str | None = None
    count: str | None = None
    """`accurate` or `estimate` if the total is requested."""
    only_count: bool = False


def _error(name: str, message: str) -> FieldError:
    return FieldError(("query", safe_name(name)), message, "parameter_value")


def parse_search(resource_type: ResourceType, sent: Sequence[tuple[str, str]]) -> Search:
    """Return the search that these parameters describe.

    Raises:
        InvalidSearchError: a parameter is unknown, repeated although it controls the result, or has a wrong value.
    """
    results = {name: value for name, value in sent if name in _RESULT_NAMES}
    refuse_unknown([_SYNONYMS.get(name, name) for name, _ in sent if name in _RESULT_NAMES], _RESULT_NAMES)
    criteria = [(name, value) for name, value in sent if name not in _RESULT_NAMES]
    known = resource_type.search_parameters
    unknown = [name for name, _ in criteria if name.partition(":")[0] not in known]
    refuse_unknown(unknown, known)
    errors: list[FieldError] = []
    if len(criteria) > MAX_CRITERIA:
        errors.append(_error(criteria[MAX_CRITERIA][0], f"Send at most {MAX_CRITERIA} parameters"))
    patterns = {**_RESULT_PATTERNS, "_sort": rf"-?({'|'.join(resource_type.sort_columns)})"}
    errors += [
        _error(name, f"Must be {_RESULT_FORMS.get(name) or _sort_form(resource_type)}")
        for name, value in results.items()
        if name in patterns and re.fullmatch(patterns[name], value) is None
    ]
    elements = results["_elements"].split(",") if "_elements" in results else None
    unknown = [name for name in elements or () if name not in ELEMENTS[resource_type.name]]
    if unknown and not errors:
        errors.append(_error("_elements", f"A {resource_type.name} has no element {safe_name(unknown[0])}"))
    if errors:
        raise InvalidSearchError(errors)
    total = results.get("_total", results.get("_totalMethod", "none"))
    limit = min(int(results.get("_count", DEFAULT_COUNT)), MAX_COUNT)
    found: dict[str, Any] = {
        "criteria": criteria or None,
        "sort": results.get("_sort"),
        "elements": elements,
        "limit": limit,
        "cursor": results.get(CURSOR_PARAMETER),
        "count": {"none": None, "count": "accurate"}.get(total, total),
        "only_count": results.get("_summary") == "count" or limit == 0 or None,
    }
    # what is not sent stays unset, so that cursors need not contain it
    return Search(**{name: value for name, value in found.items() if value is not None})


def _sort_form(resource_type: ResourceType) -> str:
    return f"one of {', '.join(resource_type.sort_columns)}, with - before it for descending order"


_RESULT_PATTERNS = {
    "_count": "[0-9]{1,9}",
    "_total": "none|accurate|estimate",
    "_totalMethod": "none|count|estimate",
    "_summary": "count|false",
    "_elements": f"{NAME_PATTERN.pattern}(,{NAME_PATTERN.pattern})*",
}
_RESULT_FORMS = {
    "_count": "a number",
    "_total": "none, accurate or estimate",
    "_totalMethod": "none, count or estimate",
    "_summary": "count or false",
    "_elements": "names of elements, separated by commas",
}
"""The forms of the parameters in words. That of `_sort` depends on the resource type."""


_RESULT_NAMES = RESULT_PARAMETERS.keys() | {CURSOR_PARAMETER}
_SYNONYMS = {"_totalMethod": "_total"}
"""Other names of result parameters. A request may use only one of the two names."""


def search_context(request: Request) -> SearchContext:
    """Return the context of a request's search parameters: the interface's address and the region of phone numbers."""
    return SearchContext(base_url(request), get_services(request).settings.phone_region)


def _parse_criteria(request: Request, resource_type: ResourceType, search: Search) -> list[Criterion]:
    if not search.criteria:
        return []
    criteria, errors = parse_criteria(resource_type.name, search.criteria, search_context(request))
    if errors:
        raise InvalidSearchError([_error(name, message) for name, message in errors])
    return criteria


async def sent_parameters(request: Request) -> list[tuple[str, str]]:
    """Return the parameters of a search: those of the query or, for POST, those of the body.

    Raises:
        InvalidSearchError: a POST request has parameters in its URL, which logs and proxies may keep.
        NotAcceptableError: the body requests another format.
    """
    in_query = query_pairs(request)
    if request.method != "POST":  # the route has checked `_format`
        return in_query
    others = [name for name, _ in in_query if name != "_format"]
    if others:
        raise InvalidSearchError(
            [FieldError(("query", safe_name(name)), "Must be in the body", "parameter") for name in others]
        )
    sent = await read_form(request)
    check_format(request, dict(in_query + sent).get("_format"))
    return sent


async def search_response(request: Request, resource_type: ResourceType) -> Response:
    """Return the Bundle with a page of the resources that a search finds.

    Raises:
        InvalidSearchError: a parameter or the cursor is not valid, or the total is requested of too many.
    """
    services, principal = get_services(request), Principal.from_request(request)
    search = parse_search(resource_type, await sent_parameters(request))
    try:
        after, search = await services.cursors.open(resource_type.path, principal, search.cursor, search)
    except ValidationFailedError:
        message = "Must be a cursor from a link in an earlier Bundle, which has no other parameters but _count"
        raise InvalidSearchError([_error(CURSOR_PARAMETER, message)]) from None
    criteria = _parse_criteria(request, resource_type, search)
    sort = search.sort or "_id"
    ordering = sort.replace(sort.removeprefix("-"), resource_type.sort_columns[sort.removeprefix("-")])
    query = ListQuery(ordering=ordering, search=criteria or None)
    reader = _Reader(request, resource_type, query)
    members = []
    if search.count or search.only_count:
        members.append(f'"total":{await reader.total(is_exact=search.count != "estimate")}')
    page, next_position = EMPTY_PAGE, None
    if not search.only_count:
        found = await reader.page(after and Position._make(after), search.limit + 1)
        page = found.without_last() if len(found) > search.limit else found
        next_position = page.last_position if page is not found else None
        # the link to the next page tells that its first resource matches, so that one is recorded, too
        await RequestAudit.from_request(request).record_page(page.ids if query.is_unfiltered else found.ids)
    if links := await _links(request, resource_type, search, next_position):
        members.append(link_member(links))
    if search.elements is not None:
        page = page.convert(_Subset(search.elements).apply)
    entries = match_entries(base_url(request), resource_type.name, page)
    return fhir_response(bundle("searchset", members, [entries]))


async def _links(request: Request, resource_type: ResourceType, search: Search, after: Any) -> dict[str, str]:
    """Return the addresses of this page and of the next one, which contain no parameters in the clear.

    Raises:
        InvalidSearchError: the parameters are too long for the address of the next page.
    """
    seal = partial(get_services(request).cursors.seal, resource_type.path, Principal.from_request(request))
    address = f"{base_url(request)}/{resource_type.name}?_count={search.limit}"
    own = search.cursor
    links = {} if own is None else {"self": f"{address}&{CURSOR_PARAMETER}={own}"}
    if own is None and (search.criteria or search.sort or search.elements):
        with suppress(ValidationFailedError):  # too long for an address
            links["self"] = f"{address}&{CURSOR_PARAMETER}={await seal(None, search)}"
    elif own is None:
        links["self"] = address
    if after is not None:
        try:
            links["next"] = f"{address}&{CURSOR_PARAMETER}={await seal(after, search)}"
        except ValidationFailedError:
            name, _ = max(search.criteria or [("_elements", "")], key=lambda one: len(one[1]))
            message = "Send less at once, or a larger _count: so many values are too long for the next page"
            raise InvalidSearchError([_error(name, message)]) from None
    return links


class _Reader:
    """Reads pages and totals of the resources that match a query, on behalf of a request's principal."""

    def __init__(self, request: Request, resource_type: ResourceType, query: ListQuery) -> None:
        self._services = get_services(request)
        self._audit = RequestAudit.from_request(request)
        self._principal = Principal.from_request(request)
        self._repository_class = resource_type.repository_class
        self._query = query

    async def page(self, after: Position | None, limit: int) -> Page:
        """Return up to `limit` resources after a position."""
        hospitals = self._principal.hospitals
        if self._query.is_unfiltered and len(hospitals or ()) <= MAX_HOSPITALS_FOR_CHEAP_PAGES:
            return await self._services.batched_reads.page(self._repository_class, hospitals, after, limit)
        async with self._services.database.search_snapshot(self._principal.name) as connection:
            listing = CriteriaListing(self._repository_class(connection, self._principal))
            return await listing.page(self._query, after, limit)

    async def total(self, *, is_exact: bool) -> int:
        """Return the number of matches. The audit notes the ids on which it depends.

        If it need not be exact, it is estimated like that of the contract's lists.

        Raises:
            InvalidSearchError: an exact number is requested, but the audit of so many ids would take too long.
        """
        max_exact = MAX_ACCURATE_TOTAL if is_exact else MAX_EXACT_COUNT
        async with self._services.database.search_snapshot(self._principal.name) as connection:
            listing = CriteriaListing(self._repository_class(connection, self._principal))
            number, ids = await listing.count(self._query, max_exact)
        self._audit.note_counted_ids(ids)
        if is_exact and len(ids) > max_exact:
            message = f"More than {max_exact:,} match: send _total=estimate, or more parameters"
            raise InvalidSearchError([FieldError(("query", "_total"), message, "too_costly")])
        return number


class _Subset:
    """Reduces resources to some of their elements."""

    ALWAYS = frozenset({"resourceType", "id", "meta"})

    def __init__(self, elements: Sequence[str]) -> None:
        self._names = frozenset(elements) | self.ALWAYS

    def apply(self, document: bytes) -> bytes:
        """Return the JSON text of a resource with the chosen elements, marked as incomplete."""
        resource = {name: value for name, value in json.loads(document).items() if name.lstrip("_") in self._names}
        system = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue"
        resource["meta"]["tag"] = [{"system": system, "code": "SUBSETTED"}]
        return to_json(resource)
