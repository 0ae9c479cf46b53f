"""Handles the signals that end a command before it is finished."""

import signal
import sys
from types import FrameType

_INTERRUPTED_STATUS = 128 + signal.SIGINT
"""Exit status after Ctrl-C, as in a shell."""
_received: list[int] = []
"""The SIGTERM signals that were handled like Ctrl-C."""


def exit_on_sigterm() -> None:
    """Make SIGTERM end the command as Ctrl-C does. Unfinished work is undone, and files and connections are closed."""
    signal.signal(signal.SIGTERM, _interrupt)


def interruption_status() -> int:
    """Return the exit status of a command that Ctrl-C or SIGTERM has interrupted."""
    return 128 + _received[0] if _received else _INTERRUPTED_STATUS


def _interrupt(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    handle_interrupt = signal.getsignal(signal.SIGINT)
    if not callable(handle_interrupt):  # the command was started with Ctrl-C ignored, as by nohup
        sys.exit(interruption_status())
    # while asyncio runs, this cancels its task; an exception from here would leave the driver in the middle of a COPY
    handle_interrupt(signal.SIGINT, frame)
