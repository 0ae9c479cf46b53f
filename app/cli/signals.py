"""The handling of signals that end a command before it is done."""

import signal
import sys
from typing import NoReturn


def exit_on_sigterm() -> None:
    """Make SIGTERM end the command as Ctrl-C does: unfinished work is undone, and everything is closed."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)  # as in a shell
