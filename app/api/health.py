"""Whether the process lives, whether it can serve, and what is measured of it."""

import asyncio

from fastapi import Request, Response

from app.api.routing import make_router, problem_responses
from app.auth.scopes import PUBLIC_ROUTE, Scope, requires
from app.db.database import Database
from app.db.schema_version import schema_is_current
from app.errors import UnavailableError
from app.observability.metrics import render_metrics

router = make_router("", tag="health")


@router.get("/livez", status_code=204, openapi_extra=PUBLIC_ROUTE, responses=problem_responses(uses_database=False))
async def livez() -> Response:
    """Whether the process lives; asks nothing else. Restart it where this fails."""
    return Response(status_code=204)


@router.get("/readyz", status_code=204, openapi_extra=PUBLIC_ROUTE, responses=problem_responses())
async def readyz(request: Request) -> Response:
    """Whether the database answers and has the schema that this version needs. Send no requests where this fails."""
    if request.app.state.stopping:
        raise UnavailableError("The service is stopping.")
    database: Database = request.app.state.database
    async with database.read() as connection:
        if not await schema_is_current(connection):
            raise UnavailableError("The database lacks migrations: run `patients-api migrate`.")
    return Response(status_code=204)


_TEXT_CONTENT = {"schema": {"type": "string"}}


@router.get(
    "/metrics",
    response_class=Response,
    openapi_extra=requires(Scope.METRICS_READ),
    responses=problem_responses()
    | {200: {"content": {"text/plain": _TEXT_CONTENT, "application/openmetrics-text": _TEXT_CONTENT}}},
)
async def metrics(request: Request) -> Response:
    """What is measured, of all worker processes, as Prometheus reads it (or OpenMetrics, by `Accept`)."""
    content, media_type = await asyncio.to_thread(render_metrics, request.headers.get("accept", ""))
    return Response(content, media_type=media_type)
