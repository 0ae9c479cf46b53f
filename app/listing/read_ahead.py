"""Reads the batches of a whole list ahead of their consumer."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from app.listing.page import Page

PREFETCH_BATCHES = 3
"""Maximum number of batches that are read ahead while the consumer processes an earlier one."""
STATEMENT_SEND_SECONDS = 0.001
"""Maximum pause in seconds before the consumer gets the next batch.

During the pause, the driver sends the statements that read the next batches. It cannot send them while the consumer
blocks the event loop.
"""


class BatchSource(Protocol):
    """A list that is read in batches. A position is a value that `Page.position_of` returns."""

    async def page(self, after: Any, limit: int) -> Page:
        """Return up to `limit` items that follow the position `after`, or the first items if it is None."""

    async def position_after(self, after: Any, distance: int) -> Any:
        """Return the position that is `distance` items after the position `after`, or None if it is unknown.

        The position is unknown if the source would have to read the items to find it, or if the list ends before it.
        """

    async def range(self, after: Any, last: Any) -> Page:
        """Return the items after the position `after`, up to and including the position `last`.

        `last` is a result of `position_after`.
        """


class ReadAhead:
    """Reads the batches of a list that follow a position, while their consumer processes earlier batches.

    If the source knows the positions of later batches, several batches are read concurrently, because reading from
    PostgreSQL is the slowest step. Otherwise each batch is read after the previous one.
    """

    def __init__(self, source: BatchSource, after: Any, batch_size: int) -> None:
        self._source = source
        self._batch_size = batch_size
        self._position = after
        """The position after which the next batch begins. None while it is unknown, and after the end of the list."""
        self._pending: deque[asyncio.Task[Page]] = deque()

    async def batches(self) -> AsyncGenerator[Page]:
        """Yield all batches in order; the last one may be empty.

        Closing the generator cancels the reads that are still running.
        """
        try:
            await self._prefetch()
            while self._pending:
                batch = await self._pending.popleft()
                if self._position is None and not self._pending and len(batch) >= self._batch_size:
                    self._position = batch.last_position
                await self._prefetch()
                yield batch
        finally:
            for task in self._pending:
                task.cancel()
            await asyncio.gather(*self._pending, return_exceptions=True)

    async def _prefetch(self) -> None:
        while self._position is not None and len(self._pending) < PREFETCH_BATCHES:
            after, self._position = (
                self._position,
                await self._source.position_after(self._position, self._batch_size),
            )
            self._pending.append(asyncio.create_task(self._read_batch(after, self._position)))
        if self._pending:
            await asyncio.wait(self._pending, timeout=STATEMENT_SEND_SECONDS)

    async def _read_batch(self, after: Any, last: Any) -> Page:
        if last is None:
            return await self._source.page(after, self._batch_size)
        return await self._source.range(after, last)
