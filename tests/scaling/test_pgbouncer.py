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

from app.db.pool import SESSION_SETTINGS
from tests.doc_commands import code_blocks
from tests.http.test_disconnects import disconnect, put_request, send_request, wait_until_nothing_blocked
from tests.processes import RawRequest, free_port, run_cli, send_concurrently, wait_until_blocked
from tests.scaling.conftest import POOLER_SESSION_COUNT, PooledDatabase, RetryingClient
from tests.support import RESOURCE_EXAMPLES, ResourceExample, ServiceProcess, eventually

pytestmark = pytest.mark.crowd

PATIENTS = "/patients/patients/"
IGNORED_PARAMETERS = (
    "jit, random_page_cost, plan_cache_mode, lock_timeout, statement_timeout, idle_in_transaction_session_timeout"
)
Serve = Callable[..., ServiceProcess]


def serve_through(serve: Serve, url: str) -> ServiceProcess:
    """Start the service with two workers and five connections each."""
    return serve("--workers", "2", DATABASE_URL=url, PATIENTS_POOL_SIZE="5")


async def run_record_lifecycle(client: httpx.AsyncClient, kind: ResourceExample, number: int) -> None:
    """Send every kind of request for one record, and check that each response shows its current state."""
    one = f"{kind.path}own{number}/"
    key = {"Idempotency-Key": f"{kind.name}-{number}"}
    body = {**kind.minimal_body, "unique_id": f"own{number}"}
    created = await client.post(kind.path, json=body, headers=key)
    assert created.status_code == 201, created.text
    again = await client.post(kind.path, json=body, headers=key)
    assert (again.status_code, again.content) == (201, created.content)
    changed = await client.put(one, json=kind.update_body, headers={"If-Match": created.headers["ETag"]})
    assert changed.status_code == 200, changed.text
    assert (await client.patch(one, json=kind.minimal_body, headers={"If-Match": '"stale"'})).status_code == 412
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


async def search_with_typo(client: httpx.AsyncClient, number: int) -> None:
    """Find a patient by a misspelled name, and another time by a filter."""
    name = "".join(chr(ord("a") + int(digit)) for digit in f"{number:06}") + "son"
    body = {"patient_last_name": f"Quill{name}", "patient_town": "Soweto"}
    created = (await client.post(PATIENTS, json=body)).json()
    for query in ({"search": f"quil{name}"}, {"patient_last_name": f"QUILL{name}", "ordering": "-date_created"}):
        response = await client.post(f"{PATIENTS}search/", json={**query, "limit": 5})
        assert (response.status_code, response.json()[0]) == (200, created)


async def test_thirty_clients_do_everything_over_two_sessions(
    serve: Serve, pooled_database: PooledDatabase, connection: asyncpg.Connection
) -> None:
    """Thirty concurrent clients send every kind of request on ten connections over two sessions without an error.

    Afterwards the journal agrees with the records.
    """
    with pooled_database.pooler() as url:
        served = serve_through(serve, url)
        async with RetryingClient(base_url=served.url, timeout=60) as client:
            lives = [
                run_record_lifecycle(client, kind, number)
                for kind, number in itertools.product(RESOURCE_EXAMPLES, range(5))
            ]
            await asyncio.gather(*lives, *(search_with_typo(client, number) for number in range(10)))
        sessions = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", pooled_database.role
        )
        assert 1 <= sessions <= POOLER_SESSION_COUNT
        assert [line for line in served.log_entries() if line["level"] == "error"] == []
    verified = await asyncio.to_thread(run_cli, "journal", "verify", DATABASE_URL=pooled_database.direct_url)
    assert verified.returncode == 0, verified.stdout


async def test_documented_pgbouncer_settings_work(serve: Serve, pooled_database: PooledDatabase) -> None:
    """PgBouncer accepts the documented settings and serves with them, except for the test's addresses and passwords."""
    (file,) = code_blocks("scaling.md", "PgBouncer", "ini")
    settings = dict(re.findall("^([a-z_]+) = (.*)$", file.partition("[pgbouncer]")[2], re.MULTILINE))
    assert {"pool_mode", "default_pool_size", "max_client_conn"} < settings.keys()
    for ours in ("listen_addr", "listen_port", "auth_type", "auth_file"):
        del settings[ours]
    with pooled_database.pooler(**settings) as url:
        served = serve_through(serve, url)
        (response,) = await send_concurrently(served.url, [RawRequest("POST", PATIENTS, {"patient_last_name": "Doe"})])
    assert response.status == 201


async def test_no_update_is_lost(serve: Serve, pooled_database: PooledDatabase) -> None:
    """Of 40 changes with one tag exactly one succeeds, and 40 creations with one Idempotency-Key create one record."""
    with pooled_database.pooler() as url:
        served = serve_through(serve, url)
        key = {"Idempotency-Key": "once"}
        body = {"unique_id": "pat", "patient_last_name": "Doe", "patient_profile": {"unique_id": "prof"}}
        one = f"{PATIENTS}pat/"
        async with RetryingClient(base_url=served.url, timeout=60) as client:
            made = await asyncio.gather(*(client.post(PATIENTS, json=body, headers=key) for _ in range(40)))
            assert {(response.status_code, response.content) for response in made} == {(201, made[0].content)}
            tag = {"If-Match": made[0].headers["ETag"]}
            changes = [client.put(one, json={"patient_race": str(number)}, headers=tag) for number in range(40)]
            responses = await asyncio.gather(*changes)
        assert sorted(response.status_code for response in responses) == [200] + [412] * 39


async def test_session_settings_hold_through_pgbouncer(
    serve: Serve, pooled_database: PooledDatabase, connection: asyncpg.Connection
) -> None:
    """Timeouts and planner settings are the same with and without PgBouncer; a search's own settings end with it."""
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
    with pooled_database.pooler() as url:
        served = serve_through(serve, url)
        async with RetryingClient(base_url=served.url, timeout=60) as client:
            create = ("/hospitals/hospitals/", {"hospital_name": "General"})
            find = (f"{PATIENTS}search/", {"search": "doe", "limit": 5})
            # with a key each, because requests that share a transaction have another lock_timeout
            calls = [
                client.post(path, json=body, headers={"Idempotency-Key": str(number)})
                for number, (path, body) in enumerate([create, find] * 20)
            ]
            responses = await asyncio.gather(*calls)
        assert [response.status_code for response in responses] == [201, 200] * 20
    seen = await connection.fetch(
        "SELECT DISTINCT key, value FROM seen, json_each_text(settings) WHERE key = ANY($1)", list(SESSION_SETTINGS)
    )
    assert {row["key"]: row["value"] for row in seen} == SESSION_SETTINGS
    assert len(seen) == len(SESSION_SETTINGS)


@pytest.mark.alone
async def test_locked_rows_are_503_in_time(
    serve: Serve, pooled_database: PooledDatabase, connection: asyncpg.Connection
) -> None:
    """Changes of locked rows in all sessions get a 503 within two seconds, and so may other requests meanwhile.

    Afterwards no statement waits in PostgreSQL, and once the lock is released requests succeed.
    """
    with pooled_database.pooler() as url:
        served = serve_through(serve, url)
        async with httpx.AsyncClient(base_url=served.url) as client:
            for number in range(POOLER_SESSION_COUNT + 1):
                body = {"unique_id": f"pat{number}", "patient_last_name": "D"}
                assert (await client.post(PATIENTS, json=body)).is_success
        changes = [
            RawRequest("PUT", f"{PATIENTS}pat{number}/", {"patient_last_name": "Roe"})
            for number in range(POOLER_SESSION_COUNT)
        ]
        read = RawRequest("GET", f"{PATIENTS}pat{POOLER_SESSION_COUNT}/")
        async with connection.transaction():
            await connection.execute("SELECT FROM patients FOR UPDATE")
            waiting = asyncio.ensure_future(send_concurrently(served.url, changes))
            await wait_until_blocked(connection, POOLER_SESSION_COUNT)
            others = await send_concurrently(served.url, [read] * 4)
            responses = [*await waiting, *others]
            assert {response.status for response in responses} <= {200, 503}
            assert [response.status for response in responses[:POOLER_SESSION_COUNT]] == [503] * POOLER_SESSION_COUNT
            assert max(response.seconds for response in responses) < 2
            await wait_until_nothing_blocked(connection, within_seconds=1)
        for call in (*changes, read):
            (response,) = await send_concurrently(served.url, [call])
            assert response.status == 200


async def test_a_disconnect_cancels_only_its_own_statement(
    serve: Serve, pooled_database: PooledDatabase, connection: asyncpg.Connection
) -> None:
    """A disconnect cancels the client's statement through PgBouncer, and no statement of another session."""
    with pooled_database.pooler() as url:
        served = serve_through(serve, url)
        made = [RawRequest("POST", PATIENTS, {"unique_id": f"pat{n}", "patient_last_name": "D"}) for n in range(2)]
        assert {response.status for response in await send_concurrently(served.url, made)} == {201}
        async with connection.transaction():
            await connection.execute("SELECT FROM patients WHERE unique_id = 'pat0' FOR UPDATE")
            for _ in range(5):
                writer = await send_request(served, put_request(0))
                await wait_until_blocked(connection)
                reads = asyncio.ensure_future(
                    send_concurrently(served.url, [RawRequest("GET", f"{PATIENTS}pat1/")] * 10)
                )
                await disconnect([writer])
                assert {response.status for response in await reads} == {200}
                await wait_until_nothing_blocked(connection, within_seconds=1)


async def test_requests_recover_after_the_pooler_restarts(serve: Serve, pooled_database: PooledDatabase) -> None:
    """Without PgBouncer requests get a 503 quickly, and when it is back they are served on new sessions."""
    port = free_port()
    calls = [RawRequest("GET", f"{PATIENTS}?limit=1"), RawRequest("POST", PATIENTS, {"patient_last_name": "D"})] * 5
    with pooled_database.pooler(port=port) as url:
        served = serve_through(serve, url)
        assert {response.status for response in await send_concurrently(served.url, calls)} == {200, 201}
    for _ in range(2):
        responses = await send_concurrently(served.url, calls)
        assert {response.status for response in responses} == {503}
        assert max(response.seconds for response in responses) < 2
    with pooled_database.pooler(port=port):
        eventually(lambda: httpx.get(f"{served.url}/readyz").status_code == 204, within_seconds=5)
        eventually(lambda: {httpx.get(f"{served.url}{PATIENTS}?limit=1").status_code for _ in range(8)} == {200})
    assert [line for line in served.log_entries() if line["level"] == "error"] == []


@pytest.mark.parametrize(
    "settings", [{}, {"ignore_startup_parameters": IGNORED_PARAMETERS}], ids=["refusing", "ignoring"]
)
async def test_commands_refuse_to_work_through_pgbouncer(
    pooled_database: PooledDatabase, connection: asyncpg.Connection, settings: dict[str, Any]
) -> None:
    """All other commands refuse to work through PgBouncer and say what to do, even if it ignores lost settings.

    No migration lock is left on a session that other clients get.
    """
    before = await connection.fetch("TABLE alembic_version")
    with pooled_database.pooler(**settings) as url:
        as_owner = f"postgresql://patients@{urlsplit(url).netloc.rpartition('@')[2]}{urlsplit(url).path}"
        for command in (
            ("migrate",),
            ("migrate", "--serving-role", pooled_database.role),
            ("journal", "verify"),
            ("keys", "list"),
            ("audit", "prune"),
            ("access-report", "pat123"),
            ("erase", "patient", "pat123", "--reason", "x", "--yes"),
        ):
            done = await asyncio.to_thread(run_cli, *command, DATABASE_URL=as_owner)
            assert (done.returncode, done.stdout) == (1, ""), command
            assert "connection pooler" in done.stderr
            assert "PostgreSQL itself" in done.stderr
            assert "Traceback" not in done.stderr
        assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    assert await connection.fetch("TABLE alembic_version") == before


async def test_serve_refuses_a_role_without_timeouts(
    pooled_database: PooledDatabase, connection: asyncpg.Connection
) -> None:
    """If the role lacks the timeouts that a pooler drops, or has longer ones, `serve` exits and names the remedy."""
    database = urlsplit(pooled_database.direct_url).path.removeprefix("/")
    role = f"ALTER ROLE {pooled_database.role} IN DATABASE {database}"
    serve = ("serve", "--port", str(free_port()))
    await connection.execute(f"{role} SET statement_timeout = '1min'; {role} RESET lock_timeout")
    with pooled_database.pooler() as url:
        done = await asyncio.to_thread(run_cli, *serve, DATABASE_URL=url)
    assert done.returncode == 1
    missing = done.stderr.partition("lacks ")[2].partition(". Run")[0].split(", ")
    assert sorted(missing) == ["lock_timeout", "statement_timeout"]
    assert "migrate --serving-role" in done.stderr
    assert "Traceback" not in done.stderr
