"""The command `patients-api`. Each subcommand has its own module, which is imported only when the subcommand runs."""

import argparse
import importlib
import importlib.metadata
import keyword
import os
import sys
from typing import Any

from app.suggestions import suggestion

COMMANDS = {
    "serve": "run the service on the database of DATABASE_URL or on an embedded PostgreSQL",
    "migrate": "upgrade the schema of the database of DATABASE_URL to this version",
    "check": "check settings, database, role, schema, clock, identity provider and disk, and say what to do",
    "import": "import records from CSV or NDJSON files",
    "export": "export records to CSV or NDJSON files",
    "keys": "create, list and revoke API keys",
    "journal": "verify: check the records and the journal; head: print the journal head to keep elsewhere",
    "restore-check": "restore a dump into a temporary database, and verify it there",
    "audit": "prune: remove the months that are older than PATIENTS_AUDIT_DAYS",
    "access-report": "print who has read or changed a patient's record",
    "erase": "permanently remove a person's data everywhere",
    "health": "exit with 0 if a service is ready, otherwise with 1",
    "openapi": "print the OpenAPI document",
    "completion": "print the script that completes commands and options in bash, zsh or fish",
}

DISTRIBUTION = "patients-api"
"""Name under which this package is installed, by which its version is found."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options that `patients-api` has without a command."""
    command_list = "\n".join(f"  {name:<15}{purpose}" for name, purpose in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="patients-api",
        description="Manage the patient records of a clinic group.",
        epilog=f"commands:\n{command_list}\n\nRun `patients-api COMMAND --help` for the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"patients-api {importlib.metadata.version(DISTRIBUTION)}"
    )
    return parser


def import_command(name: str) -> Any:
    """Return the module of a command."""
    module_name = name.replace("-", "_") + ("_" if keyword.iskeyword(name) else "")
    return importlib.import_module(f"app.cli.{module_name}")


def main() -> int:
    """Run the subcommand that the command line names, and return its exit status."""
    parser = make_parser()
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="command to run, followed by its options")
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    command_line = parser.parse_args()
    if command_line.command is None:
        parser.print_help()
        return 0
    if command_line.command not in COMMANDS:
        hint = suggestion(command_line.command, COMMANDS, f"choose from {', '.join(COMMANDS)}")
        parser.error(f"there is no command {command_line.command}; {hint}")

    # every command would fail if this directory did not exist; `serve` creates its own directory for several workers
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    try:
        return _run_command(import_command(command_line.command), command_line)
    except BrokenPipeError:
        # otherwise the flush of stdout at exit would fail, too (see the note on SIGPIPE in the Python documentation)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as in a shell


def _run_command(command_module: Any, command_line: argparse.Namespace) -> int:
    parser = argparse.ArgumentParser(
        prog=f"patients-api {command_line.command}", description=COMMANDS[command_line.command]
    )
    command_module.add_arguments(parser)
    arguments = parser.parse_args(command_line.options)
    try:
        status: int = command_module.run(arguments)
    except command_module.USER_ERRORS as error:
        print(_message_of(error), file=sys.stderr)
        return 1
    return status


def _message_of(error: Exception) -> str:
    """Return the message of an error for operators. It may name hosts and roles, which clients do not learn."""
    operator_message: str | None = getattr(error, "operator_message", None)
    if operator_message is not None:
        return operator_message
    return f"{error} ({type(error.__cause__).__name__})" if error.__cause__ else str(error)
