"""The command `patients-api`: one file per subcommand."""

import argparse
import sys

from app.cli import health, migrate, openapi, serve
from app.cli.serve import CannotServeError
from app.db.embedded import EmbeddedPostgresError
from app.errors import UnavailableError
from app.settings import InvalidSettingsError, Settings


def main() -> int:
    """Run the subcommand that the command line names; its exit status."""
    parser = argparse.ArgumentParser(prog="patients-api", description="Keeps a clinic group's patients.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (serve, migrate, health, openapi):
        command.add_parser(commands)
    arguments = parser.parse_args()
    try:
        status: int = arguments.run(arguments, Settings.load())
    except (InvalidSettingsError, CannotServeError, EmbeddedPostgresError, UnavailableError) as error:
        print(error, file=sys.stderr)
        return 1
    return status
