"""Restoring what was linked to a profile that has gone across the wall since."""

import pytest

from tests.auth.support import PATIENTS, PROFILES
from tests.walls.conftest import Register
from tests.walls.test_matrix import told


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_profile_that_is_hidden_now_is_gone(register: Register, deleted: bool) -> None:  # noqa: FBT001
    """To who restores, it is as if it had been deleted; the patient is restored without."""
    one, other = f"{PATIENTS}pat-a/", f"{PATIENTS}pat-b/"
    for path, profile in ((one, {"unique_id": "prof-later"}), (other, {"unique_id": "prof-a", "email": "b@x.org"})):
        assert (await register.free.put(path, json={"patient_profile": profile})).status_code == 200
    if deleted:
        assert (await register.a.delete(one)).status_code == 204
    hidden = await register.a.post(f"{one}restore/", json={"version": 1})
    assert (hidden.status_code, hidden.json()["errors"][0]["type"]) == (422, "missing_profile")
    restored = await register.a.post(f"{one}restore/", json={"version": 1, "skip_missing": True})
    assert (restored.status_code, restored.json()["patient_profile"]) == (200, None)
    assert (await register.free.put(other, json={"patient_profile": None})).status_code == 200
    assert (await register.free.delete(f"{PROFILES}prof-a/")).status_code == 204
    assert told(await register.a.post(f"{one}restore/", json={"version": 1})) == told(hidden)


async def test_restoring_a_patient_that_is_there_leaves_its_other_hospitals(register: Register) -> None:
    """Those of today, not those of then: neither is one taken away nor brought back."""
    one = f"{PATIENTS}pat-shared/"
    assert (await register.free.put(one, json={"hospital_ids": ["hosA", "hosB"]})).status_code == 200
    assert (await register.free.put(one, json={"hospital_ids": ["hosA", "hosC"]})).status_code == 200
    restored = await register.a.post(f"{one}restore/", json={"version": 2})
    assert restored.status_code == 200
    assert [hospital["unique_id"] for hospital in restored.json()["patient_hospital"]] == ["hosA", "hosC"]
