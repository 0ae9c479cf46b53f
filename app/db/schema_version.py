"""Checks the schema version of a database without importing Alembic, which would take ten megabytes in each process."""

from pathlib import Path

import asyncpg
from sqlalchemy import text

import migrations
from app.db.connection import Connection

_MIGRATION_FILES = Path(migrations.__file__).parent.glob("versions/*.py")
REVISIONS = sorted("_".join(path.stem.split("_")[:2]) for path in _MIGRATION_FILES)
"""Ids of all migration revisions, oldest first, taken from the file names. A test compares them with Alembic's ids."""
_SELECT_REVISIONS = text("SELECT version_num FROM alembic_version")


class LockTimeoutError(Exception):
    """A migration did not get a lock in time. The message tells the operator what to do."""


class MigrationFailedError(Exception):
    """PostgreSQL rejected a statement of a migration. The message tells the operator what to do."""


class NewerSchemaError(Exception):
    """The database has a revision that this version does not contain, so there is nothing that it could migrate."""


async def read_revisions(connection: Connection) -> list[str]:
    """Return the revisions of the database: one, or none if it was never migrated."""
    try:
        return list((await connection.execute(_SELECT_REVISIONS)).scalars())
    except asyncpg.UndefinedTableError:
        return []


async def schema_is_current(connection: Connection) -> bool:
    """Return whether the revision of the database is the head revision of this version of the service, or a newer one.

    A revision that this version does not contain counts as newer. Deployments first expand the schema and contract it
    later, so a version of the service also runs on the schema of the next version.
    """
    revisions = await read_revisions(connection)
    return any(revision == REVISIONS[-1] or revision not in REVISIONS for revision in revisions)
