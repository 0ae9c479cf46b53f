"""Patients of two hospitals, and clients that are restricted to one of them, to both, or to none."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import FastAPI

from app.auth.scopes import Scope
from tests.auth.support import HOSPITALS, PATIENTS, PROFILES, client_for, create_secured_app, make_key, secured_app
from tests.shared_service import (
    SharedService,
    restorable_database,
    running_without_background_tasks,
    sends_only_requests,
)
from tests.support import temporary_database

AUDIT_PATH = "/audit/"
REGULAR_SCOPES = tuple(scope for scope in Scope if scope not in {Scope.ADMIN, Scope.BREAK_GLASS})


class ScopedClients(NamedTuple):
    """Clients of one service, by their hospital scope."""

    a: httpx.AsyncClient
    """Restricted to the hospital `hosA`."""
    b: httpx.AsyncClient
    """Restricted to `hosB`."""
    both: httpx.AsyncClient
    """Restricted to both."""
    free: httpx.AsyncClient
    """Unrestricted."""


def patient_body(name: str, *hospitals: str, **other_fields: Any) -> dict[str, Any]:
    """Return the body of a new patient with a profile, both named after `name`."""
    profile = {"unique_id": f"prof-{name}", "email": f"{name}@example.com"}
    body = {"unique_id": f"pat-{name}", "patient_last_name": name, "patient_profile": profile}
    return {**body, "hospital_ids": list(hospitals), **other_fields}


HOSPITALS_BY_PRINCIPAL: dict[str, list[str] | None] = {
    "a": ["hosA"],
    "b": ["hosB"],
    "both": ["hosA", "hosB"],
    "free": None,
}


async def create_keys(database_url: str) -> dict[str, str]:
    """Create the keys of the principals, and return them by the names of `ScopedClients`."""
    return {
        name: await make_key(database_url, *REGULAR_SCOPES, name=name, hospitals=hospitals)
        for name, hospitals in HOSPITALS_BY_PRINCIPAL.items()
    }


@asynccontextmanager
async def clients_with_keys(app: FastAPI, keys: dict[str, str]) -> AsyncIterator[ScopedClients]:
    """Yield a client for each key."""
    async with AsyncExitStack() as stack:
        yield ScopedClients(
            **{name: await stack.enter_async_context(client_for(app, key)) for name, key in keys.items()}
        )


async def create_records(free: httpx.AsyncClient) -> None:
    """Create patients of A, B, several (`shared`), no hospital (`none`), and a deleted one (`gone`)."""
    for hospital in ("hosA", "hosB", "hosC"):
        response = await free.post(HOSPITALS, json={"unique_id": hospital, "hospital_name": hospital})
        assert response.status_code == 201
    for body in (
        patient_body("a", "hosA"),
        patient_body("b", "hosB"),
        patient_body("shared", "hosA", "hosB", "hosC"),
        patient_body("none"),
        patient_body("gone", "hosA"),
    ):
        assert (await free.post(PATIENTS, json=body)).status_code == 201
    assert (await free.delete(f"{PATIENTS}pat-gone/")).status_code == 204
    assert (await free.post(PROFILES, json={"unique_id": "prof-free"})).status_code == 201


@pytest.fixture
def scoped_clients(request: pytest.FixtureRequest) -> ScopedClients:
    """Return clients with the patients that `create_records` creates.

    As those of `client`, the application and the database are shared by tests that only send requests.
    """
    owner = "shared_app" if sends_only_requests(request) else "own_app"
    clients: ScopedClients = request.getfixturevalue(f"scoped_clients_of_{owner}")
    return clients


@pytest.fixture
async def scoped_clients_of_own_app(database_url: str) -> AsyncIterator[ScopedClients]:
    """Yield clients of an application that belongs to the test."""
    keys = await create_keys(database_url)
    async with secured_app(database_url, rate_limit="off") as app, clients_with_keys(app, keys) as clients:
        await create_records(clients.free)
        yield clients


@pytest.fixture(scope="session")
async def shared_scoped_service(postgres_url: str) -> AsyncIterator[tuple[SharedService, dict[str, str]]]:
    """Yield an application that tests share, its database with the patients, and the keys."""
    async with temporary_database(postgres_url) as url:
        keys = await create_keys(url)
        app = create_secured_app(url, rate_limit="off")
        async with running_without_background_tasks(app):
            async with clients_with_keys(app, keys) as clients:
                await create_records(clients.free)
            async with restorable_database(url) as database:
                yield SharedService(app, database), keys


@pytest.fixture
async def scoped_clients_of_shared_app(
    shared_scoped_service: tuple[SharedService, dict[str, str]],
) -> AsyncIterator[ScopedClients]:
    """Yield clients of the application that tests share, and undo what the test has stored."""
    service, keys = shared_scoped_service
    async with clients_with_keys(service.app, keys) as clients:
        yield clients
    await service.database.restore()
