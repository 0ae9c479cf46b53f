"""Concurrent reads share statements, and each has the result that it would have alone."""

import asyncio

import httpx

from tests.auth.support import PATIENTS
from tests.hospital_scope.conftest import ScopedClients
from tests.support import recorded_statements

PATIENT_IDS = ("pat-a", "pat-b", "pat-shared", "pat-none", "pat-gone", "pat-never")
VISIBLE_IDS = {
    "a": {"pat-a", "pat-shared"},
    "b": {"pat-b", "pat-shared"},
    "both": {"pat-a", "pat-b", "pat-shared"},
    "free": {"pat-a", "pat-b", "pat-shared", "pat-none"},
}


def listed_ids(response: httpx.Response) -> set[str]:
    assert response.status_code == 200
    return {patient["unique_id"] for patient in response.json()}


async def test_batched_reads_keep_each_principals_scope(scoped_clients: ScopedClients) -> None:
    """Concurrent reads of a patient or a page by principals with different scopes return what each may see."""
    clients: list[tuple[str, httpx.AsyncClient]] = [(name, getattr(scoped_clients, name)) for name in VISIBLE_IDS] * 5
    for unique_id in PATIENT_IDS:
        responses = await asyncio.gather(*(client.get(f"{PATIENTS}{unique_id}/") for _, client in clients))
        for (name, _), response in zip(clients, responses, strict=True):
            assert response.status_code == (200 if unique_id in VISIBLE_IDS[name] else 404), (name, unique_id)
    for path in (f"{PATIENTS}?limit=10", PATIENTS):
        responses = await asyncio.gather(*(client.get(path) for _, client in clients))
        assert [listed_ids(response) for response in responses] == [VISIBLE_IDS[name] for name, _ in clients]


async def test_concurrent_reads_share_statements(scoped_clients: ScopedClients) -> None:
    """20 requests for patients and 20 for a page take fewer than half as many statements."""
    await scoped_clients.free.get(PATIENTS)  # so that the key is cached
    paths = [f"{PATIENTS}{unique_id}/" for unique_id in PATIENT_IDS[:4] * 5] + [f"{PATIENTS}?limit=2"] * 20
    with recorded_statements() as sent:
        responses = await asyncio.gather(*(scoped_clients.free.get(path) for path in paths))
    assert {response.status_code for response in responses} == {200}
    for unique_id, response in zip(PATIENT_IDS[:4] * 5, responses, strict=False):
        assert response.json()["unique_id"] == unique_id
    assert 2 <= len([text for text, _ in sent if "patients" in text]) < 20


async def test_writers_read_their_own_change_among_batched_reads(scoped_clients: ScopedClients) -> None:
    """A client reads its own change of a patient while others read the same patient and page all the time."""
    done = asyncio.Event()

    async def keep_reading(path: str) -> None:
        while not done.is_set():
            await scoped_clients.both.get(path)
            await scoped_clients.free.get(path)

    one, page = f"{PATIENTS}pat-shared/", f"{PATIENTS}?limit=5"
    others = [asyncio.create_task(keep_reading(path)) for path in (one, page) * 3]
    for number in range(30):
        changed = await scoped_clients.free.put(one, json={"patient_race": str(number)})
        assert changed.status_code == 200
        assert (await scoped_clients.both.get(one)).json() == changed.json()
        assert changed.json() in (await scoped_clients.free.get(page)).json()
    done.set()
    await asyncio.gather(*others)
