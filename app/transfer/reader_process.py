"""A process of its own that reads and validates the lines of a file, while PostgreSQL stores those before."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from threading import Thread
from typing import Generic, Self, TypeVar, cast

from app.table_files.errors import UnreadableFileError

T = TypeVar("T")

_KILLED_MESSAGE = "The process that reads the file was killed, perhaps because the memory was full. Try again."
_items: Iterator[object] = iter(())
"""In the process that reads: the iterator whose items it sends."""


class ReaderProcess(Generic[T]):
    """An asynchronous context manager that takes the items of an iterator in a process of its own, one ahead.

    The interpreter lock of Python lets only one thread of a process compute, so a thread that validates lines would
    delay each statement. The process is a fork of this one, so the iterator may refer to what cannot be sent to a
    process, such as an open file. It must not use connections or the event loop.
    """

    def __init__(self, items: Iterator[T]) -> None:
        fork = multiprocessing.get_context("fork")
        self._executor = ProcessPoolExecutor(1, mp_context=fork, initializer=_start, initargs=(items,))

    async def __aenter__(self) -> Self:
        self._next = self._request()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._next.cancel()
        # it may be blocked on a pipe forever
        for process in multiprocessing.active_children():
            process.kill()
        self._executor.shutdown()

    def _request(self) -> asyncio.Future[T | None]:
        return asyncio.get_running_loop().run_in_executor(self._executor, cast("Callable[[], T | None]", _next_item))

    async def next(self) -> T | None:
        """Return the next item, or None at the end, and begin to read the one after it.

        Raises:
            UnreadableFileError: the process was killed. Errors of the iterator are raised here, too.
        """
        try:
            item = await self._next
        except BrokenProcessPool:
            raise UnreadableFileError(_KILLED_MESSAGE) from None
        if item is not None:
            self._next = self._request()
        return item


def _start(items: Iterator[object]) -> None:
    """Prepare the process that reads."""
    global _items  # noqa: PLW0603  # the executor hands nothing else from its initializer to its calls
    _items = items
    signal.set_wakeup_fd(-1)  # otherwise the event loop of the parent process would get this process's signals
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes, and the parent process kills this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _next_item() -> object | None:
    return next(_items, None)
