"""What the routes of every resource do: list, get, create, update, delete. A resource's own routes.py declares them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Path, Request, Response
from pydantic import BaseModel

from app.audit.trail import Access
from app.auth.principal import Principal
from app.db.session import Database, Transaction
from app.db.together import MOST, Together
from app.errors import FieldError, InvalidError
from app.resource.idempotency import IdempotencyKey, Outcome, S, once
from app.resource.identifiers import PATTERN, is_identifier
from app.resource.listing import Listing
from app.resource.lookups import Lookups
from app.resource.pages import BATCH, ListParameters, Source, list_answer
from app.resource.preconditions import UNCONDITIONAL, Precondition, entity_tag, names
from app.resource.repository import Record, Repository
from app.resource.service import C, Service, U
from app.resource.wanted import Found, Listed, Place, Wanted
from app.settings import Settings

PathId = Annotated[str, Path(json_schema_extra={"maxLength": 64, "pattern": PATTERN})]
"""The `unique_id` in a path. One that no record can have is a 404 as any other that no record has."""

FEW_HOSPITALS = 50
"""Beyond, the plain pages of a principal are admitted as searches are."""

CREATE_PROBLEMS = (400, 409, 412, 413, 415, 422)
UPDATE_PROBLEMS = (400, 404, 412, 413, 415, 422, 428)
DELETE_PROBLEMS = (404, 412, 428)
"""What these operations may answer on any resource."""


def database(request: Request) -> Database:
    """The application's database."""
    database: Database = request.app.state.database
    return database


def settings(request: Request) -> Settings:
    """The settings of the service."""
    loaded: Settings = request.app.state.settings
    return loaded


def _lookups(request: Request) -> Lookups:
    lookups: Lookups = request.app.state.lookups
    return lookups


def precondition_of(request: Request) -> Precondition:
    """What the request asks of the record before it is changed."""
    return Precondition.of(request.headers, required=settings(request).require_if_match)


def answer(request: Request, document: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """One JSON object, with the tag by which a client can ask whether it changed, or say what it has read."""
    tag = entity_tag(document)
    # a cache may keep it, but has to ask before it uses it
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", **(headers or {})}
    known = Precondition.of(request.headers).if_none_match if request.method == "GET" else None
    if known is not None and names(known, tag):
        return Response(None, 304, headers)
    return Response(document, status, headers, media_type="application/json")


def _is_cheap(wanted: Wanted, principal: Principal) -> bool:
    """Whether a page is a plain one, and costs little: it takes as many ids from each hospital as it has records."""
    return wanted.everything and (principal.hospitals is None or len(principal.hospitals) <= FEW_HOSPITALS)


def _refuse_count_by_head(access: Access) -> None:
    if access.method == "HEAD":
        raise InvalidError([FieldError(("query", "count"), "Is not answered to HEAD: ask by GET", "count_by_head")])


async def list_records(
    request: Request,
    repository: type[Repository],
    parameters: ListParameters,
    listing: type[Listing] = Listing,
) -> Response:
    """200 and all records that are wanted, or a page of them.

    Raises:
        InvalidError: HEAD asks for a count, or the parameters are not what the list takes.
    """
    access = Access.of(request)
    principal, region = Principal.of(request), settings(request).phone_region

    @asynccontextmanager
    async def connected(wanted: Wanted) -> AsyncIterator[Listing]:
        cheap = _is_cheap(wanted, principal)
        async with database(request).read() if cheap else database(request).find(principal.name) as connection:
            yield listing(repository(connection, principal))

    async def read(parameters: ListParameters, after: Any, limit: int) -> list[Found]:
        wanted, place = parameters.wanted(region), after and Place._make(after)
        if _is_cheap(wanted, principal):
            return await _lookups(request).page(repository, principal, place, limit)
        async with connected(wanted) as records:
            return await records.page(wanted, place, limit)

    async def skip(parameters: ListParameters, after: Any) -> Place | None:
        wanted = parameters.wanted(region)
        if not wanted.everything:
            return None
        async with connected(wanted) as records:
            return await records.skip(after, BATCH)

    async def between(after: Any, last: Any) -> list[Found]:
        async with connected(Wanted()) as records:
            return await records.between(after, last)

    async def count(parameters: ListParameters) -> int | None:
        if parameters.count is None:
            return None
        _refuse_count_by_head(access)
        async with database(request).find(principal.name) as connection:
            number, ids = await listing(repository(connection, principal)).count(parameters.wanted(region))
        access.count(ids)
        return number

    async def show(records: Sequence[Listed]) -> None:
        await access.show([record.unique_id for record in records])

    return await list_answer(request, Source(read, show, count, skip, between), parameters, settings(request).list_cap)


async def get_record(
    request: Request, repository: type[Repository], unique_id: str, principal: Principal | None = None
) -> Response:
    """200 and the record, or 304; as the `principal` sees it, which is the request's, if nothing else is said."""
    record = await _lookups(request).get(repository, principal or Principal.of(request), unique_id)
    return answer(request, record.document)


def _shared(
    request: Request, precondition: Precondition, service: type[Service[Any, Any]], body: BaseModel, *touched: str
) -> Transaction:
    """A transaction that is shared with other requests of the same kind, unless this is a special one.

    What has conditions, or happens once, takes statements of its own, for which others would have to wait; those of who
    is limited to hospitals have these as parameters. What is heavy, or refused at once, is no help to others.
    """
    principal = Principal.of(request)
    special = principal.hospitals is not None or precondition != UNCONDITIONAL
    weight = service.weight(body)
    if special or weight >= MOST or "idempotency-key" in request.headers or not all(map(is_identifier, touched)):
        return database(request).transaction_of(principal.name)
    together: Together = request.app.state.together
    ids = service.touched(body).union(touched)
    return together.transaction(principal.name, request.scope["endpoint"], ids, weight)


async def post(
    request: Request,
    transaction: Transaction,
    service: type[S],
    body: BaseModel,
    work: Callable[[S], Awaitable[Record]],
) -> tuple[Record, dict[str, str]]:
    """Do `work` in the transaction, once for each Idempotency-Key; the record, and headers of its answer."""
    principal = Principal.of(request)
    key = IdempotencyKey.of(request, principal, body)

    outcome: Outcome = await Access.of(request).change(
        transaction,
        lambda connection: once(key, service(connection, principal), work),
        about=lambda outcome: [outcome.record.unique_id],
    )
    return outcome.record, {"Idempotency-Replayed": "true"} if outcome.replayed else {}


async def create_record(request: Request, service: type[Service[C, Any]], body: C) -> Response:
    """201, the record, and where it is."""
    precondition = precondition_of(request)
    transaction = _shared(request, precondition, service, body)
    record, headers = await post(request, transaction, service, body, lambda own: own.create(body, precondition))
    location = f"{request.scope['path']}{record.unique_id}/"
    return answer(request, record.document, 201, {"Location": location, **headers})


async def update_record(request: Request, service: type[Service[Any, U]], unique_id: str, body: U) -> Response:
    """200 and the record as it is now."""
    principal, precondition = Principal.of(request), precondition_of(request)
    record = await Access.of(request).change(
        _shared(request, precondition, service, body, unique_id),
        lambda connection: service(connection, principal).update(unique_id, body, precondition),
    )
    return answer(request, record.document)


async def delete_record(request: Request, service: type[Service[Any, Any]], unique_id: str) -> Response:
    """204."""
    principal, precondition = Principal.of(request), precondition_of(request)
    await Access.of(request).change(
        database(request).transaction_of(principal.name),
        lambda connection: service(connection, principal).delete(unique_id, precondition),
    )
    return Response(status_code=204)
