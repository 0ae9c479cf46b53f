"""The routes of the audit: its entries, and the report of who accessed or changed a patient's record."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.documentation import (
    PAGE_ERRORS,
    header_references,
    page_headers,
    problem_responses,
    request_parameters,
)
from app.api.history import RecordPastSource
from app.api.list_response import list_response
from app.api.list_source import ListSource
from app.api.resource import ResourceApi, annotate
from app.api.routing import make_router, passthrough
from app.api.services import get_services
from app.audit.disclosures import access_entry
from app.audit.repository import AuditPosition, list_access_events, list_entries
from app.audit.schemas import AccessEntry, AuditEntry, AuditParameters
from app.auth.principal import Principal
from app.auth.scopes import Scope, requires
from app.errors import ForbiddenError
from app.http.query_parameters import parse_query
from app.listing.page import ListItem, Page
from app.listing.pagination import PageParameters

router = make_router("/audit", tag="audit", audited=True)


class AuditEntrySource(ListSource):
    """The audit entries that match the query parameters of a request, newest first."""

    def __init__(self, request: Request, parameters: AuditParameters) -> None:
        self._database = get_services(request).database
        self._principal_name = Principal.from_request(request).name
        self._parameters = parameters

    async def page(self, after: str | None, limit: int) -> Page:
        """Return up to `limit` entries that are older than the position `after`.

        If `after` is None, start with the newest entry.
        """
        async with self._database.search_snapshot(self._principal_name) as connection:
            position = AuditPosition.from_text(after)
            return Page.of_items(await list_entries(connection, self._parameters, position, limit))


class AccessEventSource(RecordPastSource):
    """The events in which one patient or its profile was read or changed, newest first."""

    async def page(self, after: str | None, limit: int) -> Page:
        """Return up to `limit` events that are older than the position `after`.

        If `after` is None, start with the newest event.

        Raises:
            NotFoundError: no patient ever had the id in the request's path, or the patient is not visible.
        """
        async with self._open_history() as history:
            await history.newest_version(self._unique_id)
            position = AuditPosition.from_text(after)
            events = await list_access_events(history.connection, self._unique_id, position, limit)
        return Page.of_items(
            [ListItem(self._unique_id, access_entry(event).model_dump_json(), str(event.position)) for event in events]
        )


def _audit_reads_header(request: Request) -> dict[str, str]:
    """Return the header that says whether reads are audited: without reads, a list does not show why."""
    return {"Audit-Reads": "true" if get_services(request).settings.reads_audited else "false"}


@router.get(
    "/",
    name="list_audit_entries",
    summary="List the entries of the audit",
    description="List the requests that read or changed patients and profiles, newest first.",
    response_description="The entries, newest first.",
    response_model=list[AuditEntry],
    openapi_extra=requires(Scope.AUDIT_READ) | request_parameters(query=AuditParameters),
    responses=problem_responses(422, errors=PAGE_ERRORS)
    | {200: {"headers": page_headers("/audit/") | header_references("Audit-Reads")}},
)
@passthrough
async def list_audit_entries(request: Request) -> Response:
    """Return the audit entries that match the query parameters, as a page or as the whole list.

    Raises:
        ForbiddenError: the principal is restricted to some hospitals, and the audit covers all of them.
    """
    if Principal.from_request(request).hospitals is not None:
        raise ForbiddenError(
            "The audit covers all hospitals, and your credentials are restricted to some. "
            "GET a patient's access/ to see who has accessed that patient's record."
        )
    parameters = parse_query(request, AuditParameters)
    return await list_response(request, parameters, partial(AuditEntrySource, request), _audit_reads_header(request))


def add_access_route(router: APIRouter, resource: ResourceApi[Any, Any]) -> None:
    """Add to the patients' router the route that lists who accessed or changed a patient's record."""
    noun = resource.noun

    async def list_access(request: Request, unique_id: str) -> Response:
        parameters = parse_query(request, PageParameters)
        create_source = partial(AccessEventSource, request, resource.repository_class, unique_id)
        return await list_response(request, parameters, create_source, _audit_reads_header(request))

    annotate(list_access, unique_id=resource.path_id)
    router.get(
        "/{unique_id}/access/",
        name=f"list_{noun}_access",
        summary=f"List the accesses to a {noun}",
        description=f"List who has read or changed the record of a {noun}, newest first. This also works if the "
        f"{noun} is deleted.",
        response_description="Accesses and changes, newest first.",
        response_model=list[AccessEntry],
        openapi_extra=requires(Scope.AUDIT_READ) | request_parameters(query=PageParameters),
        responses=problem_responses(404, 422, noun=noun, errors=PAGE_ERRORS)
        | {200: {"headers": page_headers(f"{router.prefix}/{{unique_id}}/access/") | header_references("Audit-Reads")}},
    )(passthrough(list_access))
