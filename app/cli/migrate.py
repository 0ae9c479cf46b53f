"""`patients-api migrate`: bring the database of DATABASE_URL to this version's schema."""

import argparse
import asyncio
import sys

import app.models  # noqa: F401  # declares the tables to which rights are given
from app.audit.retention import add_months
from app.db.database import Database
from app.db.migrate import UnsuitableRoleError, check_serving_role, grant_serving_rights, migrate
from app.db.schema_version import LockTimeoutError
from app.errors import UnavailableError
from app.settings import InvalidSettingsError, Settings

USER_ERRORS = (InvalidSettingsError, LockTimeoutError, UnsuitableRoleError, UnavailableError)
"""What may go wrong that an operator can mend."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument(
        "--serving-role",
        metavar="ROLE",
        help="a role of its own for `serve`: it gets the rights that serving needs, and none to change the journal",
    )


async def _add_months(url: str) -> None:
    async with Database(url, pool_size=1, with_timeouts=False) as database:
        await add_months(database)


def run(arguments: argparse.Namespace) -> int:
    """Migrate; 0, or 1 where there is no DATABASE_URL."""
    settings = Settings.load()
    if settings.database_url is None:
        print("Set DATABASE_URL. The embedded database is migrated by `patients-api serve`.", file=sys.stderr)
        return 1
    url = settings.database_url.get_secret_value()
    if arguments.serving_role is not None:
        asyncio.run(check_serving_role(url, arguments.serving_role))
    migrate(url)
    asyncio.run(_add_months(url))
    if arguments.serving_role is not None:
        unapplied_statements = asyncio.run(grant_serving_rights(url, arguments.serving_role))
        if unapplied_statements:
            print(f"Done: {arguments.serving_role} may serve.", file=sys.stderr)
            print("The rest is no error, and matters only with a connection pooler such as PgBouncer.", file=sys.stderr)
            print("Through one, time limits come from the role, and only who made it may alter it.", file=sys.stderr)
            print("For a pooler have an administrator run:", file=sys.stderr)
            print(*(f"{statement};" for statement in unapplied_statements), sep="\n", file=sys.stderr)
    return 0
