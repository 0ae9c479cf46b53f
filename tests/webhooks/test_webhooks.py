"""Webhooks: what endpoints get, in which order, what happens if they fail, and the commands."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from itertools import pairwise

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from app.webhooks import delivery, sending
from tests.auth.support import HOSPITALS, PATIENTS
from tests.changes.conftest import CHANGES
from tests.journal.conftest import Command, command
from tests.webhooks.receiver import Receiver, running_receiver

__all__ = ["command"]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def _short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "POLL_INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(delivery, "IDLE_RENEWAL_SECONDS", 0.1)
    monkeypatch.setattr(delivery, "RETRY_DELAYS_SECONDS", (0.01,) * 9)


async def until(condition: Callable[[], bool], within_seconds: float = 10) -> None:
    """Wait until a condition holds, while the application of this process works."""
    async with asyncio.timeout(within_seconds):
        while not condition():  # noqa: ASYNC110  # the conditions have no event
            await asyncio.sleep(0.01)


async def add(command: Command, receiver: Receiver, *options: str) -> tuple[str, str]:
    """Add the receiver as an endpoint, and return its id and its secret."""
    added = await command("webhooks", "add", receiver.url, "--allow-http", *options)
    assert added.status == 0, added.err
    lines = dict(line.split(": ") for line in added.out.splitlines())
    return lines["id"], lines["secret"]


async def until_state(connection: asyncpg.Connection, state: str) -> asyncpg.Record:
    """Wait until the only endpoint has a state, and return its row."""
    async with asyncio.timeout(10):
        while (row := await connection.fetchrow("SELECT * FROM webhooks WHERE state = $1", state)) is None:
            pass
    return row


async def create_hospitals(client: httpx.AsyncClient, *ids: str) -> None:
    for unique_id in ids:
        response = await client.post(HOSPITALS, json={"unique_id": unique_id, "hospital_name": "Clinic"})
        assert response.status_code == 201


def ids_of(receiver: Receiver) -> list[str]:
    return [request.content["data"]["unique_id"] for request in receiver.received]


async def test_messages_are_signed_thin_and_in_order(
    client: httpx.AsyncClient, command: Command, receiver: Receiver
) -> None:
    """An endpoint gets each change since it was added, in order, one at a time, with a signature that verifies."""
    await create_hospitals(client, "before")
    _, secret = await add(command, receiver)
    names = [f"hos{number:02}" for number in range(20)]
    await create_hospitals(client, *names)
    await until(lambda: len(receiver.received) == 20)
    messages = receiver.verify(secret)
    changes = (await client.get(CHANGES)).json()[1:]
    assert messages == [
        {
            "type": "hospital.created",
            "timestamp": change["time"],
            "data": {name: change[name] for name in ("resource", "unique_id", "version", "position")},
        }
        for change in changes
    ]
    assert ids_of(receiver) == names
    assert len({request.id for request in receiver.received}) == 20
    assert {request.concurrent for request in receiver.received} == {1}


async def test_events_and_hospitals_are_selected(
    client: httpx.AsyncClient, command: Command, receiver: Receiver
) -> None:
    """`--events` selects types, and `--hospital` restricts an endpoint like a key."""
    await create_hospitals(client, "hosA", "hosB")
    await add(command, receiver, "--events", "patient.*", "--hospital", "hosA")
    for unique_id, hospital in (("a", "hosA"), ("b", "hosB")):
        body = {"unique_id": unique_id, "patient_last_name": "Doe", "hospital_ids": [hospital]}
        assert (await client.post(PATIENTS, json=body)).status_code == 201
    await client.put(f"{PATIENTS}b/", json={"hospital_ids": ["hosA"]})
    await client.put(f"{PATIENTS}a/", json={"hospital_ids": ["hosB"]})
    await client.put(f"{HOSPITALS}hosB/", json={"hospital_name": "Renamed"})  # b no longer is there
    await client.put(f"{HOSPITALS}hosA/", json={"hospital_name": "Renamed"})
    await until(lambda: len(receiver.received) == 4)
    assert [(request.content["type"], request.content["data"]["unique_id"]) for request in receiver.received] == [
        ("patient.created", "a"), ("patient.entered", "b"), ("patient.left", "a"), ("patient.affected", None)
    ]  # fmt: skip
    data = receiver.received[3].content["data"]
    assert (data["patients"], data["position"]) == (["b"], None)


FAILURES: dict[str, str | None] = {
    "status_500": "500 Internal Server Error",
    "status_302": "302 Found\r\nLocation: /elsewhere",
    "status_429": "429 Too Many Requests\r\nRetry-After: 0",
    "timeout": None,
}


@pytest.mark.parametrize("error", FAILURES)
async def test_failures_are_retried_with_the_same_id(
    client: httpx.AsyncClient, command: Command, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    """A change that fails is sent again with the same id until it succeeds, and the next one only then."""
    monkeypatch.setattr(sending, "TIMEOUT_SECONDS", 0.3)
    _, secret = await add(command, receiver)
    receiver.respond = lambda _: FAILURES[error] if len(receiver.received) <= 3 else "200 OK"
    await create_hospitals(client, "first", "second")
    await until(lambda: len(receiver.received) == 5)
    assert ids_of(receiver) == ["first"] * 4 + ["second"]
    assert len({request.id for request in receiver.received}) == 2
    assert len(receiver.verify(secret)) == 5


async def test_an_endpoint_that_never_accepts_stops_and_keeps_its_position(
    client: httpx.AsyncClient, command: Command, receiver: Receiver, connection: asyncpg.Connection
) -> None:
    """After ten attempts, nothing more is sent until an operator resumes the endpoint, and then nothing is lost."""
    unique_id, _ = await add(command, receiver)
    receiver.respond = lambda _: "503 Service Unavailable"
    await create_hospitals(client, "first", "second")
    await until(lambda: len(receiver.received) == 10)
    endpoint = await until_state(connection, "failed")
    assert (endpoint["failures"], endpoint["last_error"]) == (10, "status_503")
    receiver.respond = lambda _: "200 OK"
    assert (await command("webhooks", "resume", unique_id)).status == 0
    await until(lambda: len(receiver.received) == 12)
    assert ids_of(receiver) == ["first"] * 11 + ["second"]
    text = (await client.get("/metrics")).text
    assert f'webhook_attempts_total{{outcome="failed",webhook="{unique_id}"}} 10.0' in text


async def test_gone_disables_and_retry_after_delays(
    client: httpx.AsyncClient, command: Command, receiver: Receiver, connection: asyncpg.Connection
) -> None:
    """An endpoint that asks for time gets it, and one that says 410 gets nothing more."""
    unique_id, _ = await add(command, receiver)
    receiver.respond = lambda _: "429 Too Many Requests\r\nRetry-After: 1000"
    await create_hospitals(client, "first")
    await until(lambda: len(receiver.received) == 1)
    delay = "SELECT extract(epoch FROM next_attempt - now()) FROM webhooks WHERE failures = 1"
    while (seconds := await connection.fetchval(delay)) is None:
        pass
    assert 990 < seconds < 1210
    receiver.respond = lambda _: "410 Gone"
    await command("webhooks", "resume", unique_id)
    await until_state(connection, "gone")
    assert len(receiver.received) == 2


async def test_a_wait_that_is_no_time_is_a_failure_like_others(
    client: httpx.AsyncClient, command: Command, receiver: Receiver, connection: asyncpg.Connection
) -> None:
    """A `Retry-After` with an impossible time zone does not stop the endpoint from being retried and stopped."""
    await add(command, receiver)
    date = "Mon, 01 Jan 2026 00:00:00 +999999999999999999"
    receiver.respond = lambda _: f"503 Service Unavailable\r\nRetry-After: {date}"
    await create_hospitals(client, "first")
    assert (await until_state(connection, "failed"))["failures"] == len(receiver.received) == 10


async def test_the_head_of_the_response_accepts_a_message(
    client: httpx.AsyncClient, command: Command, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message is accepted by a 2xx, also if the body of the response never arrives."""
    monkeypatch.setattr(sending, "DISCARD_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(sending, "TIMEOUT_SECONDS", 0.5)
    await add(command, receiver)
    receiver.respond = lambda _: "200 OK\r\nContent-Length: 10"
    await create_hospitals(client, "first", "second")
    await until(lambda: len(receiver.received) >= 2)
    assert ids_of(receiver) == ["first", "second"]


async def test_endpoints_get_no_cookies(client: httpx.AsyncClient, command: Command, receiver: Receiver) -> None:
    """A cookie that a receiver sets is not sent, neither to it nor to other endpoints of its host."""
    await add(command, receiver)
    receiver.respond = lambda _: "200 OK\r\nSet-Cookie: a=b; Path=/"
    await create_hospitals(client, "first", "second")
    await until(lambda: len(receiver.received) == 2)
    assert [request.headers.get("cookie") for request in receiver.received] == [None, None]


async def test_no_request_is_made_while_paused(client: httpx.AsyncClient, command: Command, receiver: Receiver) -> None:
    """When `pause` returns, nothing is being sent and nothing will be, and `resume` continues without a loss."""
    unique_id, _ = await add(command, receiver)
    writer = asyncio.create_task(create_hospitals(client, *[f"hos{number:02}" for number in range(60)]))
    await until(lambda: len(receiver.received) >= 5)
    assert (await command("webhooks", "pause", unique_id)).status == 0
    received = len(receiver.received)
    await writer
    await asyncio.sleep(0.3)  # several intervals
    assert len(receiver.received) == received
    await command("webhooks", "resume", unique_id)
    await until(lambda: len(receiver.received) == 60)
    assert ids_of(receiver) == [f"hos{number:02}" for number in range(60)]


async def test_secrets_rotate_without_a_loss(client: httpx.AsyncClient, command: Command, receiver: Receiver) -> None:
    """After a rotation, messages verify with the new and the previous secret, and never with older ones."""
    unique_id, first = await add(command, receiver)
    second = (await command("webhooks", "rotate", unique_id)).out.removeprefix("secret: ").strip()
    await create_hospitals(client, "both")
    await until(lambda: len(receiver.received) == 1)
    assert receiver.verify(first) == receiver.verify(second)
    refused = await command("webhooks", "rotate", unique_id)
    assert (refused.status, "--drop-previous" in refused.err) == (1, True)
    third = (await command("webhooks", "rotate", unique_id, "--drop-previous")).out.removeprefix("secret: ").strip()
    await asyncio.sleep(0.2)  # until the holder has renewed its lease
    receiver.received.clear()
    await create_hospitals(client, "new")
    await until(lambda: len(receiver.received) == 1)
    assert receiver.verify(third) == receiver.verify(second)  # which the receiver has until it gets the third
    with pytest.raises(Exception, match="No matching signature"):
        receiver.verify(first)


async def test_changes_are_replayed_from_a_cursor(
    client: httpx.AsyncClient, command: Command, receiver: Receiver
) -> None:
    """`replay` sends what follows a cursor again, with the ids that it had before."""
    cursor = (await client.get(CHANGES)).headers["Next-Cursor"]
    unique_id, _ = await add(command, receiver)
    await create_hospitals(client, "first", "second")
    await until(lambda: len(receiver.received) == 2)
    assert (await command("webhooks", "replay", unique_id, "--after", cursor)).status == 0
    await until(lambda: len(receiver.received) == 4)
    first, second, *again = [request.id for request in receiver.received]
    assert again == [first, second]
    assert (await command("webhooks", "replay", unique_id, "--after", "now")).status == 0
    wrong = await command("webhooks", "replay", unique_id, "--after", "nonsense")
    assert (wrong.status, "not a cursor" in wrong.err) == (1, True)


async def test_two_processes_never_deliver_at_the_same_time(
    database_url: str, command: Command, receiver: Receiver
) -> None:
    """Exactly one of several processes delivers, another takes over when it ends, and nothing is lost or repeated."""
    await add(command, receiver)
    async with AsyncExitStack() as stack:
        apps: list[FastAPI] = []
        clients = []
        for _ in range(3):
            app = create_app(Settings.model_validate({"database_url": database_url, "auth": "off"}))
            apps.append(app)
            await stack.enter_async_context(app.router.lifespan_context(app))
            clients.append(httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://patients.test"))
        for round_ in range(3):
            await create_hospitals(clients[round_], *[f"hos{round_}{number:02}" for number in range(20)])
            await until(lambda: len(set(ids_of(receiver))) == 20 * (round_ + 1))  # noqa: B023  # used at once
            apps[round_].state.services.is_stopping = True  # it stops delivering
    assert Counter(ids_of(receiver)).most_common(1)[0][1] == 1
    assert all(a < b for a, b in pairwise(ids_of(receiver)))
    assert {request.concurrent for request in receiver.received} == {1}


async def test_expired_changes_stop_the_endpoint(
    client: httpx.AsyncClient, command: Command, receiver: Receiver, connection: asyncpg.Connection
) -> None:
    """If changes after its position are no longer kept, an endpoint stops, instead of leaving them out."""
    unique_id, _ = await add(command, receiver)
    assert (await command("webhooks", "pause", unique_id)).status == 0
    await create_hospitals(client, "first", "second")
    await client.get(CHANGES)
    await connection.execute("DELETE FROM changes WHERE position < 2")
    await command("webhooks", "resume", unique_id)
    await until_state(connection, "expired")
    assert receiver.received == []
    assert (await command("webhooks", "replay", unique_id, "--after", "now")).status == 0
    await create_hospitals(client, "third")
    await until(lambda: ids_of(receiver) == ["third"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["http://receiver.example.org/"], "must begin with https://"),
        (["ftp://receiver.example.org/"], "must begin with https://"),
        (["https://user:pass@receiver.example.org/"], "no user name"),
        (["https://receiver.example.org/ hooks"], "no spaces"),
        (["https://receiver.example.org/", "--hospital", "hos9", "--events", "hospital.*"], "never matches hospital.*"),
        (["https://receiver.example.org:port/"], "not a URL"),
        (["https://receiver.example.org/", "--events", "patient.crated"], "No event matches patient.crated"),
        (["https://receiver.example.org/", "--hospital", "hos9"], "There is no hospital hos9, so no webhook was added"),
    ],
)
async def test_wrong_endpoints_are_refused(command: Command, arguments: list[str], message: str) -> None:
    """A URL, an event or a hospital that cannot be right is refused with what to change, and nothing is stored."""
    refused = await command("webhooks", "add", *arguments)
    assert (refused.status, message in refused.err) == (1, True), refused.err
    assert json.loads((await command("webhooks", "list", "--json")).out) == []


async def test_endpoints_are_listed_tested_and_removed(
    command: Command, receiver: Receiver, connection: asyncpg.Connection
) -> None:
    """`list` shows no secrets and counts changes that nobody has read, `test` sends a message, `remove` forgets all."""
    insert = (
        "INSERT INTO journal (resource, unique_id, version, action, actor, record) "
        "SELECT 'doctors', $1 || i, 1, 'created', 'local', '{}' FROM generate_series(1, $2) i"
    )
    await connection.execute(insert, "before-", 25_000)
    unique_id, secret = await add(command, receiver, "--events", "patient.*", "doctor.created")
    await connection.execute(insert, "after-", 1)
    table = (await command("webhooks", "list")).out
    assert unique_id in table
    assert "patient.* doctor.created" in table
    (endpoint,) = json.loads((await command("webhooks", "list", "--json")).out)
    assert (endpoint["unique_id"], endpoint["state"], endpoint["behind"]) == (unique_id, "active", 1)
    assert secret not in f"{table} {endpoint}"
    assert "token=1" not in f"{table} {endpoint}"
    assert endpoint["url"] == receiver.url.replace("token=1", "…")
    assert not {"secret", "previous_secret"} & endpoint.keys()
    sent = await command("webhooks", "test", unique_id)
    assert (sent.status, sent.out) == (0, "Delivered.\n")
    assert [message["type"] for message in receiver.verify(secret)] == ["webhook.test"]
    receiver.respond = lambda _: "500 Internal Server Error"
    failed = await command("webhooks", "test", unique_id)
    assert (failed.status, failed.out) == (1, "Failed: status_500\n")
    assert (await command("webhooks", "remove", unique_id)).status == 0
    for action in ("pause", "resume", "rotate", "test", "remove"):
        unknown = await command("webhooks", action, unique_id)
        assert (unknown.status, "There is no webhook with this id" in unknown.err) == (1, True)


async def test_a_restored_dump_sends_nothing(
    client: httpx.AsyncClient, command: Command, receiver: Receiver, connection: asyncpg.Connection
) -> None:
    """In a restored dump, such as a copy for tests, endpoints stop before anything is sent to the real receivers."""
    unique_id, _ = await add(command, receiver)
    assert (await command("webhooks", "pause", unique_id)).status == 0
    await create_hospitals(client, "first")
    await client.get(CHANGES)
    await connection.execute(  # like a restore, which creates new tables with the same rows
        "CREATE TABLE restored (LIKE changes INCLUDING ALL); INSERT INTO restored SELECT * FROM changes;"
        "DROP TABLE changes; ALTER TABLE restored RENAME TO changes"
    )
    await command("webhooks", "resume", unique_id)
    await until_state(connection, "expired")
    assert receiver.received == []


async def test_paused_and_removed_endpoints_do_not_alert(
    client: httpx.AsyncClient, command: Command, receiver: Receiver, connection: asyncpg.Connection
) -> None:
    """The metrics that alerts use are 0 for an endpoint that an operator has paused or removed."""
    unique_id, _ = await add(command, receiver)

    async def until_metric(name: str, is_expected: Callable[[float], bool]) -> None:
        async with asyncio.timeout(10):
            while not any(  # noqa: ASYNC110  # metrics have no event
                is_expected(float(line.split()[1]))
                for line in (await client.get("/metrics")).text.splitlines()
                if line.startswith(f'{name}{{webhook="{unique_id}"}}')
            ):
                await asyncio.sleep(0.02)

    receiver.respond = lambda _: "410 Gone"
    await create_hospitals(client, "first")
    await until_state(connection, "gone")
    await until_metric("webhook_stopped", lambda value: value == 1)
    await until_metric("webhook_lag_seconds", lambda value: value > 0)
    await command("webhooks", "pause", unique_id)
    await until_metric("webhook_stopped", lambda value: value == 0)
    await until_metric("webhook_lag_seconds", lambda value: value == 0)
    await until_metric("webhook_lag_changes", lambda value: value == 1)
    await command("webhooks", "remove", unique_id)
    await until_metric("webhook_lag_changes", lambda value: value == 0)
