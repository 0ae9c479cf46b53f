"""What the routes of every resource do: list, get, create, update, delete. A resource's own routes.py declares them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Path, Request, Response
from pydantic import BaseModel

from app.api.idempotency import IdempotencyKey, IdempotentResult, S, execute_idempotently
from app.api.pages import STREAM_BATCH_SIZE, ListParameters, ListSource, list_response
from app.audit.recorder import RequestAudit
from app.auth.principal import Principal
from app.db.database import Database, TransactionRunner
from app.db.transaction_batching import MAX_BATCH_COST, TransactionBatcher
from app.errors import FieldError, ValidationFailedError
from app.identifiers import IDENTIFIER_PATTERN, is_identifier
from app.listing.batched_reads import BatchedReads
from app.listing.listing import Listing
from app.listing.query import KeysetRow, ListItem, ListQuery, Position
from app.records.preconditions import NO_PRECONDITION, Precondition, entity_tag, etag_matches
from app.records.repository import Record, Repository
from app.records.service import C, Service, U
from app.settings import Settings

PathId = Annotated[str, Path(json_schema_extra={"maxLength": 64, "pattern": IDENTIFIER_PATTERN})]
"""The `unique_id` in a path. One that no record can have is a 404 as any other that no record has."""

MAX_HOSPITALS_FOR_CHEAP_PAGES = 50
"""Beyond, the plain pages of a principal are admitted as searches are."""

CREATE_PROBLEMS = (400, 409, 412, 413, 415, 422)
UPDATE_PROBLEMS = (400, 404, 412, 413, 415, 422, 428)
DELETE_PROBLEMS = (404, 412, 428)
"""What these operations may answer on any resource."""


def get_database(request: Request) -> Database:
    """The application's database."""
    database: Database = request.app.state.database
    return database


def get_settings(request: Request) -> Settings:
    """The settings of the service."""
    settings: Settings = request.app.state.settings
    return settings


def _get_batched_reads(request: Request) -> BatchedReads:
    batched_reads: BatchedReads = request.app.state.lookups
    return batched_reads


def get_precondition(request: Request) -> Precondition:
    """What the request asks of the record before it is changed."""
    return Precondition.from_headers(request.headers, required=get_settings(request).require_if_match)


def record_response(
    request: Request, document: str, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """One JSON object, with the tag by which a client can ask whether it changed, or say what it has read."""
    tag = entity_tag(document)
    # a cache may keep it, but has to ask before it uses it
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", **(headers or {})}
    if_none_match = Precondition.from_headers(request.headers).if_none_match if request.method == "GET" else None
    if if_none_match is not None and etag_matches(if_none_match, tag):
        return Response(None, 304, headers)
    return Response(document, status, headers, media_type="application/json")


def _is_cheap(query: ListQuery, principal: Principal) -> bool:
    """Whether a page is a plain one, and costs little: it takes as many ids from each hospital as it has records."""
    return query.is_unfiltered and (
        principal.hospitals is None or len(principal.hospitals) <= MAX_HOSPITALS_FOR_CHEAP_PAGES
    )


def _reject_count_for_head(audit: RequestAudit) -> None:
    if audit.method == "HEAD":
        raise ValidationFailedError(
            [FieldError(("query", "count"), "Is not answered to HEAD: ask by GET", "count_by_head")]
        )


async def list_records(
    request: Request,
    repository_class: type[Repository],
    parameters: ListParameters,
    listing_class: type[Listing] = Listing,
) -> Response:
    """200 and all records that are wanted, or a page of them.

    Raises:
        InvalidError: HEAD asks for a count, or the parameters are not what the list takes.
    """
    audit = RequestAudit.from_request(request)
    principal, region = Principal.from_request(request), get_settings(request).phone_region

    @asynccontextmanager
    async def open_listing(query: ListQuery) -> AsyncIterator[Listing]:
        is_cheap = _is_cheap(query, principal)
        async with (
            get_database(request).read()
            if is_cheap
            else get_database(request).search_snapshot(principal.name) as connection
        ):
            yield listing_class(repository_class(connection, principal))

    async def read_page(parameters: ListParameters, after: Any, limit: int) -> list[KeysetRow]:
        query, position = parameters.to_query(region), after and Position._make(after)
        if _is_cheap(query, principal):
            return await _get_batched_reads(request).page(repository_class, principal, position, limit)
        async with open_listing(query) as listing:
            return await listing.page(query, position, limit)

    async def position_after(parameters: ListParameters, after: Any) -> Position | None:
        query = parameters.to_query(region)
        if not query.is_unfiltered:
            return None
        async with open_listing(query) as listing:
            return await listing.position_after(after, STREAM_BATCH_SIZE)

    async def read_range(after: Any, last: Any) -> list[KeysetRow]:
        async with open_listing(ListQuery()) as listing:
            return await listing.read_range(after, last)

    async def count(parameters: ListParameters) -> int | None:
        if parameters.count is None:
            return None
        _reject_count_for_head(audit)
        async with get_database(request).search_snapshot(principal.name) as connection:
            number, ids = await listing_class(repository_class(connection, principal)).count(
                parameters.to_query(region)
            )
        audit.note_counted_ids(ids)
        return number

    async def record_page(items: Sequence[ListItem]) -> None:
        await audit.record_page([record.unique_id for record in items])

    return await list_response(
        request,
        ListSource(read_page, record_page, count, position_after, read_range),
        parameters,
        get_settings(request).list_cap,
    )


async def get_record(
    request: Request, repository_class: type[Repository], unique_id: str, principal: Principal | None = None
) -> Response:
    """200 and the record, or 304; as the `principal` sees it, which is the request's, if nothing else is said."""
    record = await _get_batched_reads(request).get(
        repository_class, principal or Principal.from_request(request), unique_id
    )
    return record_response(request, record.document)


def _transaction_for(
    request: Request,
    precondition: Precondition,
    service_class: type[Service[Any, Any]],
    body: BaseModel,
    *record_ids: str,
) -> TransactionRunner:
    """A transaction that is shared with other requests of the same kind, unless this is a special one.

    What has conditions, or happens once, takes statements of its own, for which others would have to wait; those of who
    is limited to hospitals have these as parameters. What is heavy, or refused at once, is no help to others.
    """
    principal = Principal.from_request(request)
    needs_own_transaction = principal.hospitals is not None or precondition != NO_PRECONDITION
    cost = service_class.batch_cost(body)
    if (
        needs_own_transaction
        or cost >= MAX_BATCH_COST
        or "idempotency-key" in request.headers
        or not all(map(is_identifier, record_ids))
    ):
        return get_database(request).transaction_for(principal.name)
    transaction_batcher: TransactionBatcher = request.app.state.together
    conflict_keys = service_class.conflict_keys(body).union(record_ids)
    return transaction_batcher.transaction(principal.name, request.scope["endpoint"], conflict_keys, cost)


async def write_once(
    request: Request,
    transaction: TransactionRunner,
    service_class: type[S],
    body: BaseModel,
    work: Callable[[S], Awaitable[Record]],
) -> tuple[Record, dict[str, str]]:
    """Do `work` in the transaction, once for each Idempotency-Key; the record, and headers of its answer."""
    principal = Principal.from_request(request)
    key = IdempotencyKey.from_request(request, principal, body)

    result: IdempotentResult = await RequestAudit.from_request(request).run_audited(
        transaction,
        lambda connection: execute_idempotently(key, service_class(connection, principal), work),
        ids_of_result=lambda outcome: [outcome.record.unique_id],
    )
    return result.record, {"Idempotency-Replayed": "true"} if result.replayed else {}


async def create_record(request: Request, service_class: type[Service[C, Any]], body: C) -> Response:
    """201, the record, and where it is."""
    precondition = get_precondition(request)
    transaction = _transaction_for(request, precondition, service_class, body)
    record, headers = await write_once(
        request, transaction, service_class, body, lambda service: service.create(body, precondition)
    )
    location = f"{request.scope['path']}{record.unique_id}/"
    return record_response(request, record.document, 201, {"Location": location, **headers})


async def update_record(request: Request, service_class: type[Service[Any, U]], unique_id: str, body: U) -> Response:
    """200 and the record as it is now."""
    principal, precondition = Principal.from_request(request), get_precondition(request)
    record = await RequestAudit.from_request(request).run_audited(
        _transaction_for(request, precondition, service_class, body, unique_id),
        lambda connection: service_class(connection, principal).update(unique_id, body, precondition),
    )
    return record_response(request, record.document)


async def delete_record(request: Request, service_class: type[Service[Any, Any]], unique_id: str) -> Response:
    """204."""
    principal, precondition = Principal.from_request(request), get_precondition(request)
    await RequestAudit.from_request(request).run_audited(
        get_database(request).transaction_for(principal.name),
        lambda connection: service_class(connection, principal).delete(unique_id, precondition),
    )
    return Response(status_code=204)
