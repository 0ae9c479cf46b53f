"""The application: the table of contents."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse

from app import openapi
from app.audit.routes import router as audit
from app.audit.trail import Trail
from app.auth.authentication import Authenticator
from app.chores import do_chores, keep_chores_done
from app.db.bulkhead import Bulkhead
from app.db.session import Database
from app.db.together import Together
from app.docs.routes import assets
from app.docs.routes import router as docs
from app.doctors.routes import router as doctors
from app.hospitals.routes import router as hospitals
from app.http.hangups import Hangups
from app.http.middleware import CORS, BodyLimit, Hosts, Paths, Problems, RequestContext
from app.http.problems import add_error_handlers
from app.observability.health import router as health
from app.observability.metrics import POOL
from app.observability.statements import Statements
from app.observability.telemetry import Telemetry
from app.patients.routes import router as patients
from app.profiles.routes import router as profiles
from app.resource.cursors import Cursors
from app.resource.lookups import Lookups
from app.resource.pages import MOST_STREAMS, MOST_STREAMS_OF_ONE
from app.search.dictionary import keep_forgetting
from app.settings import Settings

RESOURCES = (patients, profiles, hospitals, doctors, audit)
ACCEPTED_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "X-API-Key",
    "X-Break-Glass",
    "X-Request-ID",
)
EXPOSED_HEADERS = (
    "Link",
    "Next-Cursor",
    "X-Total-Count",
    "ETag",
    "Idempotency-Replayed",
    "Location",
    "X-Request-ID",
    "Retry-After",
    "WWW-Authenticate",
)


def create_app(settings: Settings) -> FastAPI:
    """The service on the database that `settings` name."""
    assert settings.database_url is not None, "the command starts the embedded server and sets its URL"  # noqa: S101
    telemetry = Telemetry()
    statements = Statements(settings.slow_query_ms / 1000, telemetry.tracer)
    database = Database(settings.database_url.get_secret_value(), pool_size=settings.pool_size, statements=statements)
    POOL.set(settings.pool_size)

    authenticator = Authenticator(settings, database)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await do_chores(database)
        chores = [
            asyncio.create_task(chore)
            for chore in (keep_chores_done(database), keep_forgetting(database), authenticator.note_uses())
        ]
        yield
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        await authenticator.close()
        await database.close()
        await telemetry.close()

    app = FastAPI(
        **openapi.DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        middleware=_middleware(settings),
        telemetry=telemetry.config,
    )
    app.state.database = database
    app.state.authenticator = authenticator
    app.state.trail = Trail(database)
    app.state.lookups = Lookups(database)
    app.state.together = Together(database)
    app.state.cursors = Cursors(database)
    app.state.streams = Bulkhead(MOST_STREAMS, MOST_STREAMS_OF_ONE)
    app.state.settings = settings
    app.state.stopping = False
    add_error_handlers(app)
    for router in (*RESOURCES, health, docs):
        app.router.routes += router.routes  # a router that is included matches each request against its routes twice
    app.router.routes.append(assets)
    app.add_api_route("/", _to_docs, include_in_schema=False)
    openapi.install(app)
    return app


async def _to_docs() -> RedirectResponse:
    return RedirectResponse("docs")


def _middleware(settings: Settings) -> list[Middleware]:
    cors = Middleware(
        CORS,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=ACCEPTED_HEADERS,
        expose_headers=EXPOSED_HEADERS,
        max_age=600,
    )
    return [
        Middleware(RequestContext),
        *([cors] if settings.cors_origins else []),
        Middleware(Problems),
        *([Middleware(Hosts, settings.allowed_hosts)] if settings.allowed_hosts else []),
        Middleware(Hangups),
        Middleware(BodyLimit),
        Middleware(Paths, slashed=[router.prefix for router in RESOURCES]),
    ]
