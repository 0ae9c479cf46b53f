"""Returning freed memory to the operating system."""

import asyncio
import ctypes
from collections.abc import Callable
from typing import Any

_malloc_trim: Callable[[int], Any] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""`malloc_trim` of the GNU C library, the only one that keeps free memory between blocks in use; None with others."""


TRIM_DELAY_SECONDS = 1
"""Seconds between the end of memory-intensive work and the trim; by then its memory is freed."""
_scheduled: list[asyncio.TimerHandle] = []
"""The scheduled call, if any; at most one."""


def schedule_memory_trim() -> None:
    """Make the C library return freed memory soon: it would keep hundreds of megabytes for good.

    This takes some milliseconds, so it is for the end of memory-intensive work; work that ends within the same second
    shares one call.
    """
    if _malloc_trim is not None and not _scheduled:
        _scheduled.append(asyncio.get_running_loop().call_later(TRIM_DELAY_SECONDS, _trim_memory, _malloc_trim))


def _trim_memory(malloc_trim: Callable[[int], Any]) -> None:
    _scheduled.clear()
    malloc_trim(0)
