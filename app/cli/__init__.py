"""The command `patients-api`. Each subcommand has its own module, which is imported only when the subcommand runs.

Its arguments are in `app.arguments.commands`, and are parsed before.
"""

import argparse
import gc
import importlib
import importlib.metadata
import keyword
import os
import sys
from pathlib import Path
from typing import Any

from app.arguments.commands import COMMANDS, CommandParser
from app.suggestions import suggestion

_PACKAGE_DIRECTORY = Path(__file__).parent.parent
DISTRIBUTION = "patients-api"
"""Name under which this package is installed, by which its version is found."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options that `patients-api` has without a command."""
    command_list = "\n".join(f"  {name:<18}{command.purpose}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="patients-api",
        description="Manage the patient records of a clinic group.",
        epilog=f"commands:\n{command_list}\n\nRun `patients-api COMMAND --help` for the options of a command. "
        "All settings\nare environment variables: docs/deploying.md lists them, and `check` checks them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"patients-api {importlib.metadata.version(DISTRIBUTION)}"
    )
    return parser


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
        return _run_command(command_line.command, command_line.options)
    except BrokenPipeError:
        # otherwise the flush of stdout at exit would fail, too (see the note on SIGPIPE in the Python documentation)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        from app.terminal.signals import interruption_status  # noqa: PLC0415  # help does not need it

        return interruption_status()
    except Exception as error:  # no command prints a traceback: its messages might quote data
        if sys.flags.dev_mode:
            raise
        print(_explain_unexpected(error), file=sys.stderr)
        return 1


def _explain_unexpected(error: Exception) -> str:
    """Return a message for an error that the command does not expect: what the system reports, or where a defect is."""
    if isinstance(error, OSError):
        return f"The command failed: {error.strerror or type(error).__name__}."
    import traceback  # noqa: PLC0415  # help does not need it

    places = [
        f"{Path(frame.filename).relative_to(_PACKAGE_DIRECTORY.parent)}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(_PACKAGE_DIRECTORY)
    ]
    return (
        f"This is a defect of patients-api: {type(error).__name__} in {' > '.join(places)}. Please report it. "
        "With PYTHONDEVMODE=1, the command prints a traceback, which may contain personal data."
    )


def _run_command(name: str, options: list[str]) -> int:
    purpose, add_arguments = COMMANDS[name]
    parser = CommandParser(prog=f"patients-api {name}", description=purpose)
    add_arguments(parser)
    arguments = parser.parse_args(options)
    command_module = _import_command(name)
    try:
        status: int = command_module.run(arguments)
    except command_module.USER_ERRORS as error:
        print(_message_of(error), file=sys.stderr)
        return 1
    return status


def _import_command(name: str) -> Any:
    """Return the module of a command."""
    module_name = name.replace("-", "_") + ("_" if keyword.iskeyword(name) else "")
    return import_module(f"app.cli.{module_name}")


def import_module(name: str) -> Any:
    """Import a module with all modules that it imports, and return it.

    The imported code stays in memory, so garbage collection is switched off during the import and ignores the code
    afterwards. It would otherwise take a third of the CPU time of a short command.
    """
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def _message_of(error: Exception) -> str:
    """Return the message of an error for operators. It may name hosts and roles, which clients do not learn."""
    operator_message: str | None = getattr(error, "operator_message", None)
    if operator_message is not None:
        return operator_message
    return f"{error} ({type(error.__cause__).__name__})" if error.__cause__ else str(error)
