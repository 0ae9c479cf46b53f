"""Checks the schema version of a database without importing Alembic, which would take ten megabytes in each process."""

import re
from collections.abc import Sequence
from pathlib import Path

import asyncpg
from sqlalchemy import text

import migrations
from app.db.connection import Connection

_MIGRATION_FILES = Path(migrations.__file__).parent.glob("versions/*.py")
REVISIONS = sorted("_".join(path.stem.split("_")[:2]) for path in _MIGRATION_FILES)
"""Ids of all migration revisions, oldest first, taken from the file names. A test compares them with Alembic's ids."""
_REVISION_PATTERN = re.compile(r"\d{8}_\d{2}")
"""Matches the ids of this project's revisions, which begin with a date, so that they sort by age."""
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


def is_newer(revision: str) -> bool:
    """Return whether a later version of the service has this revision.

    A revision that is neither newer nor in `REVISIONS` is not of this project: other projects use Alembic, too.
    """
    return _REVISION_PATTERN.fullmatch(revision) is not None and revision > REVISIONS[-1]


def explain_schema(revisions: Sequence[str]) -> str | None:
    """Return what is wrong with a database of these revisions and what to do, or None if this version can use it.

    Deployments first expand the schema and contract it later, so a version of the service also runs on the schema of
    the next version.
    """
    remedy = "run `patients-api migrate`, or `patients-api serve` for the embedded database."
    if not revisions:
        return f"The database was never migrated: {remedy}"
    revision = revisions[0]
    if revision == REVISIONS[-1] or is_newer(revision):
        return None
    if revision in REVISIONS:
        return f"Revision {revision} of the schema is outdated; this version needs {REVISIONS[-1]}: {remedy}"
    return (
        f"Revision {revision} in the table alembic_version is not of this service, so another application uses this "
        "database: correct DATABASE_URL, or create a database of its own."
    )


async def schema_is_current(connection: Connection) -> bool:
    """Return whether this version of the service can use the schema of the database."""
    return explain_schema(await read_revisions(connection)) is None
