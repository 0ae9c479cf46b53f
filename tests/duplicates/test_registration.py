"""The check while registering: `Duplicate-Check`, `not_duplicates` and the setting."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from tests.duplicates.support import AGAIN, PATIENTS, THANDI, TWIN, queue, register
from tests.hospital_scope.conftest import ScopedClients

REFUSE = {"Duplicate-Check": "refuse"}


async def test_a_probable_duplicate_is_refused_with_ids_and_grades(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """The response is 409 with the patients, and nothing is stored."""
    await register(client, "thandi", **THANDI)
    response = await client.post(PATIENTS, json=AGAIN, headers=REFUSE)
    assert response.status_code == 409
    problem = response.json()
    assert problem["duplicates"] == [{"unique_id": "thandi", "grade": "certain"}]
    assert [error["type"] for error in problem["errors"]] == ["possible_duplicate"]
    assert await connection.fetchval("SELECT count(*) FROM patients") == 1
    assert (await client.post(PATIENTS, json=TWIN, headers=REFUSE)).status_code == 201


async def test_not_duplicates_registers_all_the_same_and_is_remembered(client: httpx.AsyncClient) -> None:
    """The decision is stored with the patient: the pair is dismissed and does not enter the queue."""
    await register(client, "thandi", **THANDI)
    body = {**AGAIN, "unique_id": "other", "not_duplicates": ["thandi"]}
    response = await client.post(PATIENTS, json=body, headers=REFUSE)
    assert response.status_code == 201
    assert "not_duplicates" not in response.json()
    assert await queue(client) == []
    assert [entry["patients"] for entry in await queue(client, status="dismissed")] == [["other", "thandi"]]


async def test_not_duplicates_must_be_visible_patients(scoped_clients: ScopedClients) -> None:
    """Ids of no patient, or of patients of other hospitals, are refused alike."""
    await register(scoped_clients.free, "at-b", **THANDI, hospital_ids=["hosB"])
    body = {**AGAIN, "hospital_ids": ["hosA"], "not_duplicates": ["at-b", "nobody"]}
    response = await scoped_clients.a.post(PATIENTS, json=body)
    assert response.status_code == 422
    errors = response.json()["errors"]
    assert [(error["loc"], error["type"]) for error in errors] == [
        (["body", "not_duplicates", index], "unknown_patient") for index in (0, 1)
    ]
    assert len({error["msg"] for error in errors}) == 1


async def test_the_patients_of_a_refusal_are_in_their_access_reports(scoped_clients: ScopedClients) -> None:
    """A refusal lists patients that may be the person. Their access reports show it; their records do not change."""
    await register(scoped_clients.free, "thandi", **THANDI, hospital_ids=["hosA"])
    body = {**AGAIN, "hospital_ids": ["hosA"]}
    assert (await scoped_clients.a.post(PATIENTS, json=body, headers=REFUSE)).status_code == 409
    entries = (await scoped_clients.free.get(f"{PATIENTS}thandi/access/")).json()
    assert [(entry["principal"], entry["action"]) for entry in entries] == [
        ("key:a", "listed"),
        ("key:free", "created"),
    ]
    assert entries[0]["description"] == "Saw the record among those that may be of a person to register"


async def test_a_taken_id_is_no_possible_duplicate(client: httpx.AsyncClient) -> None:
    """A request that is sent twice without an Idempotency-Key gets an error about its id, and no patients."""
    await register(client, "thandi", **THANDI)
    response = await client.post(PATIENTS, json={**THANDI, "unique_id": "thandi"}, headers=REFUSE)
    assert response.status_code == 409
    assert "duplicates" not in response.json()


async def test_the_check_knows_only_visible_patients(scoped_clients: ScopedClients) -> None:
    """A restricted principal is not refused because of a patient of another hospital, but the pair is queued."""
    await register(scoped_clients.free, "at-b", **THANDI, hospital_ids=["hosB"])
    body = {**AGAIN, "hospital_ids": ["hosA"]}
    assert (await scoped_clients.a.post(PATIENTS, json=body, headers=REFUSE)).status_code == 201
    assert (await scoped_clients.free.post(PATIENTS, json=body, headers=REFUSE)).status_code == 409
    assert len(await queue(scoped_clients.free)) == 1
    assert await queue(scoped_clients.a) == []


async def test_a_repeated_request_is_no_duplicate_of_itself(client: httpx.AsyncClient) -> None:
    """A request that is repeated with its Idempotency-Key gets its first response."""
    headers = {**REFUSE, "Idempotency-Key": "once"}
    first = await client.post(PATIENTS, json=THANDI, headers=headers)
    again = await client.post(PATIENTS, json=THANDI, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"


async def test_other_values_of_the_header_are_refused(client: httpx.AsyncClient) -> None:
    """A mistyped header is not ignored."""
    response = await client.post(PATIENTS, json=THANDI, headers={"Duplicate-Check": "refused"})
    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["header", "Duplicate-Check"]


@pytest.fixture
async def refusing_client(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a service that refuses duplicates by default."""
    app = create_app(Settings(database_url=database_url, auth="off", duplicate_check="refuse"))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://patients.test") as client:
            yield client


async def test_the_setting_is_the_default_and_the_header_takes_precedence(refusing_client: httpx.AsyncClient) -> None:
    """With PATIENTS_DUPLICATE_CHECK=refuse, a request without the header is refused, and one with `queue` is not."""
    await register(refusing_client, "thandi", **THANDI)
    assert (await refusing_client.post(PATIENTS, json=AGAIN)).status_code == 409
    assert (await refusing_client.post(PATIENTS, json=AGAIN, headers={"Duplicate-Check": "queue"})).status_code == 201
