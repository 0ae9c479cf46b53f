"""Processes that end with each other."""

import os
import signal
import threading
from collections.abc import Callable


def end_after(other_ended: Callable[[], None]) -> None:
    """End this process gracefully as soon as another, which it cannot do without, has ended; without draining."""

    def end() -> None:
        other_ended()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=end, daemon=True).start()
