"""`patients-api migrate`: upgrade the schema of the database of DATABASE_URL to this version."""

import argparse
import asyncio
import sys

import asyncpg

import app.models  # noqa: F401  # declares the tables on which rights are granted
from app.audit.distribution import CannotDistributeError, distribute_audit, explain_refusal
from app.audit.retention import add_months
from app.counts import counted
from app.db.database import Database
from app.db.errors import LockNotAvailableError
from app.db.migrate import UnsuitableRoleError, check_serving_role, grant_serving_rights, migrate
from app.db.schema_version import REVISIONS, LockTimeoutError, MigrationFailedError, NewerSchemaError
from app.errors import UnavailableError
from app.settings import InvalidSettingsError, Settings

USER_ERRORS = (
    CannotDistributeError,
    InvalidSettingsError,
    LockTimeoutError,
    MigrationFailedError,
    UnsuitableRoleError,
    UnavailableError,
)
"""The errors that an operator can fix. Only their messages are printed, without a traceback."""


async def _add_months(url: str) -> None:
    async with Database(url, pool_size=1, with_timeouts=False) as database:
        await add_months(database)


async def _distribute_audit(url: str) -> None:
    """Move the audit to the workers of Citus, and print what was done."""
    async with Database(url, pool_size=1, with_timeouts=False) as database:
        try:
            workers, moved_rows, shards, removed_bytes = await distribute_audit(database)
        except LockNotAvailableError:
            raise LockTimeoutError(
                "The audit is in use by a long transaction. Run this command again when that transaction has ended."
            ) from None
        except asyncpg.PostgresError as error:
            raise explain_refusal(error) from None
    if moved_rows is None:
        print("The audit was already distributed.")
    else:
        print(f"Moved {counted(moved_rows, 'entry', 'entries')} of the audit to the workers.")
    print(f"Checked: {shards} shards on {', '.join(workers)} reject changes.")
    if removed_bytes:
        print(f"Removed the copy on the coordinator ({removed_bytes:,} bytes).")
    print("The way back is to dump the database and to restore it. Grant the rights anew: migrate --serving-role ROLE.")


def _print_applied(revisions: list[str]) -> None:
    if not revisions:
        print(f"The schema is up to date (revision {REVISIONS[-1]}): nothing to migrate.")
        return
    print(f"Applied {counted(len(revisions), 'revision')}:")
    for revision in revisions:
        print(f"  {revision}")


def run(arguments: argparse.Namespace) -> int:
    """Upgrade the schema, and grant rights to the serving role if there is one.

    Return 0, or 1 if DATABASE_URL is not set.
    """
    settings = Settings.load()
    if settings.database_url is None:
        print("Set DATABASE_URL. To migrate the embedded database, run `patients-api serve`.", file=sys.stderr)
        return 1
    url = settings.database_url.get_secret_value()
    if arguments.serving_role is not None:
        asyncio.run(check_serving_role(url, arguments.serving_role))
    try:
        _print_applied(migrate(url))
    except NewerSchemaError:
        # no error, because the previous version is started again after a failed deployment, by the same commands
        print("A newer version has migrated the database, and this version works with it: nothing to migrate.")
        if arguments.serving_role is not None:
            print(f"The rights of {arguments.serving_role} stay as that version has granted them.")
        return 0
    asyncio.run(_add_months(url))
    if arguments.distribute_audit:
        asyncio.run(_distribute_audit(url))
    if arguments.serving_role is not None:
        unapplied_statements = asyncio.run(grant_serving_rights(url, arguments.serving_role))
        if unapplied_statements:
            print(f"Done: {arguments.serving_role} can serve.", file=sys.stderr)
            print(
                "The rest is not an error; it matters only with a connection pooler such as PgBouncer.", file=sys.stderr
            )
            print("Through a pooler, timeouts come from the role, and only its creator may alter it.", file=sys.stderr)
            print("If you use a pooler, have an administrator run:", file=sys.stderr)
            print(*(f"{statement};" for statement in unapplied_statements), sep="\n", file=sys.stderr)
    return 0
