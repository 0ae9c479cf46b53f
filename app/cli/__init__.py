"""The command `patients-api`: one file per subcommand, each imported only when it runs."""

import argparse
import importlib
import keyword
import os
import sys
from typing import Any

COMMANDS = {
    "serve": "serve on the database of DATABASE_URL, or on an embedded PostgreSQL",
    "migrate": "bring the database of DATABASE_URL to this version's schema",
    "import": "bring records in from a CSV or NDJSON file",
    "export": "write records into a CSV or NDJSON file",
    "keys": "create, list and revoke API keys",
    "journal": "verify: prove that the journal tells the truth; head: print a line to keep elsewhere",
    "audit": "prune: remove what has been on record for longer than it is kept",
    "access-report": "print who has seen or changed a patient's record",
    "erase": "remove a person's data everywhere, for good",
    "health": "exit with 0 if a service is ready, else with 1",
    "openapi": "print the OpenAPI document",
}


def main() -> int:
    """Run the subcommand that the command line names; its exit status."""
    command_list = "\n".join(f"  {name:<15}{purpose}" for name, purpose in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="patients-api",
        description="Keeps a clinic group's patients.",
        epilog=f"commands:\n{command_list}\n\n`patients-api COMMAND --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="what to do, with its own options")
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    command_line = parser.parse_args()

    # `serve` makes a directory of its own for several workers; one that is not there would stop every command
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    module_name = command_line.command.replace("-", "_") + ("_" if keyword.iskeyword(command_line.command) else "")
    try:
        return _run_command(importlib.import_module(f"app.cli.{module_name}"), command_line)
    except BrokenPipeError:
        # Python flushes once more when it ends (its documentation of SIGPIPE)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130  # as a shell has it for SIGINT


def _run_command(command_module: Any, command_line: argparse.Namespace) -> int:
    parser = argparse.ArgumentParser(
        prog=f"patients-api {command_line.command}", description=COMMANDS[command_line.command]
    )
    command_module.add_arguments(parser)
    arguments = parser.parse_args(command_line.options)
    try:
        status: int = command_module.run(arguments)
    except command_module.USER_ERRORS as error:
        cause = f" ({type(error.__cause__).__name__})" if error.__cause__ else ""
        print(f"{error}{cause}", file=sys.stderr)
        return 1
    return status
