"""Memory that was freed, given back to the operating system."""

import asyncio
import ctypes
from collections.abc import Callable
from typing import Any

_malloc_trim: Callable[[int], Any] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Of the GNU C library, the only one that keeps what lies between what is in use; None where another one is."""


TRIM_DELAY_SECONDS = 1
"""After something that took much memory has ended: by then it is free."""
_scheduled: list[asyncio.TimerHandle] = []
"""The one call that is due, if any."""


def schedule_memory_trim() -> None:
    """Have the C library return what it keeps of freed memory: after hundreds of megabytes it would keep them for good.

    Some milliseconds of work, so for the end of what has taken much memory; once for all that ends in the same second.
    """
    if _malloc_trim is not None and not _scheduled:
        _scheduled.append(asyncio.get_running_loop().call_later(TRIM_DELAY_SECONDS, _trim_memory, _malloc_trim))


def _trim_memory(malloc_trim: Callable[[int], Any]) -> None:
    _scheduled.clear()
    malloc_trim(0)
