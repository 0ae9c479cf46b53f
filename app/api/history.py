"""The routes that list the versions of a record, get one version and restore one, declared once for all resources."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, get_type_hints

from fastapi import APIRouter, Path, Request, Response

from app.api.crud import CREATE_PROBLEMS
from app.api.documentation import (
    IDEMPOTENCY_KEY,
    IF_MATCH,
    IF_NONE_MATCH,
    PAGE_ERRORS,
    header_references,
    not_modified_response,
    page_headers,
    problem_responses,
    request_parameters,
)
from app.api.list_response import list_response
from app.api.list_source import ListSource
from app.api.resource import ResourceApi, annotate
from app.api.responses import record_response
from app.api.routing import passthrough
from app.api.services import get_services
from app.api.writes import WriteRequest
from app.auth.principal import Principal
from app.auth.scopes import Scope, requires
from app.fields.history import MAX_VERSION, HistoryEntry, RestoreRequest, history_entry_schema
from app.fields.types import Identifier
from app.http.query_parameters import parse_query
from app.listing.page import ListItem, Page
from app.listing.pagination import PageParameters
from app.records.history import History
from app.records.repository import Repository
from app.statements.documents import ToOne
from app.statements.journal_entries import snapshot_columns

PathVersion = Annotated[
    int,
    Path(
        ge=1,
        lt=MAX_VERSION,
        description="The number of a version in the history.",
        json_schema_extra={"example": 1},
    ),
]

_VERSION_ERRORS = [{"loc": ["path", "version"], "msg": "Must be a whole number", "type": "int_parsing"}]
_RESTORE_ERRORS = [{"loc": ["body", "version"], "msg": "Must be a version of the history", "type": "unknown_version"}]


class RecordPastSource(ListSource):
    """A list about the past of one record, which may have been deleted. Subclasses say what it lists."""

    def __init__(self, request: Request, repository_class: type[Repository], unique_id: str, _: PageParameters) -> None:
        self._database = get_services(request).database
        self._principal = Principal.from_request(request)
        self._repository_class = repository_class
        self._unique_id = unique_id

    @asynccontextmanager
    async def _open_history(self) -> AsyncIterator[History]:
        async with self._database.search_snapshot(self._principal.name) as connection:
            yield History(self._repository_class(connection, self._principal))


class HistorySource(RecordPastSource):
    """The journal entries of one record, newest first.

    The position of an entry in this list is the version of the record that the entry describes.
    """

    async def page(self, after: str | None, limit: int) -> Page:
        """Return up to `limit` entries with versions below `after`.

        If `after` is None, start with the newest entry.

        Raises:
            NotFoundError: there never was a record with this id, or it is not visible to the principal.
        """
        async with self._open_history() as history:
            entries = await history.list_entries(self._unique_id, int(after or MAX_VERSION), limit)
            if not entries:
                await history.newest_version(self._unique_id)
        return Page.of_items([ListItem(entry.unique_id, entry.document, entry.unique_id) for entry in entries])


def _entry_schema(resource: ResourceApi[Any, Any]) -> type[HistoryEntry]:
    """Return the schema of the entries in the histories of a resource, with the fields of its snapshots."""
    repository, types = resource.repository_class, get_type_hints(resource.representation, include_extras=True)
    # a column that is not a field of responses refers to another record
    types |= resource.snapshot_types
    fields = {name: types.get(name, Identifier) for name in snapshot_columns(repository.table)}
    examples = {**(resource.representation.example or {}), **(resource.create_body.example or {})}
    for name, relation in repository.document.relations.items():
        if isinstance(relation, ToOne):
            examples[relation.foreign_key_name] = examples[name]["unique_id"]
    return history_entry_schema(resource.noun.capitalize(), fields, repository.link_relations, examples)


def add_history_routes(router: APIRouter, resource: ResourceApi[Any, Any]) -> None:
    """Add to a router the routes that list, get and restore versions of the records of `resource`."""
    noun, repository_class = resource.noun, resource.repository_class
    history_path = f"{router.prefix}/{{unique_id}}/history/"
    entry_schema: Any = _entry_schema(resource)

    async def list_history(request: Request, unique_id: str) -> Response:
        parameters = parse_query(request, PageParameters)
        return await list_response(request, parameters, partial(HistorySource, request, repository_class, unique_id))

    annotate(list_history, unique_id=resource.path_id)
    router.get(
        "/{unique_id}/history/",
        name=f"list_{noun}_history",
        summary=f"List the versions of a {noun}",
        description=f"List the changes of a {noun}, newest first: who changed which fields, and when. This also works "
        f"if the {noun} is deleted.",
        response_description="The versions, newest first.",
        response_model=list[entry_schema],
        openapi_extra=requires(Scope.HISTORY_READ) | request_parameters(query=PageParameters),
        responses=problem_responses(404, 422, noun=noun, errors=PAGE_ERRORS)
        | {200: {"headers": page_headers(history_path)}},
    )(passthrough(list_history))

    async def get_version(request: Request, unique_id: str, version: PathVersion) -> Response:
        async with get_services(request).database.read() as connection:
            history = History(repository_class(connection, Principal.from_request(request)))
            entry = await history.get(unique_id, version)
        return record_response(request, entry.document)

    annotate(get_version, unique_id=resource.path_id)
    router.get(
        "/{unique_id}/history/{version}/",
        name=f"get_{noun}_version",
        summary=f"Get one version of a {noun}",
        description=f"Get one change of a {noun}, and the {noun} as it was after this change.",
        response_description="The version.",
        response_model=entry_schema,
        openapi_extra=requires(Scope.HISTORY_READ) | request_parameters(headers=(IF_NONE_MATCH,)),
        responses=problem_responses(404, 422, noun=noun, errors=_VERSION_ERRORS)
        | {200: {"headers": header_references("ETag")}}
        | not_modified_response("version"),
    )(get_version)

    async def restore_version(request: Request, unique_id: str, body: RestoreRequest) -> Response:
        write = WriteRequest(request, resource.service_class, body=body, unique_id=unique_id, accepts_key=True)
        record = await write.run(lambda service, precondition: service.restore(unique_id, body, precondition))
        return write.response(record)

    annotate(restore_version, unique_id=resource.path_id)
    router.post(
        "/{unique_id}/restore/",
        name=f"restore_{noun}",
        summary=f"Restore a {noun}",
        description=f"Bring back a deleted {noun}, or an earlier state of an existing one, as a new version."
        + resource.write_scopes_sentence,
        response_description=f"The {noun} after the restoration.",
        response_model=resource.representation,
        openapi_extra=requires(resource.write_scope) | request_parameters(headers=(IF_MATCH, IDEMPOTENCY_KEY)),
        responses=problem_responses(*CREATE_PROBLEMS, 404, 428, noun=noun, errors=_RESTORE_ERRORS)
        | resource.gone_problem
        | {200: {"headers": header_references("ETag", "Idempotency-Replayed")}},
    )(restore_version)
