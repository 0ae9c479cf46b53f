"""What the commands of this package share: saying how far they are, and ending well."""

import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from app.db.embedded import EmbeddedPostgresError
from benchmarks.sides import SideError


def print_progress(line: str) -> None:
    """Tell the terminal, while the tables go to stdout."""
    print(line, file=sys.stderr, flush=True)


def run(work: Callable[[], None]) -> int:
    """Do a command's work, and stop all that it started; 0, or 1 where it cannot be done."""
    exit_on_sigterm()
    try:
        work()
    except (EmbeddedPostgresError, SideError) as error:
        print_progress(str(error))
        return 1
    return 0


def exit_on_sigterm() -> None:
    """Have SIGTERM end the process as an error does, so that everything that was started is stopped."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)
