"""Check of a database's schema version, without Alembic, which takes ten megabytes in each process."""

from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

import migrations

UNDEFINED_TABLE = "42P01"
_MIGRATION_FILES = Path(migrations.__file__).parent.glob("versions/*.py")
REVISIONS = sorted("_".join(path.stem.split("_")[:2]) for path in _MIGRATION_FILES)
"""All revisions, from their file names, each after the one it follows. A test compares them with Alembic's."""


class LockTimeoutError(Exception):
    """A migration did not get a lock in time; the message tells the operator what to do."""


async def schema_is_current(connection: AsyncConnection) -> bool:
    """Return whether the database has this version's head revision, or one unknown to this version, which is newer.

    Deployments expand first and contract later, so a version also runs on the schema of the next.
    """
    try:
        revisions = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all()
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) == UNDEFINED_TABLE:  # never migrated
            return False
        raise
    return any(revision == REVISIONS[-1] or revision not in REVISIONS for revision in revisions)
