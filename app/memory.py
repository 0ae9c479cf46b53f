"""Memory that was freed, given back to the operating system."""

import ctypes
from collections.abc import Callable
from typing import Any

_trim: Callable[[int], Any] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Of the GNU C library, the only one that keeps what lies between what is in use; None where another one is."""


def give_back() -> None:
    """Have the C library return what it keeps of freed memory: after hundreds of megabytes it would keep them for good.

    Some milliseconds of work, so for the end of what has taken much memory.
    """
    if _trim is not None:
        _trim(0)
