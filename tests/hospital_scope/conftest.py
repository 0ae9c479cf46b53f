"""Patients of two hospitals, and principals that are restricted to one of them, to both, or to none."""

import pytest

from tests.auth.support import PATIENTS, PROFILES
from tests.journal.conftest import command, serving_url
from tests.scoped_clients import AUDIT_PATH, REGULAR_SCOPES, ScopedClients, patient_body, scoped_clients

__all__ = [
    "AUDIT_PATH",
    "REGULAR_SCOPES",
    "ScopedClients",
    "command",
    "patient_body",
    "scoped_clients",
    "serving_url",
]


@pytest.fixture
async def deleted_records(scoped_clients: ScopedClients) -> None:
    """Add a deleted patient of B and a deleted profile."""
    assert (await scoped_clients.free.post(PATIENTS, json=patient_body("lost", "hosB"))).status_code == 201
    assert (await scoped_clients.free.delete(f"{PATIENTS}pat-lost/")).status_code == 204
    assert (await scoped_clients.free.post(PROFILES, json={"unique_id": "prof-retired"})).status_code == 201
    assert (await scoped_clients.free.delete(f"{PROFILES}prof-retired/")).status_code == 204
