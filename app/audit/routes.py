"""The routes of the audit, and of who has seen a patient."""

from fastapi import APIRouter, Request, Response

from app.audit.accesses import entry
from app.audit.repository import Place, accesses, page
from app.audit.schemas import AccessEntry, AuditEntry, AuditParameters
from app.auth.principal import Principal
from app.auth.scopes import Scope, needs
from app.errors import ForbiddenError
from app.http.query import read_query, takes
from app.http.routing import make_router, problems
from app.journal.repository import JournalRepository
from app.resource.pages import PageParameters, Source, list_answer
from app.resource.repository import Repository
from app.resource.routes import PathId, database, settings
from app.resource.wanted import Item

router = make_router("/audit", tag="audit", audited=True)


@router.get(
    "/",
    name="list_audit_entries",
    response_model=list[AuditEntry],
    openapi_extra=needs(Scope.AUDIT_READ) | takes(AuditParameters),
    responses=problems(422),
)
async def list_audit_entries(request: Request) -> Response:
    """List who has asked for which patients and profiles, newest first."""
    if Principal.of(request).hospitals is not None:
        raise ForbiddenError(
            "The audit is of all hospitals, and you are limited to some. Of one patient, access/ tells who has seen it."
        )

    async def read(wanted: AuditParameters, after: str | None, limit: int) -> list[Item]:
        async with database(request).find(Principal.of(request).name) as connection:
            return await page(connection, wanted, Place.of(after), limit)

    return await list_answer(request, Source(read), read_query(request, AuditParameters), settings(request).list_cap)


def add_access_route(router: APIRouter, patients: type[Repository]) -> None:
    """Add to the `router` of patients who has seen or changed one."""

    @router.get(
        "/{unique_id}/access/",
        name="list_patient_access",
        response_model=list[AccessEntry],
        openapi_extra=needs(Scope.AUDIT_READ) | takes(PageParameters),
        responses=problems(404, 422),
    )
    async def list_access(request: Request, unique_id: PathId) -> Response:
        """List who has seen or changed a patient's record, newest first; that of a deleted one too."""

        async def read(_: PageParameters, after: str | None, limit: int) -> list[Item]:
            principal = Principal.of(request)
            async with database(request).find(principal.name) as connection:
                history = JournalRepository(patients(connection, principal))
                await history.newest_version(unique_id)  # is there one?
                found = await accesses(connection, unique_id, Place.of(after), limit)
            return [Item(unique_id, entry(access).model_dump_json(), str(access.place)) for access in found]

        return await list_answer(request, Source(read), read_query(request, PageParameters), settings(request).list_cap)
