"""A register of two hospitals, and principals that are limited to one of them, to both, or to none."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import httpx
import pytest

from app.auth.scopes import Scope
from tests.auth.support import HOSPITALS, PATIENTS, PROFILES, client_of, make_key, secured
from tests.journal.conftest import command, serving_url

__all__ = ["command", "serving_url"]

AUDIT = "/audit/"
SCOPES = tuple(scope for scope in Scope if scope not in {Scope.ADMIN, Scope.BREAK_GLASS})


class Register(NamedTuple):
    """Clients of one service."""

    a: httpx.AsyncClient
    """Limited to the hospital `hosA`."""
    b: httpx.AsyncClient
    """Limited to `hosB`."""
    both: httpx.AsyncClient
    """Limited to both."""
    free: httpx.AsyncClient
    """Not limited."""


def patient(name: str, *hospitals: str, **more: Any) -> dict[str, Any]:
    """A new patient with a profile, both named after `name`."""
    profile = {"unique_id": f"prof-{name}", "email": f"{name}@example.com"}
    body = {"unique_id": f"pat-{name}", "patient_last_name": name, "patient_profile": profile}
    return {**body, "hospital_ids": list(hospitals), **more}


@pytest.fixture
async def register(database_url: str) -> AsyncIterator[Register]:
    """Patients of A, B, several (`shared`) and no hospital (`none`), and one of A that is deleted (`gone`)."""
    limits: dict[str, list[str] | None] = {"a": ["hosA"], "b": ["hosB"], "both": ["hosA", "hosB"], "free": None}
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(secured(database_url, rate_limit="off"))
        clients = {
            name: await stack.enter_async_context(
                client_of(app, await make_key(database_url, *SCOPES, name=name, hospitals=hospitals))
            )
            for name, hospitals in limits.items()
        }
        register = Register(**clients)
        for hospital in ("hosA", "hosB", "hosC"):
            answer = await register.free.post(HOSPITALS, json={"unique_id": hospital, "hospital_name": hospital})
            assert answer.status_code == 201
        for body in (
            patient("a", "hosA"),
            patient("b", "hosB"),
            patient("shared", "hosA", "hosB", "hosC"),
            patient("none"),
            patient("gone", "hosA"),
        ):
            assert (await register.free.post(PATIENTS, json=body)).status_code == 201
        assert (await register.free.delete(f"{PATIENTS}pat-gone/")).status_code == 204
        assert (await register.free.post(PROFILES, json={"unique_id": "prof-free"})).status_code == 201
        yield register


@pytest.fixture
async def records(register: Register) -> None:
    """Besides the register's: a deleted patient of B, and a deleted profile."""
    assert (await register.free.post(PATIENTS, json=patient("lost", "hosB"))).status_code == 201
    assert (await register.free.delete(f"{PATIENTS}pat-lost/")).status_code == 204
    assert (await register.free.post(PROFILES, json={"unique_id": "prof-retired"})).status_code == 201
    assert (await register.free.delete(f"{PROFILES}prof-retired/")).status_code == 204
