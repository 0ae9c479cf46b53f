"""Migrations: bring a database to this version's schema, tell whether it is there, and who may do what in it."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

import migrations
from app.db.base import Base
from app.db.session import Database

UNDEFINED_TABLE = "42P01"
ADVISORY_LOCK = 0x70617469656E7473
"""Any number that all versions agree on, held by who migrates; this one spells `patients`."""
_SCRIPTS = ScriptDirectory(str(Path(migrations.__file__).parent))


def migrate(url: str) -> None:
    """Upgrade the database at `url` to the head revision. Two processes may do so at once: one waits for the other."""
    config = Config()
    config.set_main_option("script_location", _SCRIPTS.dir)
    config.attributes["url"] = url
    command.upgrade(config, "head")


class UnfitRoleError(Exception):
    """The role that is to serve is not there, or may do too much; the message tells the operator what to do."""


_ROLE = text(
    """
    SELECT rolsuper OR pg_has_role(oid, current_user, 'MEMBER') FROM pg_roles WHERE rolname = :role
    """
)


async def check_role(url: str, role: str) -> None:
    """Go on only where `role` can serve without owning the tables.

    Raises:
        UnfitRoleError: it is not there, or may do what the owner may.
    """
    async with Database(url, pool_size=1) as database, database.read() as connection:
        owns = (await connection.execute(_ROLE, {"role": role})).scalar_one_or_none()
    if owns is None:
        raise UnfitRoleError(f"There is no role {role}: CREATE ROLE {role} LOGIN PASSWORD '…', then run this again.")
    if owns:
        raise UnfitRoleError(f"The role {role} may do what the owner of the tables may: serve with another.")


async def grant(url: str, role: str) -> None:
    """Give `role` what serving needs, and no more: of the journal it may neither change nor delete anything."""

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        name = connection.dialect.identifier_preparer.quote(role)
        statements = [
            f"GRANT USAGE ON SCHEMA public, extensions TO {name}",
            f"GRANT SELECT ON alembic_version TO {name}",
        ]
        for table in Base.metadata.sorted_tables:
            rights = table.info.get("serving_rights", "SELECT, INSERT, UPDATE, DELETE")
            statements += [f"REVOKE ALL ON {table.name} FROM {name}", f"GRANT {rights} ON {table.name} TO {name}"]
        for statement in statements:
            await connection.execute(text(statement))

    async with Database(url, pool_size=1, limited=False) as database:
        await database.transaction(work)


async def schema_is_current(connection: AsyncConnection) -> bool:
    """Whether the database has this version's head revision, or one that this version does not know: a newer one.

    Deployments expand first and contract later, so that a version runs on the schema of the next.
    """
    try:
        revisions = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all()
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) == UNDEFINED_TABLE:  # never migrated
            return False
        raise
    known = {script.revision for script in _SCRIPTS.walk_revisions()}
    return any(revision == _SCRIPTS.get_current_head() or revision not in known for revision in revisions)
