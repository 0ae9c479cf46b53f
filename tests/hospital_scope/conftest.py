"""Patients of two hospitals, and principals that are restricted to one of them, to both, or to none."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import httpx
import pytest

from app.auth.scopes import Scope
from tests.auth.support import HOSPITALS, PATIENTS, PROFILES, client_for, make_key, secured_app
from tests.journal.conftest import command, serving_url

__all__ = ["command", "serving_url"]

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


@pytest.fixture
async def scoped_clients(database_url: str) -> AsyncIterator[ScopedClients]:
    """Yield clients with patients of A, B, several (`shared`), no hospital (`none`), and a deleted one (`gone`)."""
    hospitals_by_principal: dict[str, list[str] | None] = {
        "a": ["hosA"],
        "b": ["hosB"],
        "both": ["hosA", "hosB"],
        "free": None,
    }
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(secured_app(database_url, rate_limit="off"))
        clients = {
            name: await stack.enter_async_context(
                client_for(app, await make_key(database_url, *REGULAR_SCOPES, name=name, hospitals=hospitals))
            )
            for name, hospitals in hospitals_by_principal.items()
        }
        scoped_clients = ScopedClients(**clients)
        for hospital in ("hosA", "hosB", "hosC"):
            response = await scoped_clients.free.post(
                HOSPITALS, json={"unique_id": hospital, "hospital_name": hospital}
            )
            assert response.status_code == 201
        for body in (
            patient_body("a", "hosA"),
            patient_body("b", "hosB"),
            patient_body("shared", "hosA", "hosB", "hosC"),
            patient_body("none"),
            patient_body("gone", "hosA"),
        ):
            assert (await scoped_clients.free.post(PATIENTS, json=body)).status_code == 201
        assert (await scoped_clients.free.delete(f"{PATIENTS}pat-gone/")).status_code == 204
        assert (await scoped_clients.free.post(PROFILES, json={"unique_id": "prof-free"})).status_code == 201
        yield scoped_clients


@pytest.fixture
async def deleted_records(scoped_clients: ScopedClients) -> None:
    """Add a deleted patient of B and a deleted profile."""
    assert (await scoped_clients.free.post(PATIENTS, json=patient_body("lost", "hosB"))).status_code == 201
    assert (await scoped_clients.free.delete(f"{PATIENTS}pat-lost/")).status_code == 204
    assert (await scoped_clients.free.post(PROFILES, json={"unique_id": "prof-retired"})).status_code == 201
    assert (await scoped_clients.free.delete(f"{PROFILES}prof-retired/")).status_code == 204
