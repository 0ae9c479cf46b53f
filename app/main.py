"""Builds the FastAPI application from its routers, middleware and error handlers. Start reading the code here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse

from app.about.docs import assets
from app.about.docs import router as docs_router
from app.about.document import read_document
from app.about.health import router as health_router
from app.about.me import router as me_router
from app.about.openapi import API_METADATA
from app.admission.bulkhead import Bulkhead
from app.api.audit import router as audit_router
from app.api.list_response import MAX_STREAMS, MAX_STREAMS_PER_PRINCIPAL
from app.api.services import AppServices
from app.audit.recorder import AuditRecorder
from app.auth.authentication import Authenticator
from app.background_tasks import run_background_tasks, run_background_tasks_periodically
from app.changes.reading import ChangeFeed
from app.changes.retention import maintain_changes_periodically
from app.changes.waiting import ChangeWatcher
from app.db.base import Base
from app.db.database import Database
from app.db.transaction_batching import TransactionBatcher
from app.doctors.routes import router as doctors_router
from app.duplicates.routes import router as duplicates_router
from app.feed.routes import MAX_WAITING_CLIENTS, MAX_WAITING_CLIENTS_PER_PRINCIPAL
from app.feed.routes import router as feed_router
from app.fhir.routes import FHIR_ROUTERS
from app.hospitals.routes import router as hospitals_router
from app.http.disconnects import CancelOnDisconnect
from app.http.middleware import CORS, BodyLimit, RequestContext, TrailingSlashAndHead, TrustedHosts, UnhandledErrors
from app.http.problems import add_error_handlers
from app.listing.batched_reads import BatchedReads
from app.listing.cursors import Cursors
from app.matching.pending import BackgroundComparison
from app.observability.metrics import CONNECTIONS_MAX
from app.observability.multiprocess import shared_directory
from app.observability.statements import StatementInstrumentation
from app.observability.telemetry import Telemetry
from app.paths import IMPORT_SUFFIX, router_prefix
from app.patients.routes import router as patients_router
from app.profiles.routes import router as profiles_router
from app.settings import Settings
from app.uploads.lines import MAX_IMPORT_BYTES
from app.uploads.routes import router as imports_router
from app.vocabulary.stale_words import delete_stale_words_periodically
from app.webhooks.delivery import WebhookDelivery

RESOURCE_ROUTERS = (
    imports_router,  # before the routes of records: its path is also that of a record with the id `import`
    patients_router,
    duplicates_router,
    profiles_router,
    hospitals_router,
    doctors_router,
    feed_router,
    audit_router,
    me_router,
)
IMPORT_PATH = f"{router_prefix('patients')}/{IMPORT_SUFFIX.rstrip('/')}"
MAX_IMPORTS, MAX_IMPORTS_PER_PRINCIPAL = 2, 1
"""Maximum numbers of imports that a process writes at the same time, each with a connection."""
MAX_UPLOADS, MAX_UPLOADS_PER_PRINCIPAL = 8, 1
"""Maximum numbers of imports whose bodies, of up to 16 MiB each, a process receives or has received."""
CORS_ALLOWED_HEADERS = (
    "Authorization",
    "Content-Type",
    "Duplicate-Check",
    "Idempotency-Key",
    "If-Match",
    "If-None-Exist",
    "If-None-Match",
    "Last-Event-ID",
    "Prefer",
    "X-API-Key",
    "X-Break-Glass",
    "X-Request-ID",
)
CORS_EXPOSED_HEADERS = (
    "Audit-Reads",
    "Changes-Cursor",
    "Elements-Left-Out",
    "Last-Modified",
    "Link",
    "Next-Cursor",
    "X-Total-Count",
    "ETag",
    "Idempotency-Replayed",
    "Location",
    "Same-Name-As",
    "Search-Agreement",
    "Search-Set-Aside",
    "X-Request-ID",
    "Retry-After",
    "WWW-Authenticate",
)


def create_app(settings: Settings) -> FastAPI:
    """Return the application of the service, configured by `settings`. `settings.database_url` must be set."""
    assert settings.database_url is not None, "the command starts the embedded server and sets its URL"  # noqa: S101
    telemetry = Telemetry()
    instrumentation = StatementInstrumentation(Base.metadata.tables, settings.slow_query_ms / 1000, telemetry.tracer)
    directory = shared_directory()
    database = Database(
        settings.database_url.get_secret_value(),
        pool_size=settings.pool_size,
        instrumentation=instrumentation,
        slots_path=directory and directory / "search-slots",
    )
    CONNECTIONS_MAX.set(settings.pool_size)

    authenticator = Authenticator(settings, database)
    feed = ChangeFeed(database)
    watcher = ChangeWatcher(feed, lambda: services.is_stopping)
    comparison = BackgroundComparison(database)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_background_tasks(database)
        background_tasks = [
            asyncio.create_task(work)
            for work in (
                run_background_tasks_periodically(database),
                maintain_changes_periodically(database, settings.changes_days, settings.changes_count),
                delete_stale_words_periodically(database),
                comparison.run_periodically(),
                authenticator.flush_last_used_periodically(),
                WebhookDelivery(database, feed, watcher).run(),
            )
        ]
        yield
        for task in background_tasks:
            task.cancel()
        await asyncio.gather(*background_tasks, return_exceptions=True)
        await authenticator.close()
        await database.close()
        await telemetry.close()

    app = FastAPI(
        **API_METADATA,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        middleware=_middleware(settings),
        telemetry=telemetry.config,
    )
    services = app.state.services = AppServices(
        settings=settings,
        database=database,
        authenticator=authenticator,
        audit_recorder=AuditRecorder(database),
        batched_reads=BatchedReads(database),
        transaction_batcher=TransactionBatcher(database),
        cursors=Cursors(database),
        stream_bulkhead=Bulkhead(MAX_STREAMS, MAX_STREAMS_PER_PRINCIPAL),
        upload_bulkhead=Bulkhead(MAX_UPLOADS, MAX_UPLOADS_PER_PRINCIPAL),
        import_bulkhead=Bulkhead(MAX_IMPORTS, MAX_IMPORTS_PER_PRINCIPAL),
        feed=feed,
        change_watcher=watcher,
        comparison=comparison,
        waiting_bulkhead=Bulkhead(MAX_WAITING_CLIENTS, MAX_WAITING_CLIENTS_PER_PRINCIPAL),
    )
    add_error_handlers(app)
    for router in (*RESOURCE_ROUTERS, *FHIR_ROUTERS, health_router, docs_router):
        app.router.routes += router.routes  # `include_router` would match each request against the routes twice
    app.router.routes.append(assets)
    app.add_api_route("/", _redirect_to_docs, include_in_schema=False)
    app.openapi = read_document  # type: ignore[method-assign]  # FastAPI documents this assignment
    return app


async def _redirect_to_docs() -> RedirectResponse:
    return RedirectResponse("docs")


def _middleware(settings: Settings) -> list[Middleware]:
    cors = Middleware(
        CORS,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=CORS_ALLOWED_HEADERS,
        expose_headers=CORS_EXPOSED_HEADERS,
        max_age=600,
    )
    return [
        Middleware(RequestContext),
        *([cors] if settings.cors_origins else []),
        Middleware(UnhandledErrors),
        *([Middleware(TrustedHosts, settings.allowed_hosts)] if settings.allowed_hosts else []),
        Middleware(CancelOnDisconnect),
        Middleware(BodyLimit, {IMPORT_PATH: MAX_IMPORT_BYTES}),
        Middleware(TrailingSlashAndHead, slash_prefixes=[router.prefix for router in RESOURCE_ROUTERS]),
    ]
