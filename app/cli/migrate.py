"""`patients-api migrate`: bring the database of DATABASE_URL to this version's schema."""

import argparse
import sys

from app.db.migrate import migrate
from app.errors import UnavailableError
from app.settings import Settings

EXPECTED = (UnavailableError,)
"""What may go wrong that an operator can mend."""


def add_arguments(_: argparse.ArgumentParser) -> None:
    """It has none."""


def run(_: argparse.Namespace, settings: Settings) -> int:
    """Migrate; 0, or 1 where there is no DATABASE_URL."""
    if settings.database_url is None:
        print("Set DATABASE_URL. The embedded database is migrated by `patients-api serve`.", file=sys.stderr)
        return 1
    migrate(settings.database_url.get_secret_value())
    return 0
