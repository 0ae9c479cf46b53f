"""Two replicas with two workers each on one database give the same guarantees as a single process."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from itertools import cycle
from typing import Any

import asyncpg
import httpx
import pytest

from tests.patients.test_concurrency import PAIR_COUNT, VALID_PAIRS, pair_body, shown_pair
from tests.processes import (
    RawRequest,
    count_deadlocks,
    free_port,
    run_cli,
    running_cli,
    send_concurrently,
    wait_until_ready,
)
from tests.scaling.conftest import RetryingClient, send_until_served
from tests.support import ServiceProcess, eventually

pytestmark = pytest.mark.crowd

PATIENTS = "/patients/patients/"
Replicas = tuple[str, str]
Clients = tuple[httpx.AsyncClient, httpx.AsyncClient]


@pytest.fixture(scope="module")
async def shared_url(module_database_url: str) -> AsyncIterator[str]:
    """Create a database for the tests of this file, and at the end check its journal and that there was no deadlock."""
    yield module_database_url
    verified = run_cli("journal", "verify", DATABASE_URL=module_database_url)
    assert verified.returncode == 0, verified.stdout
    connection = await asyncpg.connect(module_database_url)
    assert await count_deadlocks(connection) == 0
    await connection.close()


@pytest.fixture(scope="module")
async def replicas(shared_url: str) -> AsyncIterator[Replicas]:
    """The URLs of two services on that database."""
    with ExitStack() as stack:
        urls = []
        for _ in range(2):
            port = free_port()
            serve = ("serve", "--port", str(port), "--workers", "2")
            process = stack.enter_context(running_cli(*serve, DATABASE_URL=shared_url))
            urls.append((process, f"http://127.0.0.1:{port}"))
        for process, url in urls:
            wait_until_ready(process, url)
        yield urls[0][1], urls[1][1]


@pytest.fixture
async def clients(replicas: Replicas) -> AsyncIterator[Clients]:
    """A client for each replica."""
    one, other = (RetryingClient(base_url=url, timeout=60) for url in replicas)
    async with one, other:
        yield one, other


async def create_patient(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    """Create a separate patient."""
    response = await client.post(PATIENTS, json={"patient_last_name": "Doe", **fields})
    assert response.status_code == 201
    return response


async def test_no_update_is_lost(clients: Clients) -> None:
    """If 20 clients increment a counter five times each, reading at one replica and writing at the other, it is 100."""
    path = (await create_patient(clients[0], patient_race="0")).headers["Location"]

    async def count(here: httpx.AsyncClient, there: httpx.AsyncClient) -> int:
        refused = 0
        for _ in range(5):
            while True:
                read = await here.get(path)
                body = {"patient_race": str(int(read.json()["patient_race"]) + 1)}
                response = await there.put(path, json=body, headers={"If-Match": read.headers["ETag"]})
                if response.status_code == 200:
                    break
                assert response.status_code == 412, response.text
                refused += 1
        return refused

    client_pairs = cycle([clients, clients[::-1]])
    refused = await asyncio.gather(*(count(*next(client_pairs)) for _ in range(20)))
    for client in clients:
        assert (await client.get(path)).json()["patient_race"] == "100"
    assert sum(refused) > 0, "the clients did not conflict"


async def test_one_tag_is_good_for_one_change(replicas: Replicas, clients: Clients) -> None:
    """Of 40 changes with the same tag, sent to both replicas concurrently, one succeeds and the others get a 412."""
    created = await create_patient(clients[0])
    path, tag = created.headers["Location"], created.headers["ETag"]
    calls = [RawRequest("PUT", path, {"patient_race": str(number)}, {"If-Match": tag}) for number in range(40)]
    responses = await send_until_served(replicas, calls)
    assert Counter(response.status for response in responses) == {200: 1, 412: 39}
    (winner,) = (response.json() for response in responses if response.status == 200)
    for client in clients:
        assert (await client.get(path)).json() == winner


async def test_an_idempotency_key_creates_one_patient_across_replicas(replicas: Replicas, clients: Clients) -> None:
    """A POST sent 20 times with one Idempotency-Key to both replicas creates one patient, and both replay it."""
    key = {"Idempotency-Key": secrets.token_hex(8)}
    body = {"patient_last_name": "Doe", "patient_profile": {"unique_id": f"prof-{key['Idempotency-Key']}"}}
    responses = await send_until_served(replicas, [RawRequest("POST", PATIENTS, body, key)] * 20)
    assert {response.status for response in responses} == {201}
    assert len({response.content for response in responses}) == 1
    assert sum("idempotency-replayed" not in response.headers for response in responses) == 1
    for client in clients:
        again = await client.post(PATIENTS, json=body, headers=key)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.content == responses[0].content


async def test_pages_continue_at_the_other_replica(replicas: Replicas, clients: Clients) -> None:
    """Each next page can be requested from the other replica, by GET and by POST, and no patient is skipped."""
    ids = {f"page{number}" for number in range(9)}
    made = [
        RawRequest("POST", PATIENTS, {"unique_id": unique_id, "patient_last_name": "Paged", "patient_race": "P"})
        for unique_id in ids
    ]
    assert {response.status for response in await send_until_served(replicas, made)} == {201}
    turns = cycle(clients)
    link = f"{PATIENTS}?patient_race=P&limit=2"
    listed = []
    while link:
        response = await next(turns).get(link)
        listed += [patient["unique_id"] for patient in response.json()]
        link = response.links.get("next", {}).get("url", "")
    assert listed == sorted(ids)
    body: dict[str, Any] = {"search": "paged"}
    found_ids = []
    while body:
        response = await next(turns).post(f"{PATIENTS}search/", json={**body, "limit": 2})
        assert response.status_code == 200
        found_ids += [patient["unique_id"] for patient in response.json()]
        cursor = response.headers.get("Next-Cursor")
        body = {"cursor": cursor} if cursor else {}
    assert sorted(found_ids) == sorted(ids)


async def test_concurrent_profile_upserts_at_both_replicas_succeed(replicas: Replicas) -> None:
    """Ten concurrent upserts of each of 20 new profiles at both replicas succeed and show what they sent."""
    calls = []
    for number in range(200):
        profile = {"unique_id": f"upserted{number % 20}", "first_name": f"Given by {number}"}
        calls.append(RawRequest("POST", PATIENTS, {"patient_last_name": "Doe", "patient_profile": profile}))
    responses = await send_until_served(replicas, calls)
    assert Counter(response.status for response in responses) == {201: 200}
    for call, response in zip(calls, responses, strict=True):
        assert call.body is not None
        assert response.json()["patient_profile"]["first_name"] == call.body["patient_profile"]["first_name"]


async def test_concurrent_link_replacements_at_both_replicas_are_atomic(replicas: Replicas, clients: Clients) -> None:
    """With 200 concurrent replacements of links at both replicas, each response and the final state were sent."""
    made = [
        RawRequest("POST", "/hospitals/hospitals/", {"unique_id": f"hos{n}", "hospital_name": "H"}) for n in range(9)
    ]
    made += [
        RawRequest("POST", "/doctors/doctors/", {"unique_id": f"doc{n}", "doctor_first_name": "D"}) for n in range(9)
    ]
    assert {response.status for response in await send_until_served(replicas, made)} == {201}
    path = (await create_patient(clients[0], **pair_body(0))).headers["Location"]
    responses = await send_until_served(
        replicas, [RawRequest("PUT", path, pair_body(number % PAIR_COUNT)) for number in range(200)]
    )
    assert Counter(response.status for response in responses) == {200: 200}
    for number, response in enumerate(responses):
        assert shown_pair(response.json()) == VALID_PAIRS[number % PAIR_COUNT]
    for client in clients:
        assert shown_pair((await client.get(path)).json()) in VALID_PAIRS


async def test_a_revoked_key_is_refused_at_both_replicas(shared_url: str) -> None:
    """A key works at both replicas as soon as it is created, and at neither ten seconds after it was revoked."""
    made = run_cli("keys", "create", "--name", "revoked", "--scope", "patients:read", DATABASE_URL=shared_url)
    headers = {"X-API-Key": made.stdout.strip()}
    with ExitStack() as stack:
        started = []
        for _ in range(2):
            port = free_port()
            serve = ("serve", "--port", str(port))
            environment = {"DATABASE_URL": shared_url, "PATIENTS_AUTH": "required"}
            started.append((stack.enter_context(running_cli(*serve, **environment)), f"http://127.0.0.1:{port}"))
        for process, url in started:
            wait_until_ready(process, url)
        urls = [url for _, url in started]

        def statuses() -> set[int]:
            return {httpx.get(f"{url}{PATIENTS}?limit=1", headers=headers).status_code for url in urls}

        assert statuses() == {200}
        assert run_cli("keys", "revoke", "revoked", DATABASE_URL=shared_url).returncode == 0
        eventually(lambda: statuses() == {401}, within_seconds=10)


async def test_log_lines_of_two_workers_are_not_interleaved(
    serve: Callable[..., ServiceProcess], database_url: str
) -> None:
    """Each worker writes a log line in one piece, even if output is not buffered, as in the container image."""
    served = serve("--workers", "2", DATABASE_URL=database_url, PYTHONUNBUFFERED="1")
    for _ in range(20):
        await send_concurrently(served.url, [RawRequest("POST", "/unknown")] * 100)
    served.process.terminate()
    await asyncio.to_thread(served.process.wait, 30)
    assert sum(line.get("method") == "POST" for line in served.log_entries()) == 2000
