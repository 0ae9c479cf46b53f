"""`patients-api migrate`: bring the database of DATABASE_URL to this version's schema."""

import argparse
import sys
from typing import Any

from app.db.migrate import migrate
from app.settings import Settings


def add_parser(commands: Any) -> None:  # argparse has no public type for it
    """Declare the subcommand."""
    parser = commands.add_parser("migrate", help="bring the database of DATABASE_URL to this version's schema")
    parser.set_defaults(run=run)


def run(_: argparse.Namespace, settings: Settings) -> int:
    """Migrate; 0, or 1 where there is no DATABASE_URL."""
    if settings.database_url is None:
        print("Set DATABASE_URL. The embedded database is migrated by `patients-api serve`.", file=sys.stderr)
        return 1
    migrate(settings.database_url.get_secret_value())
    return 0
