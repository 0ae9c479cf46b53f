"""Memory that was freed, given back to the operating system."""

import asyncio
import ctypes
from collections.abc import Callable
from typing import Any

_trim: Callable[[int], Any] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Of the GNU C library, the only one that keeps what lies between what is in use; None where another one is."""


GIVE_BACK_SECONDS = 1
"""After something that took much memory has ended: by then it is free."""
_due: list[asyncio.TimerHandle] = []
"""The one call that is due, if any."""


def give_back_soon() -> None:
    """Have the C library return what it keeps of freed memory: after hundreds of megabytes it would keep them for good.

    Some milliseconds of work, so for the end of what has taken much memory; once for all that ends in the same second.
    """
    if _trim is not None and not _due:
        _due.append(asyncio.get_running_loop().call_later(GIVE_BACK_SECONDS, _give_back, _trim))


def _give_back(trim: Callable[[int], Any]) -> None:
    _due.clear()
    trim(0)
