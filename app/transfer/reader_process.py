"""A process of its own that reads and validates the lines of a file, while PostgreSQL stores those before."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from threading import Thread
from typing import Generic, NamedTuple, Self, TypeVar

from app.table_files.errors import UnreadableFileError

T = TypeVar("T")

_FORK = multiprocessing.get_context("fork")
_KILLED_MESSAGE = "The process that reads the file was killed, perhaps because the memory was full. Try again."


class _Message(NamedTuple):
    """What the process that reads sends: an item, the error of the iterator, or neither at the end."""

    item: object | None = None
    error: Exception | None = None


class ReaderProcess(Generic[T]):
    """An asynchronous context manager that takes the items of an iterator in a process of its own, one ahead.

    The interpreter lock of Python lets only one thread of a process compute, so a thread that validates lines would
    delay each statement. The process is a fork of this one, so the iterator may refer to what cannot be sent to a
    process, such as an open file. It must not use connections or the event loop.

    This is not a `ProcessPoolExecutor`, which waits forever if its process is killed while it sends a result.
    """

    def __init__(self, items: Iterator[T]) -> None:
        self._receiver, self._sender = _FORK.Pipe(duplex=False)
        arguments = (items, self._sender, self._receiver)
        self._process = _FORK.Process(target=_send_items, args=arguments, daemon=True)

    async def __aenter__(self) -> Self:
        self._process.start()
        self._sender.close()  # otherwise the end of the process would not end the pipe
        self._next = self._receive()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._next.cancel()
        self._process.kill()  # it may be blocked on a pipe forever
        self._process.join()

    def _receive(self) -> asyncio.Future[_Message]:
        return asyncio.get_running_loop().run_in_executor(None, self._receiver.recv)

    async def next(self) -> T | None:
        """Return the next item, or None at the end, and begin to read the one after it.

        Raises:
            UnreadableFileError: the process was killed. Errors of the iterator are raised here, too.
        """
        try:
            item, error = await self._next
        except (EOFError, OSError):
            raise UnreadableFileError(_KILLED_MESSAGE) from None
        if error is not None:
            raise error
        if item is not None:
            self._next = self._receive()
        return item  # type: ignore[return-value]  # of the iterator


def _send_items(items: Iterator[object], sender: Connection, receiver: Connection) -> None:
    signal.set_wakeup_fd(-1)  # otherwise the event loop of the parent process would get this process's signals
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes, and the parent process kills this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Thread(target=_exit_with_parent, daemon=True).start()
    receiver.close()
    try:
        for item in items:
            sender.send(_Message(item))
        sender.send(_Message())
    except Exception as error:  # noqa: BLE001  # the parent process raises it
        sender.send(_Message(error=error))


def _exit_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
