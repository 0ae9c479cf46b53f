"""How commands end when they are told to before they are done."""

import signal
import sys
from typing import NoReturn


def exit_on_sigterm() -> None:
    """Have SIGTERM end the command as Ctrl-C does: everything is undone and closed that is not done."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)  # as a shell has it
