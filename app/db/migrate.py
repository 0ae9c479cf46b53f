"""Migrations: bring a database to this version's schema, and who may do what in it."""

import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

import migrations
from app.db.base import Base
from app.db.database import Database
from app.db.engine import SESSION_SETTINGS
from app.db.schema_version import LockTimeoutError

LOCK_NOT_AVAILABLE = "55P03"
INSUFFICIENT_PRIVILEGE = "42501"
MIGRATION_LOCK_KEY = 0x70617469656E7473
"""Any number that all versions agree on, held by who migrates; this one spells `patients`."""
_LOCK_POLL_INTERVAL_SECONDS = 0.1
"""Seconds between two questions whether it is our turn."""


def migrate(url: str) -> None:
    """Upgrade the database at `url` to the head revision. Two processes may do so at once: one waits for the other.

    Raises:
        LockTimeoutError: others have held a lock for too long; all revisions before are done.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["url"] = url
    try:
        command.upgrade(config, "head")
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        raise LockTimeoutError(
            "A migration gave up waiting for a lock, so that requests need not wait behind it: a long transaction, "
            "such as a dump, is under way. The revisions before it are done. Run this again when that has ended."
        ) from None


def acquire_migration_lock(connection: Connection) -> None:
    """Wait until nobody else migrates. The turn is the session's, over all its transactions, until it ends.

    By asking again, each time in a transaction of its own, so the connection is in AUTOCOMMIT: an index that is built
    CONCURRENTLY waits for all who have a snapshot, and who waits in PostgreSQL for our turn has one: a deadlock.
    """
    while True:
        if connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": MIGRATION_LOCK_KEY}).scalar_one():
            return
        time.sleep(_LOCK_POLL_INTERVAL_SECONDS)


class UnsuitableRoleError(Exception):
    """The role that is to serve is not there, or may do too much; the message tells the operator what to do."""


_SELECT_HAS_OWNER_RIGHTS = text(
    """
    SELECT rolsuper OR pg_has_role(oid, current_user, 'MEMBER') FROM pg_roles WHERE rolname = :role
    """
)


_SELECT_PARTITIONS = text(
    "SELECT CAST(CAST(oid AS regclass) AS text) FROM pg_class WHERE relispartition AND relkind = 'r'"
)


async def check_serving_role(url: str, role: str) -> None:
    """Go on only where `role` can serve without owning the tables.

    Raises:
        UnfitRoleError: it is not there, or may do what the owner may.
    """
    async with Database(url, pool_size=1) as database, database.read() as connection:
        has_owner_rights = (await connection.execute(_SELECT_HAS_OWNER_RIGHTS, {"role": role})).scalar_one_or_none()
    if has_owner_rights is None:
        raise UnsuitableRoleError(
            f"There is no role {role}: CREATE ROLE {role} LOGIN PASSWORD '…', then run this again."
        )
    if has_owner_rights:
        raise UnsuitableRoleError(f"The role {role} may do what the owner of the tables may: serve with another.")


async def grant_serving_rights(url: str, role: str) -> list[str]:
    """Give `role` what serving needs, and no more: of the journal it may neither change nor delete anything.

    The statements that are left for who may alter the role. They give its sessions the limits that a connection
    through a pooler cannot bring along; without a pooler nothing is missing.
    """

    async def work(connection: AsyncConnection) -> list[str]:
        quoted_role = connection.dialect.identifier_preparer.quote(role)
        statements = [
            f"GRANT USAGE ON SCHEMA public, extensions TO {quoted_role}",
            f"GRANT SELECT ON alembic_version TO {quoted_role}",
        ]
        for table in Base.metadata.sorted_tables:
            rights = table.info.get("serving_rights", "SELECT, INSERT, UPDATE, DELETE")
            statements += [
                f"REVOKE ALL ON {table.name} FROM {quoted_role}",
                f"GRANT {rights} ON {table.name} TO {quoted_role}",
            ]
            if (function := table.info.get("serving_function")) is not None:
                statements.append(f"GRANT EXECUTE ON FUNCTION {function} TO {quoted_role}")
        # what may be done is done by way of the table that they are parts of
        partitions = (await connection.execute(_SELECT_PARTITIONS)).scalars()
        statements += [f"REVOKE ALL ON {partition} FROM {quoted_role}" for partition in partitions]
        for statement in statements:
            await connection.execute(text(statement))
        database_name = (await connection.execute(text("SELECT current_database()"))).scalar_one()
        quoted_database = connection.dialect.identifier_preparer.quote(database_name)
        role_settings = [
            f"ALTER ROLE {quoted_role} IN DATABASE {quoted_database} SET {key} = '{value}'"
            for key, value in SESSION_SETTINGS.items()
        ]
        try:
            async with connection.begin_nested():
                for setting in role_settings:
                    await connection.execute(text(setting))
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) != INSUFFICIENT_PRIVILEGE:
                raise
            return role_settings
        return []

    async with Database(url, pool_size=1, with_timeouts=False) as database:
        async with database.read() as connection:
            await connection.run_sync(
                acquire_migration_lock
            )  # the only connection of the pool: the transaction has it too
        return await database.transaction(work)
