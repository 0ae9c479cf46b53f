"""Whole lists, streamed in batches while the next ones are read."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from app.api.list_source import STREAM_BATCH_SIZE, ListSource
from app.listing.query import ListItem

PREFETCH_BATCHES = 3
"""Batches that are read while one is sent."""
STATEMENT_SEND_SECONDS = 0.001
"""Seconds that the driver gets to send the statements of prefetched batches, before the next batch is encoded."""


class ListFormat(NamedTuple):
    """How the items of a list are written."""

    media_type: str
    opening: bytes
    record_suffix: bytes
    """Bytes after each record."""
    separator: bytes
    """Bytes between two records."""
    closing: bytes

    def encode(self, items: Sequence[ListItem]) -> bytes:
        """Return some items of a list as bytes, without opening and closing."""
        # each by itself: a single character beyond ASCII would make the encoding of the whole text slow
        documents = [item.document.encode() for item in items]
        if self.record_suffix:
            documents = [document + self.record_suffix for document in documents]
        return self.separator.join(documents)


JSON_ARRAY = ListFormat("application/json", b"[", b"", b",", b"]")
NDJSON = ListFormat("application/x-ndjson", b"", b"\n", b"", b"")
"""One record per line, for tools that process records as they arrive."""


async def stream_list(
    source: ListSource, list_format: ListFormat, first_batch: Sequence[ListItem], *, first_only: bool
) -> AsyncIterator[bytes]:
    """Yield a whole list that begins with `first_batch`, whose sending the caller has already announced.

    `first_only` ends the list after that batch, for a response whose body is not sent.
    """
    first_chunk = list_format.opening + list_format.encode(first_batch)
    if first_only or len(first_batch) < STREAM_BATCH_SIZE:
        yield first_chunk + list_format.closing
        return
    yield first_chunk
    async with aclosing(Prefetcher(source, first_batch[-1].position).batches()) as batches:
        async for batch in batches:
            if batch:
                await source.before_send(batch)
                yield list_format.separator + list_format.encode(batch)
    yield list_format.closing


class Prefetcher:
    """Reads the batches of a list after a position while the client receives earlier ones.

    Where the source knows the positions of later batches, several are read concurrently: of all steps, PostgreSQL's
    takes longest. Otherwise each batch is read after the one before it.
    """

    def __init__(self, source: ListSource, after: Any) -> None:
        self._source = source
        self._position = after
        """The position after which the next batch begins; None while it is unknown, and at the end of the list."""
        self._pending: deque[asyncio.Task[Sequence[ListItem]]] = deque()

    async def batches(self) -> AsyncGenerator[Sequence[ListItem]]:
        """Yield all batches in order; the last may be empty. Closing the generator cancels what is still being read."""
        try:
            await self._prefetch()
            while self._pending:
                items = await self._pending.popleft()
                if self._position is None and not self._pending and len(items) >= STREAM_BATCH_SIZE:
                    self._position = items[-1].position
                await self._prefetch()
                yield items
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

    async def _read_batch(self, after: Any, last: Any) -> Sequence[ListItem]:
        if last is None:
            return await self._source.page(after, STREAM_BATCH_SIZE)
        return await self._source.range(after, last)
