"""`patients-api migrate`: bring the database of DATABASE_URL to this version's schema."""

import argparse
import asyncio
import sys

import app.models  # noqa: F401  # declares the tables to which rights are given
from app.db.migrate import LockTimeoutError, UnfitRoleError, check_role, grant, migrate
from app.errors import UnavailableError
from app.settings import InvalidSettingsError, Settings

EXPECTED = (InvalidSettingsError, LockTimeoutError, UnfitRoleError, UnavailableError)
"""What may go wrong that an operator can mend."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument(
        "--serving-role",
        metavar="ROLE",
        help="a role of its own for `serve`: it gets the rights that serving needs, and none to change the journal",
    )


def run(arguments: argparse.Namespace) -> int:
    """Migrate; 0, or 1 where there is no DATABASE_URL."""
    settings = Settings.load()
    if settings.database_url is None:
        print("Set DATABASE_URL. The embedded database is migrated by `patients-api serve`.", file=sys.stderr)
        return 1
    url = settings.database_url.get_secret_value()
    if arguments.serving_role is not None:
        asyncio.run(check_role(url, arguments.serving_role))
    migrate(url)
    if arguments.serving_role is not None:
        left = asyncio.run(grant(url, arguments.serving_role))
        if left:
            print(f"The role {arguments.serving_role} is for who made it to alter.", file=sys.stderr)
            print("To serve through a connection pooler, and only for that, let them run:", file=sys.stderr)
            print(*(f"{statement};" for statement in left), sep="\n", file=sys.stderr)
    return 0
