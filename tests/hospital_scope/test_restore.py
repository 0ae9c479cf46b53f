"""Restoring patients whose links have changed since, partly outside the hospital scope."""

import pytest

from tests.auth.support import PATIENTS, PROFILES
from tests.hospital_scope.conftest import ScopedClients
from tests.hospital_scope.test_access_matrix import comparable_response


@pytest.mark.parametrize("deleted", [False, True])
async def test_restore_treats_a_hidden_profile_as_deleted(scoped_clients: ScopedClients, deleted: bool) -> None:  # noqa: FBT001
    """For a restore, a hidden profile is like a deleted one, and the patient can be restored without it."""
    one, other = f"{PATIENTS}pat-a/", f"{PATIENTS}pat-b/"
    for path, profile in ((one, {"unique_id": "prof-later"}), (other, {"unique_id": "prof-a", "email": "b@x.org"})):
        assert (await scoped_clients.free.put(path, json={"patient_profile": profile})).status_code == 200
    if deleted:
        assert (await scoped_clients.a.delete(one)).status_code == 204
    hidden = await scoped_clients.a.post(f"{one}restore/", json={"version": 1})
    assert (hidden.status_code, hidden.json()["errors"][0]["type"]) == (422, "missing_profile")
    restored = await scoped_clients.a.post(f"{one}restore/", json={"version": 1, "skip_missing": True})
    assert (restored.status_code, restored.json()["patient_profile"]) == (200, None)
    assert (await scoped_clients.free.put(other, json={"patient_profile": None})).status_code == 200
    assert (await scoped_clients.free.delete(f"{PROFILES}prof-a/")).status_code == 204
    assert comparable_response(
        await scoped_clients.a.post(f"{one}restore/", json={"version": 1})
    ) == comparable_response(hidden)


async def test_restore_of_an_existing_patient_keeps_its_other_hospitals(scoped_clients: ScopedClients) -> None:
    """A restore keeps the current hospitals outside the scope: it removes none and brings none back."""
    one = f"{PATIENTS}pat-shared/"
    assert (await scoped_clients.free.put(one, json={"hospital_ids": ["hosA", "hosB"]})).status_code == 200
    assert (await scoped_clients.free.put(one, json={"hospital_ids": ["hosA", "hosC"]})).status_code == 200
    restored = await scoped_clients.a.post(f"{one}restore/", json={"version": 2})
    assert restored.status_code == 200
    assert [hospital["unique_id"] for hospital in restored.json()["patient_hospital"]] == ["hosA", "hosC"]
