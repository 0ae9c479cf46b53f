"""Returns freed memory from the C library to the operating system."""

import asyncio
import ctypes
from collections.abc import Callable
from typing import Any

_malloc_trim: Callable[[int], Any] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""The function `malloc_trim` of the GNU C library, or None with another C library. Only the GNU C library keeps free
memory that lies between blocks in use."""


TRIM_DELAY_SECONDS = 1
"""Seconds between the end of memory-intensive work and the call to `malloc_trim`. The work has freed its memory by
then."""
_scheduled: list[asyncio.TimerHandle] = []
"""The scheduled call to `malloc_trim`. The list is empty or contains one call."""


def schedule_memory_trim() -> None:
    """Make the C library return freed memory to the operating system soon.

    Otherwise, the C library would keep hundreds of megabytes permanently. Call this only at the end of memory-intensive
    work, because it takes some milliseconds. Calls within the same second have the effect of one call.
    """
    if _malloc_trim is not None and not _scheduled:
        _scheduled.append(asyncio.get_running_loop().call_later(TRIM_DELAY_SECONDS, _trim_memory, _malloc_trim))


def _trim_memory(malloc_trim: Callable[[int], Any]) -> None:
    _scheduled.clear()
    malloc_trim(0)
