"""`patients-api serve`: run the service on the database of DATABASE_URL or on an embedded PostgreSQL."""

import argparse
import asyncio
import gc
import ipaddress
import os
import signal
import sys
import time
from contextlib import ExitStack, suppress
from functools import partial
from typing import NoReturn, cast

import asyncpg
import structlog
import uvicorn

from app.cli import DISTRIBUTION, import_module
from app.connection_errors import explain_missing_timeouts
from app.db.pool import missing_timeouts
from app.db.schema_version import LockTimeoutError, MigrationFailedError, explain_schema, read_revisions
from app.embedded.server import EmbeddedPostgres, EmbeddedPostgresError
from app.errors import UnavailableError
from app.observability.logging import configure_logging
from app.observability.multiprocess import multiprocess_directory
from app.server.listening import CannotListenError, bind, wait_for_port
from app.server.supervisor import STARTUP_FAILURE, Supervisor, exit_after
from app.settings import InvalidSettingsError, Settings
from app.terminal.start_report import report_start

log = structlog.get_logger()

SHUTDOWN_GRACE_SECONDS = 20
"""Maximum number of seconds for which requests in flight may continue after SIGTERM."""
DATABASE_RESPONSE_SECONDS = 5
"""Number of seconds for which the start tries to get a response from the database, with the short timeouts of requests.

On a very busy machine, a connection takes longer than a request may wait for one.
"""


class CannotServeError(Exception):
    """The service cannot start. The message says what the operator can do."""


USER_ERRORS = (
    CannotListenError,
    CannotServeError,
    EmbeddedPostgresError,
    InvalidSettingsError,
    LockTimeoutError,
    MigrationFailedError,
    UnavailableError,
)
"""The errors that an operator can fix. Only their messages are printed, without a traceback."""


def run(arguments: argparse.Namespace) -> int:
    """Run the service until SIGINT or SIGTERM. Return 0, or 1 if the server cannot start.

    Raises:
        CannotListenError: the address or the port cannot be used.
        CannotServeError: the directory for temporary files cannot be used, or the database has another schema. Also
            raised if the database role may not read the tables. Behind a connection pooler, also raised if the timeouts
            of the role are off or too long.
        EmbeddedPostgresError: the embedded server cannot run.
        InvalidSettingsError: a setting is invalid.
        LockTimeoutError: the embedded database cannot be migrated, because other transactions are using it.
        MigrationFailedError: the embedded database cannot be migrated.
        UnavailableError: the database cannot be reached.
    """
    settings = Settings.load()
    signal.signal(signal.SIGTERM, _exit)
    configure_logging()
    with ExitStack() as stack:
        if arguments.workers > 1:
            try:
                stack.enter_context(multiprocess_directory())
            except OSError as error:
                raise CannotServeError("Several workers need a directory for temporary files: set TMPDIR.") from error
        wait_for_port(arguments.host, arguments.port)
        if settings.database_url is None:
            server = stack.enter_context(EmbeddedPostgres(settings.data_dir, work_meanwhile=_import_application))
            url = server.url
            os.environ["DATABASE_URL"] = url  # read by the application and its workers
            if settings.is_local_only and _is_loopback(arguments.host):
                os.environ["PATIENTS_AUTH"] = "off"
                # if any host name were allowed, a web page could rebind its own name to 127.0.0.1 and get access
                os.environ["PATIENTS_ALLOWED_HOSTS"] = f"localhost,127.0.0.1,[::1],{arguments.host}"
            exit_after(server.wait)
            stack.callback(
                signal.signal, signal.SIGINT, signal.SIG_IGN
            )  # `exit_after` sends SIGINT when the embedded server stops
            if asyncio.run(_explain_schema(url)) is not None:
                from app.db.migrate import migrate  # noqa: PLC0415  # Alembic takes ten megabytes of memory

                migrate(url)
        else:
            _import_application()
            url = settings.database_url.get_secret_value()
            if (problem := asyncio.run(_explain_schema(url))) is not None:
                raise CannotServeError(problem)
        has_loaded_demo = asyncio.run(_load_demo_data(url)) if arguments.demo else None
        if settings.auth == "off":
            log.warning("authentication is off: every client that reaches this service can read and change everything")
        report_start(
            DISTRIBUTION,
            f"http://{arguments.host}:{arguments.port}",
            Settings.load(),  # again, because the authentication may have been turned off above
            is_embedded=settings.database_url is None,
            has_loaded_demo=has_loaded_demo,
        )
        with suppress(KeyboardInterrupt):  # uvicorn raises the signal again after its graceful shutdown
            return _serve(arguments, settings)
    return 0


def _exit(*_: object) -> NoReturn:
    sys.exit(0)


def _is_loopback(host: str) -> bool:
    """Return whether a server that listens on `host` can be reached only from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _import_application() -> None:
    """Import the modules that serve requests.

    Importing them creates metrics, so the directory of the metrics must be set before. The workers are forked
    afterwards, and so share the memory of the code.
    """
    import_module("app.server.protocol")
    import_module("app.server.worker")


async def _explain_schema(url: str) -> str | None:
    """Return what is wrong with the schema of the database, or None if the service can use it."""
    deadline = time.monotonic() + DATABASE_RESPONSE_SECONDS
    while True:
        try:
            return await _read_schema_problem(url)
        except UnavailableError as error:
            if not isinstance(error.__cause__, TimeoutError) or time.monotonic() > deadline:
                raise
            log.warning("the database has not responded in time, so the start tries again")


async def _read_schema_problem(url: str) -> str | None:
    from app.db.database import Database  # noqa: PLC0415  # see `_import_application`

    try:
        async with Database(url, pool_size=1) as database, database.read() as connection:
            if missing := await missing_timeouts(connection):
                raise CannotServeError(explain_missing_timeouts(missing))
            return explain_schema(await read_revisions(connection))
    except asyncpg.InsufficientPrivilegeError:
        raise CannotServeError(
            "The role of DATABASE_URL may not read the tables: run `patients-api migrate --serving-role …` to allow it."
        ) from None


async def _load_demo_data(url: str) -> bool:
    from app import demo  # noqa: PLC0415  # see `_import_application`
    from app.db.database import Database  # noqa: PLC0415

    # without the limits of requests, which a slow machine would exceed: all demo data is one transaction
    async with Database(url, pool_size=1, with_timeouts=False) as database:
        return await database.transaction(demo.insert_demo_data)


def _serve(arguments: argparse.Namespace, settings: Settings) -> int:
    """Run the web server until SIGINT or SIGTERM. Return 0, or 1 if the server cannot start."""
    from app.observability.metrics import mark_worker_dead  # noqa: PLC0415  # see `_import_application`
    from app.server.protocol import StrictHttpProtocol  # noqa: PLC0415
    from app.server.worker import create_worker_app  # noqa: PLC0415

    config = uvicorn.Config(
        create_worker_app,
        factory=True,
        http=cast(
            "type[StrictHttpProtocol]",
            partial(StrictHttpProtocol, client_timeout_seconds=settings.client_timeout_seconds),
        ),
        ws="none",
        workers=1,  # otherwise uvicorn reads WEB_CONCURRENCY
        host=arguments.host,
        port=arguments.port,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=SHUTDOWN_GRACE_SECONDS,
    )
    if arguments.workers == 1:
        server = uvicorn.Server(config)
        server.run()
        return 0 if server.started else 1

    def run_worker() -> None:
        try:
            # one socket per worker, because the busiest worker would take most connections of a shared socket
            bound_socket = bind((arguments.host, arguments.port), reuse_port=True)
        except OSError as error:
            log.error("the port is taken", error=type(error).__name__)  # noqa: TRY400  # a traceback would not help the operator
            sys.exit(STARTUP_FAILURE)
        uvicorn.Server(config).run([bound_socket])

    gc.collect()
    gc.freeze()  # otherwise garbage collection in a worker would write to all shared memory and so copy it
    return Supervisor(arguments.workers, run_worker, on_exit=mark_worker_dead).run()
