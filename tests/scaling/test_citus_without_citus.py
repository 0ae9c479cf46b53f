"""What the service does on a server with Citus, as far as it can be tested without Citus (see `citus_stand_in`)."""

import json
import re
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from sqlalchemy import text

from app.db.database import Database
from app.db.pool import CITUS_SETTINGS, SESSION_SETTINGS
from app.main import create_app
from app.settings import Settings
from tests.audit.test_retention import audit_partitions
from tests.doc_commands import REPOSITORY_ROOT
from tests.journal.conftest import Command, command, serving_url
from tests.scaling.citus_stand_in import STAND_IN

__all__ = ["command", "serving_url"]

PATIENTS = "/patients/patients/"
SHOW_PLAN_CACHE_MODE = text("SHOW plan_cache_mode")


async def load_citus(connection: asyncpg.Connection, *, synchronous_commit: str = "on") -> None:
    """Give the database's new sessions the setting by which Citus is recognized, and another than the tests' server."""
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(
        f"""
        ALTER DATABASE {name} SET "citus.version" = '14.0.1';
        ALTER DATABASE {name} SET synchronous_commit = {synchronous_commit}
        """
    )


async def test_citus_is_detected_on_the_first_connection(database_url: str, connection: asyncpg.Connection) -> None:
    """All sessions, the first included, plan with `auto` if the server has Citus, and as before if it has not."""
    modes = []
    for has_citus in (False, True):
        if has_citus:
            await load_citus(connection)
        async with (
            Database(database_url, pool_size=2) as database,
            database.read() as first,
            database.read() as second,
        ):
            modes += [(await one.execute(SHOW_PLAN_CACHE_MODE)).scalar_one() for one in (first, second)]
    assert modes == [SESSION_SETTINGS["plan_cache_mode"]] * 2 + [CITUS_SETTINGS["plan_cache_mode"]] * 2
    assert modes[0] != modes[2]


async def test_the_serving_role_gets_the_settings_for_citus(
    connection: asyncpg.Connection, command: Command, serving_url: str
) -> None:
    """Sessions through a pooler, which get their settings from the role, plan with `auto` too."""
    await load_citus(connection)
    role = urlsplit(serving_url).username
    assert role is not None
    assert (await command("migrate", "--serving-role", role)).status == 0
    session = await asyncpg.connect(serving_url)
    assert await session.fetchval("SHOW plan_cache_mode") == "auto"
    await session.close()


async def test_requests_work_if_citus_is_detected(database_url: str, connection: asyncpg.Connection) -> None:
    """With the settings for Citus, records can be written, read and listed."""
    await load_citus(connection)
    app = create_app(Settings.model_validate({"database_url": database_url, "auth": "off", "audit_reads": True}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://patients.test") as client,
    ):
        assert (await client.post(PATIENTS, json={"unique_id": "pat1", "patient_last_name": "Doe"})).status_code == 201
        assert (await client.get(f"{PATIENTS}pat1/")).status_code == 200
        assert [entry["method"] for entry in (await client.get("/audit/")).json()] == ["GET", "POST"]


@pytest.mark.parametrize(
    ("message", "state", "status"),
    [
        ("failure on connection marked as essential: worker:5432", "XX000", 503),
        ("connection to the remote node worker:5432 failed", "08006", 503),
        ("another defect", "XX000", 500),
    ],
)
async def test_a_lost_worker_is_a_503(
    client: httpx.AsyncClient, connection: asyncpg.Connection, message: str, state: str, status: int
) -> None:
    """If Citus loses a worker, a change is a 503 without the name of the worker, and nothing is stored."""
    await connection.execute(
        f"""
        CREATE FUNCTION lose_worker() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION '{message}' USING ERRCODE = '{state}';
        END $$;
        CREATE TRIGGER lose_worker BEFORE INSERT ON audit FOR EACH STATEMENT EXECUTE FUNCTION lose_worker()
        """
    )
    response = await client.post(PATIENTS, json={"patient_last_name": "Doe"})
    assert response.status_code == status
    assert "worker" not in response.text
    assert ("Retry-After" in response.headers) == (status == 503)
    assert await connection.fetchval("SELECT count(*) FROM journal") == 0


async def test_the_audit_is_distributed_checked_and_removed_from_the_coordinator(
    connection: asyncpg.Connection, command: Command, serving_url: str
) -> None:
    """`migrate --distribute-audit` moves the audit, grants what Citus needs, and removes the copy left behind.

    The audit rejects changes as before, and repeating the command changes nothing.
    """
    await load_citus(connection)
    await connection.execute(STAND_IN)
    await connection.execute(
        "INSERT INTO audit (principal, method, route, status, resource, ids)"
        " SELECT 'me', 'GET', '/', 200, 'patients', ARRAY['pat' || n] FROM generate_series(1, 1234) n"
    )
    role = urlsplit(serving_url).username
    assert role is not None
    done = await command("migrate", "--distribute-audit", "--serving-role", role)
    assert (done.status, done.err) == (0, "")
    assert "Moved 1,234 entries of the audit to the workers." in done.out
    assert re.search(r"Checked: \d+ shards on worker:5432 reject changes\.", done.out)
    assert "Removed the copy on the coordinator" in done.out
    assert "dump" in done.out
    for partition in await audit_partitions(connection):
        assert await connection.fetchval("SELECT pg_relation_size(CAST($1 AS text)::regclass)", partition) == 0
    for statement in ("UPDATE audit SET ids = '{}'", "DELETE FROM audit_default", "TRUNCATE audit"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="the audit is append-only"):
            await connection.execute(statement)
    rights = "SELECT has_{0}_privilege($1, '{1}', '{2}')"
    for kind, name, right, expected in (
        ("table", "audit", "INSERT", True),
        ("sequence", "audit_id_seq", "USAGE", True),
        ("table", "audit", "DELETE", False),
        ("table", "audit_default", "SELECT", False),
    ):
        assert await connection.fetchval(rights.format(kind, name, right), role) is expected, (name, right)
    again = await command("migrate", "--distribute-audit")
    assert again.status == 0
    assert "The audit was already distributed." in again.out
    assert "Removed" not in again.out


async def test_the_check_knows_the_rights_for_a_distributed_audit(
    connection: asyncpg.Connection, command: Command, serving_url: str
) -> None:
    """If the audit was distributed after the rights were granted, `check` names those that Citus needs."""
    await load_citus(connection)
    await connection.execute(STAND_IN)
    role = urlsplit(serving_url).username
    assert role is not None
    explanations = []
    for arguments in ([], ["--distribute-audit"], ["--serving-role", role]):
        assert (await command("migrate", *arguments)).status == 0
        checks = json.loads((await command("check", "--json", url=serving_url)).out)
        explanations += [one["explanation"] for one in checks if one["name"] == "role"]
    assert "has the rights that `serve` needs" in explanations[0]
    assert "lacks INSERT on audit and 1 other right, which `serve` needs" in explanations[1]
    assert "has the rights that `serve` needs" in explanations[2]


@pytest.mark.parametrize(
    ("preparation", "message"),
    [
        ("", "This server has no Citus"),
        ("loaded", "This database has no Citus"),
        ("UPDATE pg_dist_node SET shouldhaveshards = false", "Citus has no worker"),
        ("UPDATE pg_dist_node SET shouldhaveshards = true", "The coordinator may have shards"),
        ("UPDATE node_results SET result = 'f' WHERE nodeid = 2", "On the node worker:5432, max_prepared_transactions"),
        ("UPDATE node_results SET success = false, result = 'no' WHERE nodeid = 2", "worker:5432 does not respond"),
        ("ALTER TABLE audit_default DISABLE TRIGGER append_only", "not every shard has the trigger"),
        ("DROP FUNCTION create_distributed_table", "Citus refuses to distribute the audit: function"),
    ],
)
async def test_an_unprepared_cluster_is_refused_with_the_remedy(
    connection: asyncpg.Connection, command: Command, preparation: str, message: str
) -> None:
    """Whatever the cluster lacks is named in one line, and the audit stays as it was."""
    if preparation:
        await load_citus(connection)
        if preparation != "loaded":
            await connection.execute(STAND_IN + preparation)
    done = await command("migrate", "--distribute-audit")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert message in done.err


async def test_distributing_needs_synchronous_commit(connection: asyncpg.Connection, command: Command) -> None:
    """With `synchronous_commit = off`, numbers of entries could repeat after a crash, so this is refused."""
    await load_citus(connection, synchronous_commit="off")
    await connection.execute(STAND_IN)
    done = await command("migrate", "--distribute-audit")
    assert done.status == 1
    assert done.err.startswith("synchronous_commit is off.")


async def test_months_are_added_to_a_distributed_audit(connection: asyncpg.Connection, command: Command) -> None:
    """The function that adds months tells Citus beforehand to accept triggers, and moves rows of the new month."""
    await load_citus(connection)
    month = (await audit_partitions(connection))[-3]  # audit_before and audit_default follow
    await connection.execute(f"DROP TABLE {month}")
    first_day = f"{month.removeprefix('audit_').replace('_', '-')}-01"
    await connection.execute(
        "INSERT INTO audit (time, principal, method, route, status, resource, ids)"
        " VALUES (CAST(CAST($1 AS text) AS timestamptz), 'me', 'GET', '/', 200, 'patients', '{}')",
        f"{first_day} 12:00Z",
    )
    await connection.execute(
        """
        CREATE FUNCTION check_settings() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
            IF current_setting('citus.enable_unsafe_triggers', true) IS DISTINCT FROM 'on'
                OR current_setting('citus.propagate_set_commands', true) IS DISTINCT FROM 'local' THEN
                RAISE EXCEPTION 'Citus would refuse';
            END IF;
        END $$;
        CREATE EVENT TRIGGER check_settings ON ddl_command_start EXECUTE FUNCTION check_settings()
        """
    )
    assert (await command("migrate")).status == 0
    assert await connection.fetchval(f"SELECT count(*) FROM {month}") == 1  # noqa: S608


def test_settings_that_workers_need_are_never_set_by_set_config() -> None:
    """Citus passes on `SET LOCAL`, but not `set_config`, so no statement of the app sets `patients.erasing` by it."""
    sources = {path: path.read_text() for path in REPOSITORY_ROOT.glob("app/**/*.py")}
    wrong = [path.name for path, source in sources.items() if re.search(r"set_config\W+patients\.erasing", source)]
    assert wrong == []
    assert any("SET LOCAL patients.erasing" in source for source in sources.values())
