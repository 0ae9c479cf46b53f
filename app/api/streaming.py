"""Streams whole lists in batches. While one batch is sent, the next batches are read."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from app.api.list_source import STREAM_BATCH_SIZE, ListSource
from app.listing.formats import ListFormat
from app.listing.page import Page
from app.listing.read_ahead import ReadAhead


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
    async with aclosing(ReadAhead(source, first_batch.last_position, STREAM_BATCH_SIZE).batches()) as batches:
        async for batch in batches:
            if batch:
                await source.before_send(batch)
                yield list_format.separator + list_format.encode(batch)
    yield list_format.closing
