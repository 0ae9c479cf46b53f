"""What the commands of this package share: progress output and clean exits."""

import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from app.embedded.server import EmbeddedPostgresError
from benchmarks.sides import SideError


def print_progress(line: str) -> None:
    """Print progress to stderr, because the tables go to stdout."""
    print(line, file=sys.stderr, flush=True)


def run(work: Callable[[], None]) -> int:
    """Do a command's work, stop everything it started, and return 0, or 1 if it failed."""
    exit_on_sigterm()
    try:
        work()
    except (EmbeddedPostgresError, SideError) as error:
        print_progress(str(error))
        return 1
    return 0


def exit_on_sigterm() -> None:
    """Make SIGTERM raise like an error, so that everything that was started is stopped."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)
