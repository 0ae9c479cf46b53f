"""The routes of the audit, and of who has seen a patient."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.audit import accesses, repository
from app.audit.schemas import AccessEntry, AuditEntry, AuditParameters
from app.auth.principal import CurrentPrincipal
from app.auth.scopes import Scope, needs
from app.errors import FieldError, ForbiddenError, InvalidError, NotFoundError
from app.http.routing import make_router, problems
from app.journal.repository import JournalRepository
from app.resource.pages import Page, list_answer
from app.resource.repository import Record, Repository
from app.resource.routes import PathId, database, settings

MAX_NUMBER = 2**63 - 1

router = make_router("/audit", tag="audit", audited=True)


async def _show(_: list[Record]) -> None:
    """The request's own row says it all: there is no need to put on record which records of it were read."""


@router.get(
    "/",
    name="list_audit_entries",
    response_model=list[AuditEntry],
    openapi_extra=needs(Scope.AUDIT_READ),
    responses=problems(422),
)
async def list_audit_entries(
    request: Request, principal: CurrentPrincipal, wanted: Annotated[AuditParameters, Query()]
) -> Response:
    """List who has asked for which patients and profiles, newest first."""
    if principal.hospitals is not None:
        raise ForbiddenError(
            "The audit is of all hospitals, and you are limited to some. Of one patient, access/ tells who has seen it."
        )

    async def read(after: str, limit: int) -> list[Record]:
        if after and not (after.isdecimal() and int(after) <= MAX_NUMBER):
            raise InvalidError([FieldError(("query", "cursor"), "Must be a cursor of this list", "cursor")])
        async with database(request).read() as connection:
            return await repository.page(connection, wanted, int(after or MAX_NUMBER), limit)

    return await list_answer(request, read, _show, wanted, settings(request).list_cap)


def add_access_route(router: APIRouter, patients: type[Repository]) -> None:
    """Add to the `router` of patients who has seen or changed one."""

    @router.get(
        "/{unique_id}/access/",
        name="list_patient_access",
        response_model=list[AccessEntry],
        openapi_extra=needs(Scope.AUDIT_READ),
        responses=problems(404, 422),
    )
    async def list_access(request: Request, principal: CurrentPrincipal, unique_id: PathId, page: Page) -> Response:
        """List who has seen or changed a patient's record, newest first; that of a deleted one too."""

        async def read(after: str, limit: int) -> list[Record]:
            before = accesses.place(after)
            async with database(request).read() as connection:
                if await JournalRepository(patients(connection, principal)).newest_version(unique_id) is None:
                    raise NotFoundError(patients.name)
                rows = await repository.accesses(connection, unique_id, before, limit)
            return [Record(accesses.cursor(row.place), accesses.entry(row).model_dump_json()) for row in rows]

        return await list_answer(request, read, _show, page, settings(request).list_cap)
