"""The routes that list, create, get, update and delete records, declared once for all resources."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from app.api.documentation import (
    CHANGES_CURSOR_HEADER,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_NONE_MATCH_ANY,
    NEXT_CURSOR_HEADER,
    PAGE_ERRORS,
    TOTAL_COUNT_HEADER,
    header_references,
    location_header,
    not_modified_response,
    page_headers,
    problem_responses,
    request_parameters,
)
from app.api.list_response import list_response
from app.api.list_source import RecordListSource
from app.api.resource import ResourceApi, annotate
from app.api.responses import record_response
from app.api.routing import passthrough
from app.api.services import get_services
from app.api.writes import WriteRequest
from app.auth.principal import Principal
from app.auth.scopes import requires
from app.errors import IdentifierRetiredError, InUseError
from app.fields.schemas import CreateBody, UpdateBody
from app.http.query_parameters import parse_query
from app.listing.namesakes import find_namesakes, name_warning
from app.listing.pagination import ListParameters, RecordParameters
from app.paths import SEARCH_SUFFIX
from app.records.service import Service

CREATE_PROBLEMS = (400, 409, 412, 413, 415, 422)
"""Error statuses of requests that create a record of any resource, besides those that every operation can return."""
UPDATE_PROBLEMS = (400, 404, 412, 413, 415, 422, 428)
"""Error statuses of requests that update a record of any resource, besides those that every operation can return."""
DELETE_PROBLEMS = (404, 412, 428)
"""Error statuses of requests that delete a record of any resource, besides those that every operation can return."""


_NO_PARAMETERS = RecordParameters()


async def list_resource(request: Request, resource: ResourceApi[Any, Any], parameters: ListParameters) -> Response:
    """Return the records of a resource that match `parameters`, as a page or as the whole list."""
    return await list_response(request, parameters, partial(RecordListSource, request, resource))


_FIELDS_ERROR = {
    "loc": ["query", "fields", 0],
    "msg": "Must be a field of the record; did you mean unique_id?",
    "type": "unknown_field",
}


async def _find_namesakes(
    request: Request, resource: ResourceApi[Any, Any], body: CreateBody | UpdateBody
) -> Sequence[str]:
    database, principal = get_services(request).database, Principal.from_request(request)
    return await find_namesakes(database, principal, resource.repository_class, resource.name_field, body)


def _body_parameters(request: Request, resource: ResourceApi[Any, Any]) -> BaseModel:
    """Return the query parameters of a request with a body. Without `include`, other parameters are ignored."""
    if b"include" not in request.scope["query_string"] or (model := resource.write_parameters) is None:
        return _NO_PARAMETERS
    return parse_query(request, model)


def written_service(request: Request, resource: ResourceApi[Any, Any]) -> type[Service[Any, Any]]:
    """Return the service with the documents that the query of a request with a body asks for."""
    return resource.including(_body_parameters(request, resource)).service_class


def _add_search_route(router: APIRouter, resource: ResourceApi[Any, Any]) -> None:
    """Add the route that lists the records that match the parameters in a body."""
    noun = resource.noun

    async def search_records(request: Request, body: Any) -> Response:
        included = _body_parameters(request, resource).model_dump(exclude_unset=True)
        return await list_resource(request, resource, body.model_copy(update=included) if included else body)

    annotate(search_records, body=resource.search_body)
    # before the routes of records: its path is also that of a record with the id `search`
    router.post(
        f"/{SEARCH_SUFFIX}",
        name=f"search_{noun}s",
        summary=f"Search for {noun}s",
        description=resource.description(
            "search",
            f"Find {noun}s by the filters of `GET {router.prefix}/`. The parameters are in the body, so that URLs and "
            "the logs of proxies do not contain them.",
        ),
        response_description=f"The matching {noun}s, or a page of them.",
        response_model=resource.list_model,
        openapi_extra=requires(resource.read_scope) | request_parameters(query=resource.write_parameters),
        responses=problem_responses(400, 413, 415, 422, errors=resource.search_errors)
        | {200: {"headers": {**NEXT_CURSOR_HEADER, **TOTAL_COUNT_HEADER, **resource.list_headers}}},
    )(passthrough(search_records))


def add_crud_routes(router: APIRouter, resource: ResourceApi[Any, Any]) -> None:
    """Add to a router the routes that list, create, get, update and delete the records of `resource`."""
    noun, path = resource.noun, f"{router.prefix}/"
    service_class, representation = resource.service_class, resource.record_model
    parameters, included = resource.record_parameters, resource.write_parameters
    warnings = resource.warning_headers

    @router.get(
        "/",
        name=f"list_{noun}s",
        summary=f"List {noun}s",
        description=resource.description(
            "list",
            f"List all {noun}s in the order of their `unique_id`, or the {noun}s that match the parameters. With "
            "`limit`, the response is one page of the list.",
        ),
        response_description=f"All {noun}s, or a page of them.",
        response_model=resource.list_model,
        openapi_extra=requires(resource.read_scope) | request_parameters(query=resource.list_parameters),
        responses=problem_responses(422, errors=PAGE_ERRORS)
        | {
            200: {
                "headers": {
                    **page_headers(path),
                    **TOTAL_COUNT_HEADER,
                    **CHANGES_CURSOR_HEADER,
                    **resource.list_headers,
                }
            }
        },
    )
    @passthrough
    async def list_records(request: Request) -> Response:
        return await list_resource(request, resource, parse_query(request, resource.list_parameters))

    if resource.search_body is not None:
        _add_search_route(router, resource)

    async def create_record(request: Request, body: Any) -> Response:
        write = WriteRequest(request, written_service(request, resource), body=body, accepts_key=True)
        namesakes = await _find_namesakes(request, resource, body)
        check = None if resource.creation_check is None else resource.creation_check(request, body)
        record = await write.run(
            lambda service, precondition: service.create(body, precondition), batched=True, check=check
        )
        location = {"Location": f"{request.scope['path']}{record.unique_id}/"}
        return write.response(record, 201, {**location, **name_warning(namesakes, record.unique_id)})

    annotate(create_record, body=resource.create_body)
    router.post(
        "/",
        name=f"create_{noun}",
        summary=f"Create a {noun}",
        description=resource.description("create", f"Create a {noun}.") + resource.write_scopes_sentence,
        response_description=f"The new {noun}.",
        status_code=201,
        response_model=representation,
        openapi_extra=requires(resource.write_scope)
        | request_parameters(query=included, headers=(IF_NONE_MATCH_ANY, IDEMPOTENCY_KEY, *resource.creation_headers)),
        responses=problem_responses(*CREATE_PROBLEMS, noun=noun, errors=resource.body_errors)
        | {
            201: {
                "headers": {
                    **header_references("ETag", "Idempotency-Replayed", *warnings),
                    **location_header(path),
                }
            }
        },
    )(passthrough(create_record))

    async def get_record(request: Request, unique_id: str) -> Response:
        requested = parse_query(request, parameters) if request.scope["query_string"] else _NO_PARAMETERS
        repository_class, selection = resource.including(requested).repository_class, resource.selection(requested)
        hospitals = resource.reading_principal(request).hospitals
        reads = get_services(request).batched_reads
        record = await reads.get(repository_class, hospitals, unique_id)
        return record_response(request, record.document, selection=selection)

    annotate(get_record, unique_id=resource.path_id)
    router.get(
        "/{unique_id}/",
        name=f"get_{noun}",
        summary=f"Get a {noun}",
        description=resource.description("get", f"Get one {noun}."),
        response_description=f"The {noun}.",
        response_model=representation,
        openapi_extra=requires(resource.read_scope)
        | request_parameters(query=parameters, headers=(IF_NONE_MATCH, *resource.get_headers)),
        responses=problem_responses(404, 422, noun=noun, errors=[_FIELDS_ERROR, *resource.get_errors])
        | resource.gone_problem
        | {200: {"headers": header_references("ETag")}}
        | not_modified_response("record"),
    )(passthrough(get_record))

    async def update_record(request: Request, unique_id: str, body: Any) -> Response:
        write = WriteRequest(request, written_service(request, resource), body=body, unique_id=unique_id)
        namesakes = await _find_namesakes(request, resource, body)
        record = await write.run(
            lambda service, precondition: service.update(unique_id, body, precondition), batched=True
        )
        return write.response(record, headers=name_warning(namesakes, unique_id))

    annotate(update_record, unique_id=resource.path_id, body=resource.update_body)
    for method, verb, summary in (
        ("PATCH", "patch", f"Update a {noun}, as PUT does"),
        ("PUT", "update", f"Update a {noun}"),
    ):
        router.add_api_route(
            "/{unique_id}/",
            passthrough(update_record),
            methods=[method],
            name=f"{verb}_{noun}",
            summary=summary,
            description=resource.description(
                "update", f"Update a {noun} with the fields that the body contains. Absent fields are left unchanged."
            )
            + resource.write_scopes_sentence,
            response_description=f"The {noun} after the update.",
            response_model=representation,
            openapi_extra=requires(resource.write_scope) | request_parameters(query=included, headers=(IF_MATCH,)),
            responses=problem_responses(
                *UPDATE_PROBLEMS,
                *((409,) if resource.updates_can_conflict else ()),
                noun=noun,
                conflict=IdentifierRetiredError("profile", 3),
                errors=resource.body_errors,
            )
            | resource.gone_problem
            | {200: {"headers": header_references("ETag", *warnings)}},
        )

    async def delete_record(request: Request, unique_id: str) -> Response:
        write = WriteRequest(request, service_class, unique_id=unique_id)
        await write.run(lambda service, precondition: service.delete(unique_id, precondition))
        return Response(status_code=204)

    annotate(delete_record, unique_id=resource.path_id)
    router.delete(
        "/{unique_id}/",
        name=f"delete_{noun}",
        summary=f"Delete a {noun}",
        description=resource.description("delete", f"Delete a {noun} that no patient is linked to."),
        response_description=f"The {noun} is deleted.",
        status_code=204,
        openapi_extra=requires(resource.delete_scope) | request_parameters(headers=(IF_MATCH,)),
        responses=problem_responses(
            *DELETE_PROBLEMS,
            *((409,) if resource.patients_link_to_it else ()),
            noun=noun,
            conflict=InUseError(noun, patient_count=2),
        )
        | resource.gone_problem,
    )(passthrough(delete_record))
