"""The routes of history and undoing, the same for every resource."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from app.api.endpoints import (
    CREATE_PROBLEMS,
    PathId,
    get_database,
    get_precondition,
    get_settings,
    record_response,
    write_once,
)
from app.api.pages import ListSource, PageParameters, list_response
from app.api.query_parameters import openapi_query_parameters, parse_query
from app.api.routing import problem_responses
from app.auth.principal import Principal
from app.auth.scopes import Scope, requires
from app.fields.schemas import Representation
from app.listing.query import SimpleListItem
from app.records.history import History
from app.records.history_schemas import MAX_VERSION, Entry, Restore
from app.records.service import Service

PathVersion = Annotated[int, Path(ge=1, lt=MAX_VERSION)]
"""The number of a version in a path."""


def add_history_routes(
    router: APIRouter, service_class: type[Service[Any, Any]], representation: type[Representation], write_scope: Scope
) -> None:
    """Add to a resource's `router` the history of its records, and their restoring, which needs the scope `write`."""
    repository_class = service_class.repository_class
    resource_name = repository_class.name

    @router.get(
        "/{unique_id}/history/",
        name=f"list_{resource_name}_history",
        response_model=list[Entry],
        openapi_extra=requires(Scope.HISTORY_READ) | openapi_query_parameters(PageParameters),
        responses=problem_responses(404, 422),
    )
    async def list_history(request: Request, unique_id: PathId) -> Response:
        """List what was done to a record, newest first; that of a deleted one too."""

        async def read_page(_: PageParameters, after: str | None, limit: int) -> list[SimpleListItem]:
            principal = Principal.from_request(request)
            async with get_database(request).search_snapshot(principal.name) as connection:
                history = History(repository_class(connection, principal))
                entries = await history.list_entries(unique_id, int(after or MAX_VERSION), limit)
                if not entries:
                    await history.newest_version(unique_id)  # is there such a record at all?
            return [SimpleListItem(*entry, position=entry.unique_id) for entry in entries]

        return await list_response(
            request, ListSource(read_page), parse_query(request, PageParameters), get_settings(request).list_cap
        )

    @router.get(
        "/{unique_id}/history/{version}/",
        name=f"get_{resource_name}_version",
        response_model=Entry,
        openapi_extra=requires(Scope.HISTORY_READ),
        responses=problem_responses(404, 422),
    )
    async def get_version(request: Request, unique_id: PathId, version: PathVersion) -> Response:
        """Get one version of a record."""
        async with get_database(request).read() as connection:
            entry = await History(repository_class(connection, Principal.from_request(request))).get(unique_id, version)
        return record_response(request, entry.document)

    @router.post(
        "/{unique_id}/restore/",
        name=f"restore_{resource_name}",
        response_model=representation,
        openapi_extra=requires(write_scope),
        responses=problem_responses(*CREATE_PROBLEMS, 404, 428),
    )
    async def restore(request: Request, unique_id: PathId, body: Restore) -> Response:
        """Bring back a deleted record, or an earlier state of one that is there, as a new version."""
        precondition = get_precondition(request)
        transaction = get_database(request).transaction_for(Principal.from_request(request).name)
        record, headers = await write_once(
            request,
            transaction,
            service_class,
            body,
            lambda resource_service: resource_service.restore(unique_id, body, precondition),
        )
        return record_response(request, record.document, headers=headers)
