"""Whether a database has this version's schema. Without Alembic, which takes ten megabytes of each process."""

from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

import migrations

UNDEFINED_TABLE = "42P01"
_MIGRATION_FILES = Path(migrations.__file__).parent.glob("versions/*.py")
REVISIONS = sorted("_".join(path.stem.split("_")[:2]) for path in _MIGRATION_FILES)
"""All that there are, by the names of their files: each follows the one before. A test compares them with Alembic's."""


class LockTimeoutError(Exception):
    """A migration did not get a lock in time; the message tells the operator what to do."""


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
    return any(revision == REVISIONS[-1] or revision not in REVISIONS for revision in revisions)
