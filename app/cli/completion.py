"""`patients-api completion`: print a script with which a shell completes commands, options and values."""

import argparse

import shtab

from app.arguments.commands import COMMANDS
from app.cli import make_parser

USER_ERRORS = ()
COMPLETED_METAVARS = {"FILE": shtab.FILE, "DIRECTORY": shtab.DIRECTORY}
"""What the shell completes itself, by the metavar of the argument."""


def run(arguments: argparse.Namespace) -> int:
    """Print the script, and return 0."""
    parser = make_parser()
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in COMMANDS.items():
        command_parser = commands.add_parser(name, help=command.purpose, description=command.purpose)
        command.add_arguments(command_parser)
        _complete_files(command_parser)
    print(shtab.complete(parser, arguments.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:  # noqa: SLF001  # argparse has no public list of the arguments, and shtab uses this one
        if action.metavar in COMPLETED_METAVARS:
            action.complete = COMPLETED_METAVARS[action.metavar]  # type: ignore[attr-defined]
