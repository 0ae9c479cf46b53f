"""The service through PgBouncer in transaction mode, with fewer sessions than it has connections."""

import asyncio
import itertools
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from app.db.connecting import SESSION
from tests.conftest import free_port
from tests.documents import commands
from tests.http.test_hangups import await_nobody_blocked, begin, hang_up, put
from tests.processes import Call, at_once, await_blocked, run_command
from tests.scaling.conftest import SESSIONS, Behind, Patient
from tests.support import KINDS, Kind, Served, eventually

pytestmark = pytest.mark.alone

PATIENTS = "/patients/patients/"
IGNORED = "jit, random_page_cost, plan_cache_mode, lock_timeout, statement_timeout, idle_in_transaction_session_timeout"
Serve = Callable[..., Served]


def serve_through(serve: Serve, url: str) -> Served:
    """The service in two processes of five connections each."""
    return serve("--workers", "2", DATABASE_URL=url, PATIENTS_POOL_SIZE="5")


async def live(client: httpx.AsyncClient, kind: Kind, number: int) -> None:
    """Take a record through all that can be done with it; each answer is about this record, as it is then."""
    one = f"{kind.path}own{number}/"
    key = {"Idempotency-Key": f"{kind.name}-{number}"}
    body = {**kind.least, "unique_id": f"own{number}"}
    created = await client.post(kind.path, json=body, headers=key)
    assert created.status_code == 201, created.text
    again = await client.post(kind.path, json=body, headers=key)
    assert (again.status_code, again.content) == (201, created.content)
    changed = await client.put(one, json=kind.change, headers={"If-Match": created.headers["ETag"]})
    assert changed.status_code == 200, changed.text
    assert (await client.patch(one, json=kind.least, headers={"If-Match": '"stale"'})).status_code == 412
    assert (await client.get(one)).json() == changed.json()
    assert f"own{number}" in {record["unique_id"] for record in (await client.get(kind.path)).json()}
    page = await client.get(f"{kind.path}?limit=2&count=exact")
    assert (page.status_code, len(page.json())) in {(200, 1), (200, 2)}
    history = (await client.get(f"{one}history/")).json()
    assert [(entry["version"], entry["action"]) for entry in history] == [(2, "updated"), (1, "created")]
    assert (await client.delete(one)).status_code == 204
    assert (await client.get(one)).status_code == 404
    restored = await client.post(f"{one}restore/", json={"version": 1})
    assert (restored.status_code, restored.json()["unique_id"]) == (200, f"own{number}")


async def search(client: httpx.AsyncClient, number: int) -> None:
    """Find a patient by a name with a typing error, in pages."""
    name = "".join(chr(ord("a") + int(digit)) for digit in f"{number:06}") + "son"
    body = {"patient_last_name": f"Quill{name}", "patient_town": "Soweto"}
    created = (await client.post(PATIENTS, json=body)).json()
    for wanted in ({"search": f"quil{name}"}, {"patient_last_name": f"QUILL{name}", "ordering": "-date_created"}):
        found = await client.post(f"{PATIENTS}search/", json={**wanted, "limit": 5})
        assert (found.status_code, found.json()[0]) == (200, created)


async def test_everything_works(serve: Serve, behind: Behind, connection: asyncpg.Connection) -> None:
    """30 clients at once, each of whom does everything, on ten connections over two sessions: nothing goes wrong, and
    the journal agrees in the end.
    """
    with behind.pooler() as url:
        served = serve_through(serve, url)
        async with Patient(base_url=served.url, timeout=60) as client:
            lives = [live(client, kind, number) for kind, number in itertools.product(KINDS, range(5))]
            await asyncio.gather(*lives, *(search(client, number) for number in range(10)))
        sessions = await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", behind.role)
        assert 1 <= sessions <= SESSIONS
        assert [line for line in served.log() if line["level"] == "error"] == []
    verified = await asyncio.to_thread(run_command, "journal", "verify", DATABASE_URL=behind.straight_url)
    assert verified.returncode == 0, verified.stdout


async def test_the_file_of_the_documentation(serve: Serve, behind: Behind) -> None:
    """PgBouncer takes its settings as they stand there, whichever version it is, and serves by them; addresses and
    passwords are those of the test.
    """
    (file,) = commands("scaling.md", "PgBouncer", "ini")
    settings = dict(re.findall("^([a-z_]+) = (.*)$", file.partition("[pgbouncer]")[2], re.MULTILINE))
    assert {"pool_mode", "default_pool_size", "max_client_conn"} < settings.keys()
    for ours in ("listen_addr", "listen_port", "auth_type", "auth_file"):
        del settings[ours]
    with behind.pooler(**settings) as url:
        served = serve_through(serve, url)
        (answer,) = await at_once(served.url, [Call("POST", PATIENTS, {"patient_last_name": "Doe"})])
    assert answer.status == 201


async def test_no_update_is_lost(serve: Serve, behind: Behind) -> None:
    """Of 40 changes with one tag, one is made; of 40 creations with one Idempotency-Key, one."""
    with behind.pooler() as url:
        served = serve_through(serve, url)
        key = {"Idempotency-Key": "once"}
        body = {"unique_id": "pat", "patient_last_name": "Doe", "patient_profile": {"unique_id": "prof"}}
        one = f"{PATIENTS}pat/"
        async with Patient(base_url=served.url, timeout=60) as client:
            made = await asyncio.gather(*(client.post(PATIENTS, json=body, headers=key) for _ in range(40)))
            assert {(answer.status_code, answer.content) for answer in made} == {(201, made[0].content)}
            tag = {"If-Match": made[0].headers["ETag"]}
            changes = [client.put(one, json={"patient_race": str(number)}, headers=tag) for number in range(40)]
            answers = await asyncio.gather(*changes)
        assert sorted(answer.status_code for answer in answers) == [200] + [412] * 39


async def test_limits_hold(serve: Serve, behind: Behind, connection: asyncpg.Connection) -> None:
    """What a request's session may do, and what PostgreSQL assumes in it, is what it would be without PgBouncer; what a
    search sets for itself stays with the search.
    """
    await connection.execute(
        """
        CREATE TABLE seen (settings json);
        CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
            INSERT INTO seen SELECT json_object_agg(lower(name), setting) FROM pg_settings;
            RETURN NULL;
        END $$;
        CREATE TRIGGER see AFTER INSERT ON hospitals FOR EACH ROW EXECUTE FUNCTION see();
        """
    )
    with behind.pooler() as url:
        served = serve_through(serve, url)
        async with Patient(base_url=served.url, timeout=60) as client:
            create = ("/hospitals/hospitals/", {"hospital_name": "General"})
            find = (f"{PATIENTS}search/", {"search": "doe", "limit": 5})
            # with a key each: what shares a transaction has another lock_timeout
            calls = [
                client.post(path, json=body, headers={"Idempotency-Key": str(number)})
                for number, (path, body) in enumerate([create, find] * 20)
            ]
            answers = await asyncio.gather(*calls)
        assert [answer.status_code for answer in answers] == [201, 200] * 20
    seen = await connection.fetch(
        "SELECT DISTINCT key, value FROM seen, json_each_text(settings) WHERE key = ANY($1)", list(SESSION)
    )
    assert {row["key"]: row["value"] for row in seen} == SESSION
    assert len(seen) == len(SESSION)


async def test_locked_row_is_told_in_time(serve: Serve, behind: Behind, connection: asyncpg.Connection) -> None:
    """Changes of a row that somebody else has locked, in all sessions that there are, are 503 within two seconds, and
    so may be what needs a session meanwhile; then nobody waits in PostgreSQL, and without the lock all is well.
    """
    with behind.pooler() as url:
        served = serve_through(serve, url)
        async with httpx.AsyncClient(base_url=served.url) as client:
            assert (await client.post(PATIENTS, json={"unique_id": "pat0", "patient_last_name": "D"})).is_success
            assert (await client.post(PATIENTS, json={"unique_id": "pat1", "patient_last_name": "D"})).is_success
        change = Call("PUT", f"{PATIENTS}pat0/", {"patient_last_name": "Roe"})
        async with connection.transaction():
            await connection.execute("SELECT FROM patients FOR UPDATE")
            waiting = asyncio.ensure_future(at_once(served.url, [change] * SESSIONS))
            await await_blocked(connection, SESSIONS)
            others = await at_once(served.url, [Call("GET", f"{PATIENTS}pat1/")] * 4)
            answers = [*await waiting, *others]
            assert {answer.status for answer in answers} <= {200, 503}
            assert [answer.status for answer in answers[:SESSIONS]] == [503] * SESSIONS
            assert max(answer.seconds for answer in answers) < 2
            await await_nobody_blocked(connection, within=1)
        for call in (change, Call("GET", f"{PATIENTS}pat1/")):
            (answer,) = await at_once(served.url, [call])
            assert answer.status == 200


async def test_work_ends_with_its_client(serve: Serve, behind: Behind, connection: asyncpg.Connection) -> None:
    """PostgreSQL stops to wait for a lock when the client has gone: PgBouncer passes on what cancels a statement, and
    to no other session.
    """
    with behind.pooler() as url:
        served = serve_through(serve, url)
        made = [Call("POST", PATIENTS, {"unique_id": f"pat{n}", "patient_last_name": "D"}) for n in range(2)]
        assert {answer.status for answer in await at_once(served.url, made)} == {201}
        async with connection.transaction():
            await connection.execute("SELECT FROM patients WHERE unique_id = 'pat0' FOR UPDATE")
            for _ in range(5):
                writer = await begin(served, put(0))
                await await_blocked(connection)
                reads = asyncio.ensure_future(at_once(served.url, [Call("GET", f"{PATIENTS}pat1/")] * 10))
                await hang_up([writer])
                assert {answer.status for answer in await reads} == {200}
                await await_nobody_blocked(connection, within=1)


async def test_pooler_away_and_back(serve: Serve, behind: Behind) -> None:
    """Without PgBouncer requests are 503, soon; when it is back they are served again, on new sessions."""
    port = free_port()
    calls = [Call("GET", f"{PATIENTS}?limit=1"), Call("POST", PATIENTS, {"patient_last_name": "D"})] * 5
    with behind.pooler(port=port) as url:
        served = serve_through(serve, url)
        assert {answer.status for answer in await at_once(served.url, calls)} == {200, 201}
    for _ in range(2):
        answers = await at_once(served.url, calls)
        assert {answer.status for answer in answers} == {503}
        assert max(answer.seconds for answer in answers) < 2
    with behind.pooler(port=port):
        eventually(lambda: httpx.get(f"{served.url}/readyz").status_code == 204, within=5)
        eventually(lambda: {httpx.get(f"{served.url}{PATIENTS}?limit=1").status_code for _ in range(8)} == {200})
    assert [line for line in served.log() if line["level"] == "error"] == []


@pytest.mark.parametrize("settings", [{}, {"ignore_startup_parameters": IGNORED}], ids=["refusing", "ignoring"])
async def test_commands_go_straight(behind: Behind, connection: asyncpg.Connection, settings: dict[str, Any]) -> None:
    """Every other command refuses to work through PgBouncer, also where that was told to ignore all that would be lost,
    and says what to do; no lock of a migration is left with a session that others get.
    """
    before = await connection.fetch("TABLE alembic_version")
    with behind.pooler(**settings) as url:
        as_owner = f"postgresql://patients@{urlsplit(url).netloc.rpartition('@')[2]}{urlsplit(url).path}"
        for command in (
            ("migrate",),
            ("migrate", "--serving-role", behind.role),
            ("journal", "verify"),
            ("keys", "list"),
            ("audit", "prune"),
            ("access-report", "pat123"),
            ("erase", "patient", "pat123", "--reason", "x", "--yes"),
        ):
            done = await asyncio.to_thread(run_command, *command, DATABASE_URL=as_owner)
            assert (done.returncode, done.stdout) == (1, ""), command
            assert "connection pooler" in done.stderr
            assert "PostgreSQL itself" in done.stderr
            assert "Traceback" not in done.stderr
        assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    assert await connection.fetch("TABLE alembic_version") == before


async def test_without_limits_it_does_not_start(behind: Behind, connection: asyncpg.Connection) -> None:
    """Where the role does not bring the limits that get lost on the way, `serve` ends with what is missing and the
    remedy; a limit that is too long is none.
    """
    database = urlsplit(behind.straight_url).path.removeprefix("/")
    role = f"ALTER ROLE {behind.role} IN DATABASE {database}"
    serve = ("serve", "--port", str(free_port()))
    await connection.execute(f"{role} SET statement_timeout = '1min'; {role} RESET lock_timeout")
    with behind.pooler() as url:
        done = await asyncio.to_thread(run_command, *serve, DATABASE_URL=url)
    assert done.returncode == 1
    missing = done.stderr.partition("lacks ")[2].partition(". Run")[0].split(", ")
    assert sorted(missing) == ["lock_timeout", "statement_timeout"]
    assert "migrate --serving-role" in done.stderr
    assert "Traceback" not in done.stderr
