"""The routes of history and undoing, the same for every resource."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from app.auth.principal import Principal
from app.auth.scopes import Scope, needs
from app.http.query import read_query, takes
from app.http.routing import problems
from app.journal.repository import JournalRepository
from app.journal.schemas import MAX_VERSION, Entry, Restore
from app.resource.pages import PageParameters, Source, list_answer
from app.resource.routes import CREATE_PROBLEMS, PathId, answer, database, post, precondition_of, settings
from app.resource.schemas import Representation
from app.resource.service import Service
from app.resource.wanted import Item

Version = Annotated[int, Path(ge=1, lt=MAX_VERSION)]
"""The number of a version in a path."""


def add_history_routes(
    router: APIRouter, service: type[Service[Any, Any]], representation: type[Representation], write: Scope
) -> None:
    """Add to a resource's `router` the history of its records, and their restoring, which needs the scope `write`."""
    repository = service.repository_class
    name = repository.name

    @router.get(
        "/{unique_id}/history/",
        name=f"list_{name}_history",
        response_model=list[Entry],
        openapi_extra=needs(Scope.HISTORY_READ) | takes(PageParameters),
        responses=problems(404, 422),
    )
    async def list_history(request: Request, unique_id: PathId) -> Response:
        """List what was done to a record, newest first; that of a deleted one too."""

        async def read(_: PageParameters, after: str | None, limit: int) -> list[Item]:
            principal = Principal.of(request)
            async with database(request).find(principal.name) as connection:
                history = JournalRepository(repository(connection, principal))
                entries = await history.page(unique_id, int(after or MAX_VERSION), limit)
                if not entries:
                    await history.newest_version(unique_id)  # is there such a record at all?
            return [Item(*entry, place=entry.unique_id) for entry in entries]

        return await list_answer(request, Source(read), read_query(request, PageParameters), settings(request).list_cap)

    @router.get(
        "/{unique_id}/history/{version}/",
        name=f"get_{name}_version",
        response_model=Entry,
        openapi_extra=needs(Scope.HISTORY_READ),
        responses=problems(404, 422),
    )
    async def get_version(request: Request, unique_id: PathId, version: Version) -> Response:
        """Get one version of a record."""
        async with database(request).read() as connection:
            entry = await JournalRepository(repository(connection, Principal.of(request))).get(unique_id, version)
        return answer(request, entry.document)

    @router.post(
        "/{unique_id}/restore/",
        name=f"restore_{name}",
        response_model=representation,
        openapi_extra=needs(write),
        responses=problems(*CREATE_PROBLEMS, 404, 428),
    )
    async def restore(request: Request, unique_id: PathId, body: Restore) -> Response:
        """Bring back a deleted record, or an earlier state of one that is there, as a new version."""
        precondition = precondition_of(request)
        transaction = database(request).transaction_of(Principal.of(request).name)
        record, headers = await post(
            request, transaction, service, body, lambda own: own.restore(unique_id, body, precondition)
        )
        return answer(request, record.document, headers=headers)
