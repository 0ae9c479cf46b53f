"""Migrations: bring a database to this version's schema, and tell whether it is there."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

import migrations

UNDEFINED_TABLE = "42P01"
_SCRIPTS = ScriptDirectory(str(Path(migrations.__file__).parent))


def migrate(url: str) -> None:
    """Upgrade the database at `url` to the head revision. Two processes may do so at once: one waits for the other."""
    config = Config()
    config.set_main_option("script_location", _SCRIPTS.dir)
    config.attributes["url"] = url
    command.upgrade(config, "head")


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
