"""Fixtures: one real PostgreSQL server per run, one database per test, the service inside and outside the process.

`tests/conftest.py` registers this module as a plugin, in processes that run tests only.
"""

import functools
import importlib.util
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from app.db import database
from app.db.migrate import migrate
from app.embedded.server import EmbeddedPostgres
from app.main import create_app
from app.settings import Settings
from app.vocabulary import stale_words
from tests.fork_server import start_command
from tests.processes import data_directory, free_port
from tests.scoped_clients import (
    scoped_clients,
    scoped_clients_of_own_app,
    scoped_clients_of_shared_app,
    shared_scoped_service,
)
from tests.servers import copy_server
from tests.shared_service import (
    SharedService,
    restorable_database,
    running_without_background_tasks,
    sends_only_requests,
)
from tests.support import ServiceProcess, eventually, temporary_database

__all__ = ["scoped_clients", "scoped_clients_of_own_app", "scoped_clients_of_shared_app", "shared_scoped_service"]

LENIENT_SEARCH_TIMEOUT_SECONDS = 5.0
"""Limit for searches by applications in pytest's process: a busy machine may stand still for the second that the
service allows. PostgreSQL's own limit for each statement stays, and is what tests of slow searches reach."""
STALE_WORDS_INTERVAL_SECONDS = 3600
"""Interval at which applications in pytest's process delete unused words: longer than any test, because a deletion
between two dumps of all tables, ten seconds after the start of an application, would look like a write of a request."""
NON_DURABLE_SERVER_OPTIONS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""PostgreSQL settings that give up durability: losing test data does no harm."""


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """Remove the service's environment variables, so that tests see the defaults wherever they run."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.upper().startswith(("DATABASE_URL", "PATIENTS_", "OTEL_", "NO_COLOR")):
                patch.delenv(name)
        patch.setenv("PATIENTS_AUTH", "off")  # authentication is tested in tests/auth
        patch.setattr(database, "SEARCH_TIMEOUT_SECONDS", LENIENT_SEARCH_TIMEOUT_SECONDS)
        patch.setattr(stale_words, "STALE_WORDS_INTERVAL_SECONDS", STALE_WORDS_INTERVAL_SECONDS)
        yield


@pytest.fixture(scope="session", autouse=True)
def _shared_tls_contexts() -> Iterator[None]:
    """Let HTTP clients in this process share their TLS contexts: to load all certificates takes 20 ms for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        yield


@pytest.fixture(scope="session", autouse=True)
def _absent_module_of_http_clients() -> Iterator[None]:
    """Let HTTP clients in this process know that the module sniffio is not installed.

    Otherwise they look for it in all directories with packages, several times for each request.
    """
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("sniffio") is None:
            patch.setitem(sys.modules, "sniffio", None)
        yield


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Yield the URL of a PostgreSQL server's migrated database, the template of every test's database."""
    with (
        data_directory() as directory,
        EmbeddedPostgres(directory, options=NON_DURABLE_SERVER_OPTIONS) as server,
    ):
        migrate(server.url)
        yield server.url


@pytest.fixture
def migrated_data_dir(postgres_url: str) -> Iterator[Path]:
    """Yield the data directory for a server of the test's own, whose database is migrated and empty.

    Copying the running server takes a tenth of the time that creating and migrating one takes.
    """
    with data_directory() as directory:
        copy_server(postgres_url, directory)
        yield directory


@pytest.fixture
async def database_url(postgres_url: str) -> AsyncIterator[str]:
    """Yield the URL of a migrated, empty database that belongs to the test."""
    async with temporary_database(postgres_url) as url:
        yield url


@pytest.fixture(scope="module")
async def module_database_url(postgres_url: str) -> AsyncIterator[str]:
    """Yield the URL of a migrated, empty database that the tests of a file share."""
    async with temporary_database(postgres_url) as url:
        yield url


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection to the test's database that bypasses the service."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[FastAPI]:
    """Yield the application, running in this process."""
    app = create_app(Settings.model_validate({"database_url": database_url, "auth": "off"}))
    async with app.router.lifespan_context(app):
        yield app


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an application in this process."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://patients.test") as client:
        yield client


@pytest.fixture
def client(request: pytest.FixtureRequest) -> httpx.AsyncClient:
    """Return a client of an application in this process, whose database is empty.

    They are shared by the tests that cannot get at them otherwise.
    """
    only_sends = sends_only_requests(request)
    client: httpx.AsyncClient = request.getfixturevalue("client_of_shared_app" if only_sends else "client_of_own_app")
    return client


@pytest.fixture
async def client_of_own_app(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the test's application."""
    async with client_of(app) as client:
        yield client


@pytest.fixture(scope="session")
async def shared_service(postgres_url: str) -> AsyncIterator[SharedService]:
    """Yield the application that tests share, and its empty database."""
    async with temporary_database(postgres_url) as url:
        app = create_app(Settings.model_validate({"database_url": url, "auth": "off"}))
        async with running_without_background_tasks(app), restorable_database(url) as database:
            yield SharedService(app, database)


@pytest.fixture
async def client_of_shared_app(shared_service: SharedService) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the application that tests share, and delete what the test has stored."""
    async with client_of(shared_service.app) as client:
        yield client
    await shared_service.database.restore()


@pytest.fixture
async def hospitals_and_doctors(client: httpx.AsyncClient) -> None:
    """Create the hospitals and doctors of the contract's examples."""
    for unique_id, name in {"hos123": "General Hospital", "hos456": "St. Mary's", "hos789": "New Hospital"}.items():
        body = {"unique_id": unique_id, "hospital_name": name}
        assert (await client.post("/hospitals/hospitals/", json=body)).status_code == 201
    for unique_id, name in {"doc123": "Dr. Smith", "doc456": "Dr. Adams"}.items():
        body = {"unique_id": unique_id, "doctor_first_name": name}
        assert (await client.post("/doctors/doctors/", json=body)).status_code == 201


@contextmanager
def service_starter() -> Iterator[Callable[..., ServiceProcess]]:
    """Yield a function that starts `patients-api serve` in a process and returns when the service is ready.

    Call it as `serve("--workers", "2", DATABASE_URL=…)`. The service does not drain unless a test sets for how long.
    """
    started: list[ServiceProcess] = []
    readers: list[threading.Thread] = []

    def start(*arguments: str, **environment: str) -> ServiceProcess:
        port = free_port()
        process = start_command(
            "serve",
            "--port",
            str(port),
            *arguments,
            env={"PATIENTS_DRAIN_SECONDS": "0", **environment},
            stdout=subprocess.PIPE,
        )
        served = ServiceProcess(f"http://127.0.0.1:{port}", process)
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"")
        reader = threading.Thread(target=lambda: served.stdout_lines.extend(line.decode() for line in lines))
        reader.start()
        started.append(served)
        readers.append(reader)

        def is_ready() -> bool:
            assert process.poll() is None, f"the service exited with {process.returncode}: {served.stdout_lines}"
            try:
                return httpx.get(f"{served.url}/readyz").status_code == 204
            except httpx.TransportError:
                return False

        eventually(is_ready, within_seconds=90)  # starting processes takes long on a busy machine
        return served

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.send_signal(signal.SIGTERM)
            served.process.wait(30)
    for reader in readers:
        reader.join(10)
    for served in started:
        assert served.process.stdout is not None
        served.process.stdout.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., ServiceProcess]]:
    """Yield a function that starts services for the test, as `service_starter` describes."""
    with service_starter() as start:
        yield start


@pytest.fixture(scope="module")
def module_serve() -> Iterator[Callable[..., ServiceProcess]]:
    """Yield a function that starts services for all tests of the file, as `service_starter` describes."""
    with service_starter() as start:
        yield start
