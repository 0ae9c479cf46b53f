"""Whether the process lives, whether it can serve, and what is measured of it."""

import asyncio

from fastapi import Request, Response

from app.auth.scopes import OPEN, Scope, needs
from app.db.schema import schema_is_current
from app.db.session import Database
from app.errors import UnavailableError
from app.http.routing import make_router, problems
from app.observability.metrics import exposition

router = make_router("", tag="health")


@router.get("/livez", status_code=204, openapi_extra=OPEN, responses=problems(database=False))
async def livez() -> Response:
    """Whether the process lives; asks nothing else. Restart it where this fails."""
    return Response(status_code=204)


@router.get("/readyz", status_code=204, openapi_extra=OPEN, responses=problems())
async def readyz(request: Request) -> Response:
    """Whether the database answers and has the schema that this version needs. Send no requests where this fails."""
    if request.app.state.stopping:
        raise UnavailableError("The service is stopping.")
    database: Database = request.app.state.database
    async with database.read() as connection:
        if not await schema_is_current(connection):
            raise UnavailableError("The database lacks migrations: run `patients-api migrate`.")
    return Response(status_code=204)


_TEXT = {"schema": {"type": "string"}}


@router.get(
    "/metrics",
    response_class=Response,
    openapi_extra=needs(Scope.METRICS_READ),
    responses=problems() | {200: {"content": {"text/plain": _TEXT, "application/openmetrics-text": _TEXT}}},
)
async def metrics(request: Request) -> Response:
    """What is measured, of all worker processes, as Prometheus reads it (or OpenMetrics, by `Accept`)."""
    content, media_type = await asyncio.to_thread(exposition, request.headers.get("accept", ""))
    return Response(content, media_type=media_type)
