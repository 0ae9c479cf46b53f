"""What the routes of every resource do: list, get, create, update, delete. A resource's own routes.py declares them."""

from typing import Annotated, Any

from fastapi import Path, Request, Response

from app.auth.principal import Principal
from app.db.session import Database
from app.resource.identifiers import PATTERN
from app.resource.pages import PageParameters, list_answer
from app.resource.repository import Record, Repository
from app.resource.service import C, Service, U
from app.settings import Settings

PathId = Annotated[str, Path(json_schema_extra={"maxLength": 64, "pattern": PATTERN})]
"""The `unique_id` in a path. One that no record can have is a 404 as any other that no record has."""

BODY_PROBLEMS = (400, 413, 415, 422)
"""What any operation with a body may answer."""


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def _json(record: Record, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(record.document, status, headers, media_type="application/json")


async def list_records(
    request: Request, repository: type[Repository], principal: Principal, parameters: PageParameters
) -> Response:
    """200 and all records, or a page of them."""
    settings: Settings = request.app.state.settings

    async def read(after: str, limit: int) -> list[Record]:
        # a connection for each batch: a client that reads slowly holds none
        async with _database(request).read() as connection:
            return await repository(connection, principal).page(after, limit)

    return await list_answer(request, read, parameters, settings.list_cap)


async def get_record(request: Request, repository: type[Repository], principal: Principal, unique_id: str) -> Response:
    """200 and the record."""
    async with _database(request).read() as connection:
        return _json(await repository(connection, principal).get(unique_id))


async def create_record(request: Request, service: type[Service[C, Any]], principal: Principal, body: C) -> Response:
    """201, the record, and where it is."""
    record = await _database(request).transaction(lambda connection: service(connection, principal).create(body))
    return _json(record, 201, {"Location": f"{request.scope['path']}{record.unique_id}/"})


async def update_record(
    request: Request, service: type[Service[Any, U]], principal: Principal, unique_id: str, body: U
) -> Response:
    """200 and the record as it is now."""
    return _json(
        await _database(request).transaction(lambda connection: service(connection, principal).update(unique_id, body))
    )


async def delete_record(
    request: Request, service: type[Service[Any, Any]], principal: Principal, unique_id: str
) -> Response:
    """204."""
    await _database(request).transaction(lambda connection: service(connection, principal).delete(unique_id))
    return Response(status_code=204)
