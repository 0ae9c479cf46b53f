"""The routes of the queue of possible duplicates: its list, and the decision that a pair is two persons."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import Path, Request, Response

from app.api.documentation import (
    PAGE_ERRORS,
    TOTAL_COUNT_HEADER,
    page_headers,
    problem_responses,
    request_parameters,
)
from app.api.list_response import list_response
from app.api.list_source import ListSource
from app.api.routing import make_router, passthrough
from app.api.services import get_services
from app.audit.recorder import RequestAudit
from app.auth.principal import Principal
from app.auth.scopes import Scope, requires
from app.db.connection import Connection
from app.duplicates.queue import count_pairs, dismiss, list_pairs
from app.duplicates.schemas import Dismissal, Duplicate, DuplicateParameters
from app.http.query_parameters import parse_query
from app.identifiers import IDENTIFIER_PATTERN
from app.listing.page import ListItem, Page
from app.paths import DUPLICATES_PREFIX

router = make_router(DUPLICATES_PREFIX, tag="patients", audited=True)

PairId = Annotated[
    str,
    Path(
        description="The `unique_id` of the pair.",
        json_schema_extra={"maxLength": 64, "pattern": IDENTIFIER_PATTERN, "example": Duplicate.example["unique_id"]},
    ),
]


def _entry(pair: Mapping[str, Any]) -> Duplicate:
    shared = {name: pair[name] for name in Duplicate.model_fields if name != "patients"}
    return Duplicate(patients=[pair["one_id"], pair["other_id"]], **shared)


class DuplicateSource(ListSource):
    """The pairs of the queue that match the query parameters of a request, those with the highest scores first."""

    def __init__(self, request: Request, parameters: DuplicateParameters) -> None:
        self._database = get_services(request).database
        self._audit = RequestAudit.from_request(request)
        self._principal = Principal.from_request(request)
        self._query = parameters.to_query()
        self._is_count_requested = parameters.count is not None

    async def page(self, after: list[Any] | None, limit: int) -> Page:
        """Return up to `limit` pairs after the position `after`, which consists of a score and the id of a pair."""
        position = None if after is None else (after[0], after[1])
        async with self._database.search_snapshot(self._principal.name) as connection:
            pairs = await list_pairs(connection, self._principal, self._query, position, limit)
        return Page.of_items(
            [
                ListItem(pair["unique_id"], _entry(pair).model_dump_json(), [pair["score"], pair["unique_id"]])
                for pair in pairs
            ]
        )

    async def before_send(self, page: Page) -> None:
        """Record that the response shows the patients of these pairs."""
        entries = [Duplicate.model_validate_json(document) for document in page.documents()]
        await self._audit.record_page(sorted({unique_id for entry in entries for unique_id in entry.patients}))

    async def count(self) -> int | None:
        """Return the number of pairs if the request asks for it."""
        if not self._is_count_requested:
            return None
        async with self._database.search_snapshot(self._principal.name) as connection:
            return await count_pairs(connection, self._principal, self._query)


@router.get(
    "/",
    name="list_duplicates",
    summary="List patients that may be registered twice",
    description="List the pairs of patients that may be one person, those with the highest scores first. A pair is "
    "listed if both patients are visible to you.",
    response_description="The pairs.",
    response_model=list[Duplicate],
    openapi_extra=requires(Scope.DUPLICATES_READ) | request_parameters(query=DuplicateParameters),
    responses=problem_responses(422, errors=PAGE_ERRORS)
    | {200: {"headers": page_headers(f"{DUPLICATES_PREFIX}/") | TOTAL_COUNT_HEADER}},
)
@passthrough
async def list_duplicates(request: Request) -> Response:
    """Return the pairs that match the query parameters, as a page or as the whole list.

    Patients that were written just before are compared first, so that the list has their pairs.
    """
    parameters = parse_query(request, DuplicateParameters)
    await get_services(request).comparison.run(waits=True)
    return await list_response(request, parameters, partial(DuplicateSource, request))


@router.post(
    "/{unique_id}/dismiss/",
    name="dismiss_duplicate",
    summary="Decide that two patients are two persons",
    description="Decide that the patients of a pair are two persons. The pair returns to the list only if a compared "
    "field of one of them changes.",
    response_description="The dismissed pair.",
    response_model=Duplicate,
    openapi_extra=requires(Scope.DUPLICATES_WRITE),
    responses=problem_responses(
        400,
        404,
        413,
        415,
        422,
        noun="pair",
        errors=[{"loc": ["body", "reason"], "msg": "Is required", "type": "missing"}],
    ),
)
async def dismiss_duplicate(request: Request, unique_id: PairId, body: Dismissal) -> Response:
    """Store the decision together with its audit row, and return the pair."""
    services, principal = get_services(request), Principal.from_request(request)
    audit = RequestAudit.from_request(request)

    async def work(connection: Connection) -> Duplicate:
        entry = _entry(await dismiss(connection, principal, unique_id, body.reason))
        audit.ids = entry.patients
        await audit.insert(connection, None)
        return entry

    entry = await services.database.transaction_for(principal.name, work)
    audit.recorded = True
    return Response(entry.model_dump_json(), media_type="application/json")
