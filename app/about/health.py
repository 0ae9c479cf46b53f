"""The routes for operators: liveness and readiness probes, and metrics."""

import asyncio

from fastapi import Request, Response

from app.api.documentation import problem_responses
from app.api.routing import make_router, passthrough
from app.api.services import get_services
from app.auth.scopes import PUBLIC_ROUTE, Scope, requires
from app.db.schema_version import schema_is_current
from app.errors import UnavailableError
from app.observability.metrics import render_metrics

router = make_router("", tag="health")

_TEXT_CONTENT = {"schema": {"type": "string"}}


@router.get(
    "/livez",
    summary="Liveness probe",
    description="Whether the process is alive; checks nothing else. Restart it if this fails.",
    response_description="The process is alive.",
    status_code=204,
    openapi_extra=PUBLIC_ROUTE,
    responses=problem_responses(uses_database=False),
)
async def livez() -> Response:
    """Return 204 without checking anything, because any response shows that the process is alive."""
    return Response(status_code=204)


@router.get(
    "/readyz",
    summary="Readiness probe",
    description="Whether the database responds and has the schema that this version needs. Send no requests if this "
    "fails.",
    response_description="The service is ready.",
    status_code=204,
    openapi_extra=PUBLIC_ROUTE,
    responses=problem_responses(),
)
@passthrough
async def readyz(request: Request) -> Response:
    """Return 204 if the service can handle requests.

    Raises:
        UnavailableError: the process is stopping, the database does not respond, or its schema is outdated.
    """
    services = get_services(request)
    if services.is_stopping:
        raise UnavailableError("The service is stopping.")
    async with services.database.read() as connection:
        if not await schema_is_current(connection):
            raise UnavailableError("The database lacks migrations: run `patients-api migrate`.")
    return Response(status_code=204)


@router.get(
    "/metrics",
    summary="Get the metrics",
    description="The metrics of all worker processes in Prometheus' text format, or as OpenMetrics if `Accept` asks "
    "for it.",
    response_description="The metrics.",
    response_class=Response,
    openapi_extra=requires(Scope.METRICS_READ),
    responses=problem_responses()
    | {200: {"content": {"text/plain": _TEXT_CONTENT, "application/openmetrics-text": _TEXT_CONTENT}}},
)
@passthrough
async def metrics(request: Request) -> Response:
    """Return the metrics of all worker processes, in the format that the `Accept` header asks for."""
    content, media_type = await asyncio.to_thread(render_metrics, request.headers.get("accept", ""))
    return Response(content, media_type=media_type)
