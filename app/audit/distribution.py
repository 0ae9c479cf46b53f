"""Distribution of the audit over the workers of a Citus cluster. All other tables stay on the coordinator."""

from typing import NamedTuple

import asyncpg
from sqlalchemy import text

from app.db.connection import Connection
from app.db.database import Database
from app.db.pool import HAS_CITUS
from app.db.rights import distributed_tables

SHARD_COUNT = 32
"""Number of shards of each month. They can be spread over at most so many workers."""

_SELECT_CITUS = text(
    f"SELECT {HAS_CITUS} AS is_loaded, to_regclass('pg_dist_node') IS NOT NULL AS is_created,"
    " current_setting('synchronous_commit') AS synchronous_commit"
)
_SELECT_NODES = text(
    "SELECT nodeid, nodename || ':' || nodeport AS address, groupid = 0 AS is_coordinator, shouldhaveshards"
    " FROM pg_dist_node WHERE isactive AND noderole = 'primary' ORDER BY address"
)
_CHECK_NODES = text(
    """
    SELECT nodeid, success, result FROM run_command_on_all_nodes($command$
        SELECT CAST(current_setting('max_prepared_transactions') AS integer)
            >= CAST(current_setting('max_connections') AS integer)
    $command$)
    """
)
_LOCK = text("LOCK TABLE public.audit IN SHARE ROW EXCLUSIVE MODE")
_COUNT = text("SELECT count(*) FROM public.audit")
_SET_LOCK_TIMEOUT = text("SET LOCAL lock_timeout = '5s'")
_ACCEPT_TRIGGERS = text("SET LOCAL citus.enable_unsafe_triggers = 'on'")
_USE_ONE_CONNECTION = text("SET LOCAL citus.multi_shard_modify_mode = 'sequential'")
_DISTRIBUTE = text(f"SELECT create_distributed_table('public.audit', 'id', shard_count => {SHARD_COUNT})")
_COUNT_TRIGGERS = text(
    """
    SELECT shard.success, shard.result
    FROM unnest(CAST(:tables AS text[])) AS name, run_command_on_shards(CAST(name AS regclass), $command$
        SELECT count(*) FROM pg_trigger
        WHERE tgrelid = CAST('%s' AS regclass) AND starts_with(tgname, 'append_only') AND tgenabled = 'O'
    $command$) AS shard
    """
)
_SELECT_LOCAL_TABLES = text(
    "SELECT CAST(CAST(inhrelid AS regclass) AS text) AS name, pg_relation_size(inhrelid) AS bytes"
    " FROM pg_inherits WHERE inhparent = CAST('public.audit' AS regclass) ORDER BY name"
)
_AT_COORDINATOR_ONLY = text("SET LOCAL citus.enable_ddl_propagation = 'off'")
_REMOVE_LOCAL_ROWS = text("SELECT truncate_local_data_after_distributing_table('public.audit')")


class CannotDistributeError(Exception):
    """The audit cannot be distributed, or is not complete on the workers. The message says what to do."""


class Distribution(NamedTuple):
    """The result of `distribute_audit`."""

    workers: list[str]
    """The addresses of the workers that have the shards."""
    moved_rows: int | None
    """Number of rows that were moved to the workers, or None if the audit had been distributed before."""
    shards: int
    """Number of shards of all months. A trigger on each of them rejects changes of its rows."""
    removed_bytes: int
    """Size of the rows that had remained on the coordinator, where no statement reaches them."""


async def distribute_audit(database: Database) -> Distribution:
    """Move the audit to the workers of Citus, check it there, and remove the copy that Citus leaves behind.

    If this was interrupted, calling it again does the rest.

    Raises:
        CannotDistributeError: the cluster is not prepared for this, or a check of the result fails.
        app.db.database.LockNotAvailableError: the audit is in use by a long transaction.
        asyncpg.PostgresError: Citus refuses.
    """
    async with database.read() as connection:
        workers = await _check_cluster(connection)
    moved_rows = await database.transaction(_distribute)
    async with database.read() as connection:
        shards = await _check_triggers(connection)
    return Distribution(workers, moved_rows, shards, await database.transaction(_remove_local_rows))


async def _check_cluster(connection: Connection) -> list[str]:
    citus = (await connection.execute(_SELECT_CITUS)).one()
    if not citus.is_loaded:
        raise CannotDistributeError(
            "This server has no Citus: install it on every node, and add it to shared_preload_libraries."
        )
    if not citus.is_created:
        raise CannotDistributeError(
            "This database has no Citus: in a database of this name on every node, run CREATE EXTENSION citus, then "
            "add the workers by citus_set_coordinator_host and citus_add_node."
        )
    if citus.synchronous_commit == "off":
        raise CannotDistributeError(
            "synchronous_commit is off. After a crash of the coordinator, entries would get numbers that others have: "
            "turn it on."
        )
    nodes = (await connection.execute(_SELECT_NODES)).all()
    workers = [node.address for node in nodes if node.shouldhaveshards and not node.is_coordinator]
    if not workers:
        raise CannotDistributeError("Citus has no worker that may have shards: add one by citus_add_node.")
    if any(node.is_coordinator and node.shouldhaveshards for node in nodes):
        raise CannotDistributeError(
            "The coordinator may have shards too, so part of the audit would stay on it: change this by "
            "citus_set_node_property(…, 'shouldhaveshards', false)."
        )
    addresses = {node.nodeid: node.address for node in nodes}
    for node_id, success, result in await connection.execute(_CHECK_NODES):
        address = addresses.get(node_id, str(node_id))
        if not success:
            raise CannotDistributeError(f"The node {address} does not respond to this role: {result}.")
        if result not in {"t", "true"}:
            raise CannotDistributeError(
                f"On the node {address}, max_prepared_transactions is lower than max_connections. Each audited request "
                "needs a prepared transaction: raise it, and restart the node."
            )
    return workers


async def _distribute(connection: Connection) -> int | None:
    if "audit" in await distributed_tables(connection):
        return None
    for setting in (_SET_LOCK_TIMEOUT, _ACCEPT_TRIGGERS, _USE_ONE_CONNECTION):
        await connection.execute(setting)
    await connection.execute(_LOCK)
    before: int = (await connection.execute(_COUNT)).scalar_one()
    await connection.execute(_DISTRIBUTE)
    after = (await connection.execute(_COUNT)).scalar_one()
    if after != before:
        raise CannotDistributeError(
            f"Nothing was changed: the audit has {before:,} entries, and the workers got {after:,}."
        )
    return before


async def _check_triggers(connection: Connection) -> int:
    months = [name for name, _ in await connection.execute(_SELECT_LOCAL_TABLES)]
    results = (await connection.execute(_COUNT_TRIGGERS, {"tables": ["audit", *months]})).all()
    if not results or any((success, result) != (True, "1") for success, result in results):
        raise CannotDistributeError(
            "The audit is on the workers, but not every shard has the trigger append_only, which rejects changes. Drop "
            "this trigger from the audit and its months, create it again with citus.enable_unsafe_triggers on, and run "
            "this command again."
        )
    return len(results)


async def _remove_local_rows(connection: Connection) -> int:
    """Remove the rows that `create_distributed_table` has copied, which an erasure would not reach."""
    months = (await connection.execute(_SELECT_LOCAL_TABLES)).all()
    size = sum(int(month.bytes) for month in months)
    if size:
        tables = ["audit", *(month.name for month in months)]
        await connection.execute(_SET_LOCK_TIMEOUT)
        await connection.execute(_AT_COORDINATOR_ONLY)
        for table in tables:
            await connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER append_only"))
        await connection.execute(_REMOVE_LOCAL_ROWS)
        await connection.execute(_AT_COORDINATOR_ONLY)  # the function has turned it on
        for table in tables:
            await connection.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER append_only"))
    return size


def explain_refusal(error: asyncpg.PostgresError) -> CannotDistributeError:
    """Return the error of Citus as one that a command prints. The first line names tables and nodes, but no data."""
    return CannotDistributeError(f"Citus refuses to distribute the audit: {str(error).splitlines()[0]}.")
