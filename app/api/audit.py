"""The routes of the audit, and of who has seen a patient."""

from fastapi import APIRouter, Request, Response

from app.api.endpoints import PathId, get_database, get_settings
from app.api.pages import ListSource, PageParameters, list_response
from app.api.query_parameters import openapi_query_parameters, parse_query
from app.api.routing import make_router, problem_responses
from app.audit.disclosures import access_entry
from app.audit.repository import AuditPosition, list_access_events, list_entries
from app.audit.schemas import AccessEntry, AuditEntry, AuditParameters
from app.auth.principal import Principal
from app.auth.scopes import Scope, requires
from app.errors import ForbiddenError
from app.listing.query import SimpleListItem
from app.records.history import History
from app.records.repository import Repository

router = make_router("/audit", tag="audit", audited=True)


@router.get(
    "/",
    name="list_audit_entries",
    response_model=list[AuditEntry],
    openapi_extra=requires(Scope.AUDIT_READ) | openapi_query_parameters(AuditParameters),
    responses=problem_responses(422),
)
async def list_audit_entries(request: Request) -> Response:
    """List who has asked for which patients and profiles, newest first."""
    if Principal.from_request(request).hospitals is not None:
        raise ForbiddenError(
            "The audit is of all hospitals, and you are limited to some. Of one patient, access/ tells who has seen it."
        )

    async def read_page(query: AuditParameters, after: str | None, limit: int) -> list[SimpleListItem]:
        async with get_database(request).search_snapshot(Principal.from_request(request).name) as connection:
            return await list_entries(connection, query, AuditPosition.from_text(after), limit)

    return await list_response(
        request, ListSource(read_page), parse_query(request, AuditParameters), get_settings(request).list_cap
    )


def add_access_route(router: APIRouter, repository_class: type[Repository]) -> None:
    """Add to the `router` of patients who has seen or changed one."""

    @router.get(
        "/{unique_id}/access/",
        name="list_patient_access",
        response_model=list[AccessEntry],
        openapi_extra=requires(Scope.AUDIT_READ) | openapi_query_parameters(PageParameters),
        responses=problem_responses(404, 422),
    )
    async def list_access(request: Request, unique_id: PathId) -> Response:
        """List who has seen or changed a patient's record, newest first; that of a deleted one too."""

        async def read_page(_: PageParameters, after: str | None, limit: int) -> list[SimpleListItem]:
            principal = Principal.from_request(request)
            async with get_database(request).search_snapshot(principal.name) as connection:
                history = History(repository_class(connection, principal))
                await history.newest_version(unique_id)  # is there one?
                events = await list_access_events(connection, unique_id, AuditPosition.from_text(after), limit)
            return [
                SimpleListItem(unique_id, access_entry(event).model_dump_json(), str(event.position))
                for event in events
            ]

        return await list_response(
            request, ListSource(read_page), parse_query(request, PageParameters), get_settings(request).list_cap
        )
