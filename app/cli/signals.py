"""Handles the signals that end a command before it is finished."""

import signal
import sys
from typing import NoReturn


def exit_on_sigterm() -> None:
    """Make SIGTERM end the command as Ctrl-C does. Unfinished work is undone, and files and connections are closed."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)  # as in a shell
