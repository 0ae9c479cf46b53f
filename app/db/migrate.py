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
UNDEFINED_OBJECT = "42704"
_SCRIPTS = ScriptDirectory(str(Path(migrations.__file__).parent))


def migrate(url: str) -> None:
    """Upgrade the database at `url` to the head revision. Two processes may do so at once: one waits for the other."""
    config = Config()
    config.set_main_option("script_location", _SCRIPTS.dir)
    config.attributes["url"] = url
    command.upgrade(config, "head")


class NoSuchRoleError(Exception):
    """The role that is to serve is not there; the message tells the operator what to do."""


async def grant(url: str, role: str) -> None:
    """Give `role` what serving needs, and no more: of the journal it may neither change nor delete anything.

    Raises:
        NoSuchRoleError: there is no such role.
    """

    async def work(connection: AsyncConnection) -> None:
        name = connection.dialect.identifier_preparer.quote(role)
        statements = [f"GRANT USAGE ON SCHEMA public TO {name}", f"GRANT SELECT ON alembic_version TO {name}"]
        for table in Base.metadata.sorted_tables:
            rights = table.info.get("serving_rights", "SELECT, INSERT, UPDATE, DELETE")
            statements += [f"REVOKE ALL ON {table.name} FROM {name}", f"GRANT {rights} ON {table.name} TO {name}"]
        for statement in statements:
            await connection.execute(text(statement))

    async with Database(url, pool_size=1, limited=False) as database:
        try:
            await database.transaction(work)
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) == UNDEFINED_OBJECT:
                raise NoSuchRoleError(
                    f"There is no role {role}: CREATE ROLE {role} LOGIN PASSWORD '…', then run this again."
                ) from None
            raise


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
