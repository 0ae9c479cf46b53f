"""Migrations: functions that upgrade a database to this version's schema and grant the serving role its rights."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import NullPool, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import migrations
from app.db.base import Base
from app.db.connection import DIALECT, Connection
from app.db.database import Database
from app.db.errors import READ_ONLY_MESSAGE, READ_ONLY_TRANSACTION
from app.db.pool import CITUS_SETTINGS, HAS_CITUS, SESSION_SETTINGS, open_connection
from app.db.rights import distributed_tables, serving_grants
from app.db.schema_version import LockTimeoutError, MigrationFailedError, NewerSchemaError, explain_schema

LOCK_NOT_AVAILABLE = "55P03"
INSUFFICIENT_PRIVILEGE = "42501"
_EXTENSION_NOT_AVAILABLE = ("0A000", "58P01")
"""SQLSTATEs of `CREATE EXTENSION` if the server lacks the files of the extension."""
_NO_USABLE_SCHEMA = "3F000"
"""SQLSTATE of `CREATE TABLE` if the role may not even use the schema public."""
_SCHEMA_ERRORS = "42"
"""Class of the SQLSTATEs "syntax error or access rule violation", whose messages name tables but quote no data."""
MIGRATION_LOCK_KEY = 0x70617469656E7473
"""Key of the advisory lock for migrations. The number is arbitrary (its bytes spell the word "patients"), but all
versions must use the same number."""
_LOCK_POLL_INTERVAL_SECONDS = 0.1
"""Seconds between two attempts to acquire the migration lock."""


def migrate(url: str) -> list[str]:
    """Upgrade the database at `url` to the head revision. Processes that do this concurrently take turns.

    Return the file names of the revisions that this call applied, without `.py`, in order.

    Raises:
        LockTimeoutError: another transaction held a lock for too long. All earlier revisions have been applied.
        MigrationFailedError: PostgreSQL rejected a statement. All earlier revisions have been applied. Also raised if
            the database is that of another application.
        NewerSchemaError: a newer version has migrated the database.
        UnavailableError: the database cannot be reached.
    """
    applied: list[str] = []
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["url"] = url
    config.attributes["on_version_apply"] = lambda *, step, **_: applied.append(Path(step.up_revision.path).stem)
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        if not isinstance(error.__cause__, ResolutionError):
            raise
        if (problem := explain_schema([str(error.__cause__.argument)])) is not None:
            raise MigrationFailedError(problem) from None
        raise NewerSchemaError from error
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise MigrationFailedError(_explain_failure(error)) from None
        raise LockTimeoutError(
            "A migration gave up waiting for a lock, so that requests do not have to wait behind it: a long "
            "transaction, such as a dump, is running. All earlier revisions are applied. Run this command again when "
            "that transaction has ended."
        ) from None
    return applied


def _explain_failure(error: DBAPIError) -> str:
    """Return what is wrong and what to do. Only a message about the schema is quoted: others might contain data."""
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    message = str(getattr(error.orig, "__cause__", None) or error.orig).partition("\n")[0]
    state = "All earlier revisions are applied."
    if sqlstate == READ_ONLY_TRANSACTION:
        return READ_ONLY_MESSAGE
    if "extension" in message and sqlstate in _EXTENSION_NOT_AVAILABLE:
        return (
            f"A migration failed: {message}. Install the additional modules of PostgreSQL on the server (in many "
            f"distributions the package postgresql-contrib), then run this command again. {state}"
        )
    if sqlstate in {INSUFFICIENT_PRIVILEGE, _NO_USABLE_SCHEMA}:
        return (
            f"A migration failed: {message}. Use the DATABASE_URL of the role that owns the database and its tables. "
            f"{state}"
        )
    if sqlstate.startswith(_SCHEMA_ERRORS):
        return f"A migration failed: {message}. Correct this in the database, then run this command again. {state}"
    return f"A migration failed with SQLSTATE {sqlstate or 'unknown'}: see the log of PostgreSQL. {state}"


TRY_MIGRATION_LOCK = text(f"SELECT pg_try_advisory_lock({MIGRATION_LOCK_KEY})")
"""Statement that returns whether it acquired the migration lock, which the session then holds until it ends."""


async def acquire_migration_lock(try_lock: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `try_lock`, which executes `TRY_MIGRATION_LOCK`, acquires the lock.

    This function polls for the lock. Each attempt must be a transaction of its own. A single transaction that waited
    for the lock in PostgreSQL would hold a snapshot, and CREATE INDEX CONCURRENTLY waits for all transactions that hold
    a snapshot. If the session that holds the lock built such an index, the two sessions would wait for each other,
    which is a deadlock.
    """
    while not await try_lock():  # noqa: ASYNC110  # PostgreSQL offers no event
        await asyncio.sleep(_LOCK_POLL_INTERVAL_SECONDS)


def create_engine(url: str) -> AsyncEngine:
    """Return an engine for Alembic, which needs SQLAlchemy's own connections. `url` must point to PostgreSQL itself."""

    def connect() -> Any:
        dbapi: Any = engine.dialect.dbapi
        return dbapi.connect(async_creator_fn=partial(open_connection, url))

    engine = create_async_engine("postgresql+asyncpg://", creator=connect, poolclass=NullPool, hide_parameters=True)
    return engine


class UnsuitableRoleError(Exception):
    """The serving role does not exist or has too many rights. The message tells the operator what to do."""


_SELECT_HAS_OWNER_RIGHTS = text(
    """
    SELECT rolsuper OR pg_has_role(oid, current_user, 'MEMBER') FROM pg_roles WHERE rolname = :role
    """
)


_SELECT_PARTITIONS = text(
    "SELECT CAST(CAST(oid AS regclass) AS text) FROM pg_class WHERE relispartition AND relkind = 'r'"
)


_SELECT_HAS_CITUS = text(f"SELECT {HAS_CITUS}")
_SELECT_ROLE_SETTINGS = text(
    """
    SELECT lower(split_part(setting, '=', 1)) || '=' || substr(setting, strpos(setting, '=') + 1)
    FROM pg_db_role_setting
    JOIN pg_roles ON pg_roles.oid = setrole
    JOIN pg_database ON pg_database.oid = setdatabase
    CROSS JOIN unnest(setconfig) AS setting
    WHERE rolname = :role AND datname = current_database()
    """
)
"""Selects the settings of a role in this database, as `name=value` with the name in lower case."""


async def check_serving_role(url: str, role: str) -> None:
    """Check that `role` exists and does not have the rights of the role that owns the tables.

    Raises:
        UnsuitableRoleError: `role` does not exist, or it has the rights of the owner.
    """
    async with Database(url, pool_size=1) as database, database.read() as connection:
        has_owner_rights = (await connection.execute(_SELECT_HAS_OWNER_RIGHTS, {"role": role})).scalar_one_or_none()
    if has_owner_rights is None:
        raise UnsuitableRoleError(
            f"There is no role {role}: run CREATE ROLE {role} LOGIN PASSWORD '…', then run this command again."
        )
    if has_owner_rights:
        raise UnsuitableRoleError(
            f"The role {role} has the rights of the tables' owner: choose another role for serving."
        )


async def grant_serving_rights(url: str, role: str) -> list[str]:
    """Grant `role` only the rights that serving needs. For example, `role` may not change or delete journal entries.

    Also give `role` the session settings that a connection through a pooler cannot set itself, and return an empty
    list. If the current role may not alter `role`, return instead the statements that add missing settings. An operator
    who may alter `role` must then run the statements, unless the service connects without a pooler.
    """

    async def work(connection: Connection) -> list[str]:
        quoted_role = DIALECT.identifier_preparer.quote(role)
        statements = [
            f"GRANT USAGE ON SCHEMA public, extensions TO {quoted_role}",
            f"GRANT SELECT ON alembic_version TO {quoted_role}",
        ]
        distributed = await distributed_tables(connection)
        for table in Base.metadata.sorted_tables:
            grants = serving_grants(table, is_distributed=table.name in distributed)
            statements.append(f"REVOKE ALL ON {table.name} FROM {quoted_role}")
            statements += [f"GRANT {grant} TO {quoted_role}" for grant in grants]
            if (function := table.info.get("serving_function")) is not None:
                statements.append(f"GRANT EXECUTE ON FUNCTION {function} TO {quoted_role}")
        # the service accesses partitions only through their partitioned table
        partitions = (await connection.execute(_SELECT_PARTITIONS)).scalars()
        statements += [f"REVOKE ALL ON {partition} FROM {quoted_role}" for partition in partitions]
        for statement in statements:
            await connection.execute(text(statement))
        database_name = (await connection.execute(text("SELECT current_database()"))).scalar_one()
        quoted_database = DIALECT.identifier_preparer.quote(database_name)
        has_citus = (await connection.execute(_SELECT_HAS_CITUS)).scalar_one()
        settings = {**SESSION_SETTINGS, **(CITUS_SETTINGS if has_citus else {})}
        role_settings = [
            f"ALTER ROLE {quoted_role} IN DATABASE {quoted_database} SET {key} = '{value}'"
            for key, value in settings.items()
        ]
        try:
            async with connection.savepoint():
                for setting in role_settings:
                    await connection.execute(text(setting))
        except asyncpg.InsufficientPrivilegeError:
            stored = set((await connection.execute(_SELECT_ROLE_SETTINGS, {"role": role})).scalars())
            pairs = zip(role_settings, settings.items(), strict=True)
            return [statement for statement, (key, value) in pairs if f"{key.lower()}={value}" not in stored]
        return []

    async with Database(url, pool_size=1, with_timeouts=False) as database:
        async with database.read() as connection:
            # the pool has one connection, so the transaction below runs in the session that holds the lock

            async def try_lock() -> bool:
                return bool((await connection.execute(TRY_MIGRATION_LOCK)).scalar_one())

            await acquire_migration_lock(try_lock)
        return await database.transaction(work)
