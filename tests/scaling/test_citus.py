"""The audit on the workers of a real Citus cluster.

Run it by hand, as CI has no Citus: `CITUS_URL=postgresql://postgres@coordinator/postgres pytest -m "crowd or alone"
tests/scaling/test_citus.py`. The URL is that of a superuser, in a database that has the extension and at least one
worker. The nodes have to accept connections of all roles from the coordinator and from here.
"""

import asyncio
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest

from tests.doc_commands import postgres_bin_directory
from tests.processes import RawRequest, run_cli, send_concurrently
from tests.scaling.conftest import RetryingClient
from tests.support import EXAMPLE_PATIENT, GET_EXAMPLE, PUT_EXAMPLE, PUT_RESPONSE, ServiceProcess, temporary_database

CITUS_URL = os.environ.get("CITUS_URL", "")
pytestmark = [pytest.mark.crowd, pytest.mark.skipif(not CITUS_URL, reason="CITUS_URL names no Citus coordinator")]

PATIENTS = "/patients/patients/"
MONTH_END = "'2001-02-01'"
DROP_ATTEMPTS = 20
"""Attempts to drop a database, to which Citus' maintenance daemon connects again and again."""


class Node(NamedTuple):
    """A node of the cluster."""

    host: str
    port: int
    is_coordinator: bool

    def url(self, database: str, role: str = "") -> str:
        """Return the URL of a database on this node, for the role of `CITUS_URL` by default."""
        parts = urlsplit(CITUS_URL)
        credentials = role or parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{credentials}@{self.host}:{self.port}", path=f"/{database}"))


class Cluster(NamedTuple):
    """A database on all nodes of the cluster, with a distributed audit and a serving role."""

    nodes: Sequence[Node]
    database: str
    role: str
    migrated: subprocess.CompletedProcess[str]
    """The result of `migrate --distribute-audit --serving-role`."""

    @property
    def coordinator(self) -> Node:
        return next(node for node in self.nodes if node.is_coordinator)

    @property
    def workers(self) -> list[Node]:
        return [node for node in self.nodes if not node.is_coordinator]

    @property
    def owner_url(self) -> str:
        return self.coordinator.url(self.database)

    @property
    def serving_url(self) -> str:
        return self.coordinator.url(self.database, self.role)


async def execute(url: str, *statements: str) -> None:
    """Execute statements, each in a transaction of its own."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def cluster_nodes() -> list[Node]:
    connection = await asyncpg.connect(CITUS_URL)
    rows = await connection.fetch(
        "SELECT nodename, nodeport, groupid = 0 FROM pg_dist_node WHERE isactive AND noderole = 'primary'"
    )
    await connection.close()
    nodes = [Node(*row) for row in rows]
    if not any(node.is_coordinator for node in nodes):
        parts = urlsplit(CITUS_URL)
        nodes.append(Node(parts.hostname or "localhost", parts.port or 5432, is_coordinator=True))
    assert len(nodes) > 1, "the cluster has no worker"
    return nodes


@pytest.fixture(scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    """Create a database on all nodes, distribute its audit, and drop it at the end."""
    nodes, name = await cluster_nodes(), f"test_{secrets.token_hex(4)}"
    default_database = urlsplit(CITUS_URL).path.removeprefix("/")
    cluster = Cluster(nodes, name, f"serving_{secrets.token_hex(4)}", subprocess.CompletedProcess([], 0, "", ""))
    propagation_off = "SET citus.enable_create_database_propagation = off"
    try:
        for node in nodes:
            await execute(node.url(default_database), propagation_off, f"CREATE DATABASE {name}")
            await execute(node.url(name), "CREATE EXTENSION citus")
        added = [f"SELECT citus_add_node('{node.host}', {node.port})" for node in cluster.workers]
        host, port, _ = cluster.coordinator
        await execute(
            cluster.owner_url,
            f"SELECT citus_set_coordinator_host('{host}', {port})",
            *added,
            f"CREATE ROLE {cluster.role} LOGIN",  # Citus creates it on the workers, too
        )
        migrated = await asyncio.to_thread(run_cli, "migrate", DATABASE_URL=cluster.owner_url)
        assert migrated.returncode == 0, migrated.stderr
        # rows from before, which have to move
        await execute(
            cluster.owner_url,
            "INSERT INTO audit (principal, method, route, status, resource, ids) SELECT 'before', 'GET', '/', 200,"
            " 'patients', ARRAY['pat' || n] FROM generate_series(1, 1000) n",
        )
        arguments = ("migrate", "--distribute-audit", "--serving-role", cluster.role)
        migrated = await asyncio.to_thread(run_cli, *arguments, DATABASE_URL=cluster.owner_url)
        yield cluster._replace(migrated=migrated)
    finally:
        for node in nodes:
            for attempt in range(DROP_ATTEMPTS):
                try:
                    await execute(
                        node.url(default_database), propagation_off, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"
                    )
                    break
                except asyncpg.PostgresError:
                    if attempt == DROP_ATTEMPTS - 1:
                        raise
                    await asyncio.sleep(0.5)
        for node in nodes:
            await execute(
                node.url(default_database),
                "SET citus.enable_ddl_propagation = off",
                f"DROP ROLE IF EXISTS {cluster.role}",
            )


@pytest.fixture
async def owner(cluster: Cluster) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the owner to the coordinator."""
    assert cluster.migrated.returncode == 0, cluster.migrated.stderr
    connection = await asyncpg.connect(cluster.owner_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
def service(cluster: Cluster, module_serve: Callable[..., ServiceProcess]) -> ServiceProcess:
    """A service with two workers, as the serving role, that audits reads."""
    return module_serve("--workers", "2", DATABASE_URL=cluster.serving_url, PATIENTS_AUDIT_READS="true")


@pytest.fixture
async def client(service: ServiceProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with RetryingClient(base_url=service.url, timeout=60) as client:
        yield client


async def shard_results(owner: asyncpg.Connection, table: str, command: str) -> list[str]:
    """Return the result of a command for each shard of a table; `%s` in the command is the shard."""
    rows = await owner.fetch(
        "SELECT success, result FROM run_command_on_shards($1::text::regclass, $2)", table, command
    )
    assert all(row["success"] for row in rows), rows
    return [row["result"] for row in rows]


async def test_the_audit_is_moved_and_nothing_of_it_remains_on_the_coordinator(
    cluster: Cluster, owner: asyncpg.Connection
) -> None:
    """All rows from before are on the workers, and repeating the command changes nothing."""
    assert "Moved 1,000 entries of the audit to the workers." in cluster.migrated.stdout
    assert await owner.fetchval("SELECT count(*) FROM audit WHERE principal = 'before'") == 1000
    local_bytes = "SELECT sum(pg_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'audit'::regclass"
    assert await owner.fetchval(local_bytes) == 0
    again = await asyncio.to_thread(run_cli, "migrate", "--distribute-audit", DATABASE_URL=cluster.owner_url)
    assert again.returncode == 0, again.stderr
    assert "The audit was already distributed." in again.stdout


async def test_the_examples_of_the_contract(client: httpx.AsyncClient, owner: asyncpg.Connection) -> None:
    """The contract's examples get the contract's responses, and each has a row in the audit and the journal."""
    for unique_id, name in {"hos123": "General Hospital", "hos456": "St. Mary's", "hos789": "New Hospital"}.items():
        body = {"unique_id": unique_id, "hospital_name": name}
        assert (await client.post("/hospitals/hospitals/", json=body)).status_code == 201
    for unique_id, name in {"doc123": "Dr. Smith", "doc456": "Dr. Adams"}.items():
        body = {"unique_id": unique_id, "doctor_first_name": name}
        assert (await client.post("/doctors/doctors/", json=body)).status_code == 201
    example = {**EXAMPLE_PATIENT, "unique_id": "pat123", "hospital_ids": ["hos123"]}
    times = {"date_created", "last_updated"}

    def without_times(response: httpx.Response) -> dict[str, Any]:
        return {name: value for name, value in response.json().items() if name not in times}

    created = await client.post(PATIENTS, json=example, headers={"X-Request-ID": "create"})
    assert created.status_code == 201
    expected = {name: value for name, value in GET_EXAMPLE.items() if name not in times}
    shown = await client.get(f"{PATIENTS}pat123/", headers={"X-Request-ID": "read"})
    assert (shown.status_code, without_times(shown)) == (200, expected)
    listed = await client.get(PATIENTS, headers={"X-Request-ID": "list"})
    assert [patient["unique_id"] for patient in listed.json()] == ["pat123"]
    changed = await client.put(f"{PATIENTS}pat123/", json=PUT_EXAMPLE, headers={"X-Request-ID": "update"})
    expected = {name: value for name, value in PUT_RESPONSE.items() if name not in times}
    assert (changed.status_code, without_times(changed)) == (200, expected)
    deleted = await client.delete(f"{PATIENTS}pat123/", headers={"X-Request-ID": "delete"})
    assert deleted.status_code == 204
    rows = await owner.fetch("SELECT request_id, version FROM audit WHERE ids @> ARRAY['pat123'] AND request_id <> ''")
    assert {row["request_id"] for row in rows} == {"create", "read", "list", "update", "delete"}
    written = await owner.fetch("SELECT request_id, version FROM journal WHERE unique_id = 'pat123'")
    assert {tuple(row) for row in written} == {tuple(row) for row in rows if row["version"] is not None}


async def test_each_read_is_found_on_whichever_shard_it_is(
    client: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    """Each of a hundred reads is in `/audit/` and in the access report, although several shards have them."""
    assert (await client.post(PATIENTS, json={"unique_id": "read", "patient_last_name": "Doe"})).status_code == 201
    names = [f"read-{number}" for number in range(100)]
    reads = (client.get(f"{PATIENTS}read/", headers={"X-Request-ID": name}) for name in names)
    assert {response.status_code for response in await asyncio.gather(*reads)} == {200}
    entries = (await client.get("/audit/", params={"patient": "read", "limit": "500"})).json()
    assert sorted(entry["request_id"] for entry in entries if entry["method"] == "GET") == sorted(names)
    report = (await client.get(f"{PATIENTS}read/access/", params={"limit": "500"})).json()
    assert {entry["request_id"] for entry in report} >= set(names)
    counts = await shard_results(owner, "audit", "SELECT count(*) FROM %s WHERE request_id LIKE 'read-__'")
    assert sum(map(int, counts)) == 90
    assert sum(count != "0" for count in counts) > 1


async def test_a_rejected_change_leaves_only_its_rejection(
    client: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    """A change that is rejected stores nothing but the audit row of its rejection."""
    body = {"unique_id": "rejected", "patient_last_name": "Doe", "hospital_ids": ["hos-never"]}
    headers = {"X-Request-ID": "rejected"}
    assert (await client.post(PATIENTS, json=body, headers=headers)).status_code == 422
    rows = await owner.fetch("SELECT status, ids, version FROM audit WHERE request_id = 'rejected'")
    assert [tuple(row) for row in rows] == [(422, [], None)]
    assert await owner.fetchval("SELECT count(*) FROM journal WHERE unique_id = 'rejected'") == 0


async def test_nobody_changes_the_audit(cluster: Cluster, owner: asyncpg.Connection) -> None:
    """UPDATE, DELETE and TRUNCATE are rejected: of the audit, of a month, and of their shards on a worker."""
    statements = ("UPDATE {} SET ids = ids", "DELETE FROM {}", "TRUNCATE {}")
    month = "audit_before"
    for name in ("audit", month):
        for statement in statements:
            with pytest.raises(asyncpg.PostgresError, match="the audit is append-only"):
                await owner.execute(statement.format(name))
    shards = await owner.fetch(
        "SELECT nodename, nodeport, shard_name(logicalrelid, shardid) AS name FROM pg_dist_shard"
        " JOIN pg_dist_placement USING (shardid) JOIN pg_dist_node USING (groupid)"
        " WHERE logicalrelid IN ('audit'::regclass, $1::text::regclass)",
        month,
    )
    assert len(shards) > 1
    for host, port, name in (shards[0], shards[-1]):
        worker = await asyncpg.connect(Node(host, port, is_coordinator=False).url(cluster.database))
        await worker.execute("SET citus.enable_manual_changes_to_shards = on")  # otherwise Citus itself refuses
        for statement in statements:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="the audit is append-only"):
                await worker.execute(statement.format(name))
        await worker.close()


async def test_the_serving_role_cannot_remove_rows(cluster: Cluster) -> None:
    """The serving role may neither delete nor truncate, at the coordinator and at a worker."""
    for node, refusal in (
        (cluster.coordinator, asyncpg.InsufficientPrivilegeError),
        (cluster.workers[0], asyncpg.PostgresError),
    ):
        serving = await asyncpg.connect(node.url(cluster.database, cluster.role))
        await serving.execute("SET patients.erasing = 'yes'")
        for statement in ("DELETE FROM audit", "UPDATE audit SET ids = ids", "TRUNCATE audit", "DROP TABLE audit"):
            with pytest.raises(refusal):
                await serving.execute(statement)
        await serving.close()


async def test_erasure_reaches_the_workers(
    cluster: Cluster, client: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    """An erasure replaces the id in rows on all shards."""
    assert (await client.post(PATIENTS, json={"unique_id": "erase-me", "patient_last_name": "Doe"})).status_code == 201
    for _ in range(20):
        assert (await client.get(f"{PATIENTS}erase-me/")).status_code == 200
    arguments = ("erase", "patient", "erase-me", "--yes", "--reason", "asked for")
    done = await asyncio.to_thread(run_cli, *arguments, DATABASE_URL=cluster.owner_url)
    assert done.returncode == 0, done.stderr
    assert await owner.fetchval("SELECT count(*) FROM audit WHERE 'erase-me' = ANY (ids)") == 0
    assert await owner.fetchval("SELECT count(*) FROM audit WHERE ids[1] LIKE 'erased%'") >= 21


async def test_prune_drops_months_on_the_workers(cluster: Cluster, owner: asyncpg.Connection) -> None:
    """Pruning drops the shards of expired months, and keeps all other rows."""
    before = await owner.fetchval("SELECT count(*) FROM audit")
    bound = await owner.fetchval("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'audit_before'")
    await owner.execute("ALTER TABLE audit DETACH PARTITION audit_before")
    await owner.execute(f"ALTER TABLE audit ATTACH PARTITION audit_before {bound.replace('MINVALUE', MONTH_END)}")
    await owner.execute(
        f"CREATE TABLE audit_2001_01 PARTITION OF audit FOR VALUES FROM ('2001-01-01') TO ({MONTH_END})"
    )
    await owner.execute(
        "INSERT INTO audit (time, principal, method, route, status, resource, ids)"
        " SELECT '2001-01-15', 'me', 'GET', '/', 200, 'patients', '{}' FROM generate_series(1, 50)"
    )
    pruned = await asyncio.to_thread(run_cli, "audit", "prune", DATABASE_URL=cluster.owner_url)
    assert pruned.stdout == "Removed 1 month with about 50 entries older than 2190 days.\n", pruned.stderr
    assert await owner.fetchval("SELECT count(*) FROM audit") == before


async def test_the_service_adds_months(cluster: Cluster, owner: asyncpg.Connection) -> None:
    """The serving role adds a missing month, moves its rows, and all of its shards reject changes."""
    month = await owner.fetchval(
        "SELECT max(CAST(inhrelid::regclass AS text)) FROM pg_inherits"
        " WHERE inhparent = 'audit'::regclass AND CAST(inhrelid::regclass AS text) LIKE 'audit\\_2%'"
    )
    first_day = f"{month.removeprefix('audit_').replace('_', '-')}-01"
    await owner.execute(f"DROP TABLE {month}")
    await owner.execute(
        "INSERT INTO audit (time, principal, method, route, status, resource, ids)"
        " SELECT $1::text::timestamptz, 'me', 'GET', '/', 200, 'patients', '{}' FROM generate_series(1, 50)",
        f"{first_day} 12:00Z",
    )
    serving = await asyncpg.connect(cluster.serving_url, server_settings={"plan_cache_mode": "auto"})
    assert await serving.fetchval("SELECT add_audit_months()") == 1
    await serving.close()
    assert await owner.fetchval(f"SELECT count(*) FROM {month}") == 50  # noqa: S608
    triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = '%s'::regclass AND starts_with(tgname, 'append_only')"
    assert set(await shard_results(owner, month, triggers)) == {"1"}


async def test_no_update_is_lost(client: httpx.AsyncClient, service: ServiceProcess) -> None:
    """Two clients that increment a counter with `If-Match` lose no update, and concurrent writes all succeed."""
    path = f"{PATIENTS}counted/"
    body = {"unique_id": "counted", "patient_last_name": "Doe", "patient_race": "0"}
    assert (await client.post(PATIENTS, json=body)).status_code == 201

    async def count() -> None:
        for _ in range(10):
            while True:
                read = await client.get(path)
                change = {"patient_race": str(int(read.json()["patient_race"]) + 1)}
                response = await client.put(path, json=change, headers={"If-Match": read.headers["ETag"]})
                if response.status_code == 200:
                    break
                assert response.status_code == 412, response.text

    await asyncio.gather(count(), count())
    assert (await client.get(path)).json()["patient_race"] == "20"
    creations = [RawRequest("POST", PATIENTS, {"patient_last_name": "Doe"})] * 40
    assert {response.status for response in await send_concurrently(service.url, creations)} <= {201, 503}
    assert [line for line in service.log_entries() if line["level"] == "error"] == []


async def test_the_journal_verifies_and_records_are_exported(cluster: Cluster, tmp_path: Path) -> None:
    """`journal verify` finds nothing, and an export, which is audited, works."""
    verified = await asyncio.to_thread(run_cli, "journal", "verify", DATABASE_URL=cluster.owner_url)
    assert verified.returncode == 0, verified.stdout
    exported = await asyncio.to_thread(
        run_cli, "export", "--directory", str(tmp_path / "export"), DATABASE_URL=cluster.serving_url
    )
    assert exported.returncode == 0, exported.stderr


async def test_the_way_back_is_a_dump(
    cluster: Cluster, owner: asyncpg.Connection, postgres_url: str, tmp_path: Path
) -> None:
    """A dump without the extension, restored into plain PostgreSQL, has all rows of the audit, and verifies."""
    file = str(tmp_path / "citus.dump")
    dump = ["pg_dump", "--format", "custom", "--exclude-extension", "citus*", "--file", file, cluster.owner_url]
    async with temporary_database(postgres_url, template="template0") as plain_url:
        restore = ["pg_restore", "--exit-on-error", "--no-owner", "--no-privileges", "--dbname", plain_url, file]
        for name, *arguments in (dump, restore):
            command = [str(postgres_bin_directory() / name), *arguments]
            await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        plain = await asyncpg.connect(plain_url)
        assert await plain.fetchval("SELECT count(*) FROM audit") == await owner.fetchval("SELECT count(*) FROM audit")
        assert await plain.fetchval("SELECT to_regclass('pg_dist_partition')") is None
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="the audit is append-only"):
            await plain.execute("DELETE FROM audit")
        await plain.close()
        verified = await asyncio.to_thread(run_cli, "journal", "verify", DATABASE_URL=plain_url)
        assert verified.returncode == 0, verified.stdout
