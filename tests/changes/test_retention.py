"""How long the feed keeps changes, and what an erasure leaves in it."""

import asyncpg
import httpx
import pytest

from app.changes import retention
from app.changes.retention import maintain_changes
from app.db.database import Database
from tests.auth.support import HOSPITALS, PATIENTS
from tests.changes.conftest import CHANGES, Follower, summary
from tests.hospital_scope.conftest import ScopedClients, scoped_clients
from tests.journal.conftest import Command, command

__all__ = ["command", "scoped_clients"]


async def maintain(database_url: str, *, days: int = 30, count: int = 1000) -> None:
    async with Database(database_url, pool_size=1) as database:
        await maintain_changes(database, days, count)


async def create_hospitals(client: httpx.AsyncClient, *ids: str) -> None:
    for unique_id in ids:
        response = await client.post(HOSPITALS, json={"unique_id": unique_id, "hospital_name": "Clinic"})
        assert response.status_code == 201


async def test_old_changes_expire_from_the_beginning(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes are deleted from the oldest up to the first that is kept, and a cursor before that is a 410."""
    monkeypatch.setattr(retention, "MAX_BATCHES_PER_RUN", 10)
    follower = Follower(client)
    cursors = []
    for unique_id in ("a", "b", "c", "d"):
        await create_hospitals(client, unique_id)
        await follower.read()
        cursors.append(follower.cursor)
    await connection.execute("UPDATE changes SET time = time - interval '31 days' WHERE position IN (0, 1, 2, 4)")
    await maintain(database_url)
    assert [change["unique_id"] for change in await Follower(client).read()] == ["c", "d"]
    statuses = [(await client.get(CHANGES, params={"after": cursor})).status_code for cursor in cursors]
    assert statuses == [410, 410, 200, 200]
    await maintain(database_url, count=1)
    assert [change["unique_id"] for change in await Follower(client).read()] == ["d"]


async def test_the_newest_change_never_expires(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str
) -> None:
    """A client that is up to date can go on, however long nothing has changed."""
    await create_hospitals(client, "a", "b")
    follower = Follower(client)
    await follower.read()
    await connection.execute("UPDATE changes SET time = time - interval '1 year'")
    await maintain(database_url)
    await create_hospitals(client, "c")
    assert summary(await follower.read()) == [("created", "hospitals", "c", 1)]


async def test_changes_are_numbered_if_nobody_reads(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str
) -> None:
    """The maintenance numbers what is pending, and deletes what expired of the hospitals' changes as well."""
    await create_hospitals(client, "a")
    body = {"unique_id": "pat", "patient_last_name": "Doe", "hospital_ids": ["a"]}
    assert (await client.post(PATIENTS, json=body)).status_code == 201
    await maintain(database_url)
    counts = "SELECT (SELECT count(*) FROM changes_pending), (SELECT count(*) FROM hospital_changes)"
    assert tuple(await connection.fetchrow(counts)) == (0, 1)
    await create_hospitals(client, "b")
    await maintain(database_url, count=1)
    assert tuple(await connection.fetchrow(counts)) == (0, 0)


async def test_an_erasure_reaches_every_copy(
    scoped_clients: ScopedClients, connection: asyncpg.Connection, command: Command
) -> None:
    """Everybody who could see the patient gets `erased` with its id, which no other change has any more."""
    followers = {name: Follower(client) for name, client in scoped_clients._asdict().items()}
    for follower in followers.values():
        await follower.read_all()
    await scoped_clients.free.put(f"{PATIENTS}pat-a/", json={"patient_last_name": "Unread"})
    erased = await command("erase", "patient", "pat-a", "--reason", "asked for it", "--yes")
    assert erased.status == 0, erased.err
    gets = {name: [(c["action"], c["unique_id"]) for c in await f.read_all()] for name, f in followers.items()}
    own = [("erased", "pat-a")]
    assert gets == {"a": own, "b": [], "both": own, "free": [*own, ("erased", "prof-a")]}
    assert await connection.fetchval("SELECT count(*) FROM changes WHERE unique_id IN ('pat-a', 'prof-a')") == 2
    restarted = [change for change in await Follower(scoped_clients.a).read_all() if change["unique_id"] == "pat-a"]
    assert [change["action"] for change in restarted] == ["erased"]


@pytest.mark.parametrize("state", ["numbered", "pending"])
@pytest.mark.parametrize("way", ["moved", "restored elsewhere"])
async def test_an_erasure_does_not_withdraw_what_took_the_patient_away(
    scoped_clients: ScopedClients, command: Command, way: str, state: str
) -> None:
    """A client that has not read yet that a patient has left its hospitals still gets this after the erasure."""
    free = scoped_clients.free
    followers = {name: Follower(client) for name, client in scoped_clients._asdict().items()}
    if way == "restored elsewhere":
        await free.put(f"{PATIENTS}pat-a/", json={"hospital_ids": ["hosB"]})
        await free.put(f"{PATIENTS}pat-a/", json={"hospital_ids": ["hosA"]})
    for follower in followers.values():
        await follower.read_all()
    if way == "moved":
        await free.put(f"{PATIENTS}pat-a/", json={"hospital_ids": ["hosB"]})
    else:
        await free.delete(f"{PATIENTS}pat-a/")
        await free.post(f"{PATIENTS}pat-a/restore/", json={"version": 2})
    if state == "numbered":
        await free.get(CHANGES)
    erased = await command("erase", "patient", "pat-a", "--reason", "asked for it", "--yes")
    assert erased.status == 0, erased.err
    gets = {name: [(c["action"], c["unique_id"]) for c in await f.read_all()] for name, f in followers.items()}
    assert gets["a"] == [("left" if way == "moved" else "deleted", "pat-a")]
    assert gets["b"] == [("erased", "pat-a")]
    assert gets["both"][-1] == gets["free"][-2] == ("erased", "pat-a")
