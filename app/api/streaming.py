"""Streams whole lists in batches. While one batch is sent, the next batches are read."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from app.api.list_source import STREAM_BATCH_SIZE, ListSource
from app.listing.formats import ListFormat
from app.listing.page import Page

PREFETCH_BATCHES = 3
"""Maximum number of batches that are read ahead while the client receives an earlier one."""
STATEMENT_SEND_SECONDS = 0.001
"""Maximum pause in seconds before the next batch is encoded.

During the pause, the driver sends the statements that read the next batches. It cannot send them while a batch is
encoded, because encoding blocks the event loop.
"""


async def stream_list(
    source: ListSource, list_format: ListFormat, first_batch: Page, *, first_only: bool
) -> AsyncIterator[bytes]:
    """Yield the encoded bytes of a whole list, beginning with `first_batch`.

    The caller must already have called `source.before_send` for `first_batch`. This function calls it for the other
    batches. `first_only` ends the list after `first_batch`. Set it for HEAD requests, whose responses have no body.
    """
    first_chunk = list_format.opening + list_format.encode(first_batch)
    if first_only or len(first_batch) < STREAM_BATCH_SIZE:
        yield first_chunk + list_format.closing
        return
    yield first_chunk
    async with aclosing(Prefetcher(source, first_batch.last_position).batches()) as batches:
        async for batch in batches:
            if batch:
                await source.before_send(batch)
                yield list_format.separator + list_format.encode(batch)
    yield list_format.closing


class Prefetcher:
    """Reads the batches of a list that follow a position, while the client receives earlier batches.

    If the source knows the positions of later batches, several batches are read concurrently, because reading from
    PostgreSQL is the slowest step. Otherwise each batch is read after the previous one.
    """

    def __init__(self, source: ListSource, after: Any) -> None:
        self._source = source
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
                if self._position is None and not self._pending and len(batch) >= STREAM_BATCH_SIZE:
                    self._position = batch.last_position
                await self._prefetch()
                yield batch
        finally:
            for task in self._pending:
                task.cancel()
            await asyncio.gather(*self._pending, return_exceptions=True)

    async def _prefetch(self) -> None:
        while self._position is not None and len(self._pending) < PREFETCH_BATCHES:
            after, self._position = self._position, await self._source.position_after(self._position)
            self._pending.append(asyncio.create_task(self._read_batch(after, self._position)))
        if self._pending:
            await asyncio.wait(self._pending, timeout=STATEMENT_SEND_SECONDS)

    async def _read_batch(self, after: Any, last: Any) -> Page:
        if last is None:
            return await self._source.page(after, STREAM_BATCH_SIZE)
        return await self._source.range(after, last)
