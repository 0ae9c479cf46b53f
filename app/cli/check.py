"""`patients-api check`: check the settings, the database, the identity provider and the disk, a line for each."""

import argparse
import asyncio
import json
from collections.abc import Iterator

from app.checks import Check, check_database, check_disk, check_identity_provider
from app.cli.database import NoDatabaseError, open_database_url
from app.embedded.server import EmbeddedPostgresError
from app.settings import InvalidSettingsError, Settings

USER_ERRORS = ()


def run(arguments: argparse.Namespace) -> int:
    """Check everything, print the results, and return 0 if no check failed, otherwise 1.

    Checks that need a database are left out if it cannot be reached.
    """
    try:
        checks = list(_check_all(Settings.load()))
    except InvalidSettingsError as error:
        checks = [Check("settings", "failed", str(error).replace("\n", "; "))]
    if arguments.json:
        print(json.dumps([check._asdict() for check in checks], indent=2, ensure_ascii=False))
    else:
        for check in checks:
            print(f"{check.status:<10}{check.name:<19}{check.explanation}")
    return 1 if any(check.status == "failed" for check in checks) else 0


def _check_all(settings: Settings) -> Iterator[Check]:
    yield Check("settings", "ok", "All variables are valid.")
    yield check_disk(settings)
    try:
        with open_database_url(settings) as url:
            yield from asyncio.run(check_database(url))
    except NoDatabaseError:
        yield Check(
            "database", "not used", f"`patients-api serve` creates the embedded database in {settings.data_dir}."
        )
    except EmbeddedPostgresError as error:
        yield Check("database", "failed", str(error))
    yield asyncio.run(check_identity_provider(settings))
