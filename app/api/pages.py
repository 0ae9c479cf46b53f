"""Lists: a page of records, or all of them as a stream."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.cursors import CURSOR_PATTERN, MAX_CURSOR_LENGTH, Cursors, non_paging_parameters
from app.auth.principal import Principal
from app.db.bulkhead import Bulkhead
from app.errors import FieldError, ValidationFailedError
from app.listing.query import ListItem, ListQuery
from app.memory import schedule_memory_trim

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
SEARCH_SUFFIX = "search/"
"""What follows the path of a list where it is searched by a request with a body."""
STREAM_BATCH_SIZE = 500
"""Records that the stream reads at once: about half a megabyte, a few milliseconds of a connection."""
MAX_STREAMS = 12
"""Whole lists that a process sends at once: each has some megabytes in memory."""
MAX_STREAMS_PER_PRINCIPAL = 4
"""Of these, those of one principal."""
PREFETCH_BATCHES = 3
"""Batches that are read while one is sent."""
SEND_GRACE_SECONDS = 0.001
"""Seconds in which a statement is sent."""


class PageParameters(BaseModel):
    """Which part of a list is wanted; without parameters, all of it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limit: Annotated[int | None, Field(ge=1, le=MAX_LIMIT)] = None
    """The most records of a page."""
    cursor: Annotated[
        str | None, Field(min_length=1, max_length=MAX_CURSOR_LENGTH, json_schema_extra={"pattern": CURSOR_PATTERN})
    ] = None
    """Where the page begins, from the `Link` header of the page before; it holds what else was asked for."""

    @property
    def is_paged_by_default(self) -> bool:
        """Whether a list without a limit is a page: who searches wants the best."""
        return False


class ListParameters(PageParameters):
    """Which part of a list of records is wanted, and whether they are to be counted."""

    count: Literal["exact"] | None = None
    """`exact`: answer in `X-Total-Count` how many records the list has. Of those that a filter or a search finds it is
    exact up to 1,000, who are put on record as counted; beyond, an estimate with two digits. Not with HEAD."""

    def to_query(self, phone_region: str) -> ListQuery:  # noqa: ARG002  # of those that have telephone numbers
        """What of the list is wanted; telephone numbers without a country's code are of `phone_region`."""
        return ListQuery()


P = TypeVar("P", bound=PageParameters)
ReadPage = Callable[[P, Any, int], Awaitable[Sequence[ListItem]]]
"""Reads up to so many records of what is wanted, after a place (None is before all)."""
BeforeSend = Callable[[Sequence[ListItem]], Awaitable[None]]
"""Is told of records that are about to leave."""
CountRecords = Callable[[P], Awaitable[int | None]]
"""Counts the records of what is wanted, if that is asked for."""


async def _do_nothing(_: Sequence[ListItem]) -> None:
    """Where the request itself says what is shown."""


async def _unknown_position(_: PageParameters, __: Any) -> None:
    """Where a place is known only when the records before it are read."""


async def _not_counted(_: PageParameters) -> None:
    """Where lists are not counted."""


@dataclass(frozen=True, slots=True)
class ListSource(Generic[P]):
    """Where the records of a list come from."""

    read_page: ReadPage[P]
    before_send: BeforeSend = _do_nothing
    count: CountRecords[P] = _not_counted
    position_after: Callable[[P, Any], Awaitable[Any]] = _unknown_position
    """The place of the record that is `BATCH` after another in the whole list; None where it is not known."""
    read_range: Callable[[Any, Any], Awaitable[Sequence[ListItem]]] | None = None
    """Reads the records from after one place up to another that `skip` knew."""


class ListFormat(NamedTuple):
    """How a list is written."""

    media_type: str
    opening: bytes
    record_suffix: bytes
    """Of each record."""
    separator: bytes
    closing: bytes

    def encode(self, records: Sequence[ListItem]) -> bytes:
        """Some records of a list."""
        # each by itself: one letter beyond ASCII makes the encoding of the whole text slow
        documents = [record.document.encode() for record in records]
        if self.record_suffix:
            documents = [document + self.record_suffix for document in documents]
        return self.separator.join(documents)


JSON_ARRAY = ListFormat("application/json", b"[", b"", b",", b"]")
NDJSON = ListFormat("application/x-ndjson", b"", b"\n", b"", b"")
"""One record a line, for tools that read as they go."""


async def list_response(request: Request, source: ListSource[P], parameters: P, list_cap: int | None) -> Response:
    """The whole list as a stream, or the page that `parameters`, or the operators' `cap`, ask for.

    An array, or where the client accepts that, one record a line.
    """
    _reject_query_parameters(request)
    cursors: Cursors = request.app.state.cursors
    path, principal = _list_path(request), Principal.from_request(request)
    after, parameters = await cursors.open(
        path, principal, parameters.cursor, parameters, _parameters_location(request)
    )
    read_page = partial(source.read_page, parameters)
    list_format = NDJSON if NDJSON.media_type in request.headers.get("accept", "").lower() else JSON_ARRAY
    headers = {"Vary": "Accept"}
    if (total := await source.count(parameters)) is not None:
        headers["X-Total-Count"] = str(total)
    limit = parameters.limit
    if limit is None:
        limit = DEFAULT_LIMIT if parameters.cursor is not None or parameters.is_paged_by_default else list_cap
    if limit is None:
        streams: Bulkhead = request.app.state.streams
        first_batch = await read_page(
            None, STREAM_BATCH_SIZE
        )  # before the answer begins: a failure here is still a problem
        if len(first_batch) >= STREAM_BATCH_SIZE:
            release = streams.try_acquire(principal.name)
            if release is None:
                first_batch = ()  # nothing is held while it waits
                release = await streams.acquire(principal.name)
            request.scope["state"]["leave"] = partial(_end_stream, streams, release)
            first_batch = first_batch or await read_page(None, STREAM_BATCH_SIZE)
        await source.before_send(first_batch)
        prefetcher = _Prefetcher(source, parameters, first_batch)
        prefetcher.is_complete |= request.scope["state"]["method"] == "HEAD"  # its headers leave with the first
        return StreamingResponse(
            _stream_list(prefetcher, source.before_send, list_format),
            headers=headers,
            media_type=list_format.media_type,
        )
    items = await read_page(after, limit + 1)  # one more tells whether there is a next page
    page, has_next = items[:limit], len(items) > limit
    # that there is a next page tells of its first record that it is among what was asked for
    await source.before_send(items if has_next and non_paging_parameters(parameters) else page)
    headers |= await _pagination_headers(
        request, page[-1].position if has_next else None, min(limit, MAX_LIMIT), parameters
    )
    body = list_format.opening + list_format.encode(page) + list_format.closing
    return Response(body, headers=headers, media_type=list_format.media_type)


def _end_stream(streams: Bulkhead, release: Callable[[], None]) -> None:
    release()
    if streams.is_idle:
        schedule_memory_trim()


def _reject_query_parameters(request: Request) -> None:
    """Refuse parameters in the query of who sends a body."""
    if _parameters_location(request) == "body" and request.query_params:
        raise ValidationFailedError(
            [FieldError(("query", name), "Must be in the body", "extra_forbidden") for name in request.query_params]
        )


def _parameters_location(request: Request) -> str:
    """Where it stands what is wanted."""
    return "body" if request.method == "POST" else "query"


def _list_path(request: Request) -> str:
    """The path of the list, be it asked for by a search or not."""
    path: str = request.scope["path"]
    return path.removesuffix(SEARCH_SUFFIX)


async def _pagination_headers(request: Request, after: Any, limit: int, parameters: PageParameters) -> dict[str, str]:
    """The headers by which a client gets to other pages; `after` is where this one ends, if there is a next.

    Who sends what it wants in a body gets a cursor to send there. Links are relative to this service: what names it may
    be a proxy's. What was asked for may name people: in links it is sealed too.
    """
    cursors: Cursors = request.app.state.cursors
    path, principal, location = _list_path(request), Principal.from_request(request), _parameters_location(request)
    next_cursor = None if after is None else await cursors.seal(path, principal, after, parameters, location)
    if location == "body":
        return {} if next_cursor is None else {"Next-Cursor": next_cursor}
    first_cursor = await cursors.seal(path, principal, None, parameters) if non_paging_parameters(parameters) else None
    cursors_by_relation = (
        {"first": first_cursor} if next_cursor is None else {"next": next_cursor, "first": first_cursor}
    )
    links = []
    for relation, cursor in cursors_by_relation.items():
        query = {"limit": str(limit)} if cursor is None else {"limit": str(limit), "cursor": cursor}
        links.append(f'<{path}?{urlencode(query)}>; rel="{relation}"')
    return {"Link": ", ".join(links)}


async def _stream_list(
    prefetcher: "_Prefetcher[P]", before_send: BeforeSend, list_format: ListFormat
) -> AsyncIterator[bytes]:
    first_chunk = list_format.opening + list_format.encode(prefetcher.first_batch)
    if prefetcher.is_complete:
        yield first_chunk + list_format.closing
        return
    yield first_chunk
    async with aclosing(prefetcher.remaining()) as remaining:
        async for batch in remaining:
            if batch:
                await before_send(batch)
                yield list_format.separator + list_format.encode(batch)
    yield list_format.closing


class _Prefetcher(Generic[P]):
    """The batches of a whole list, read while the client takes what was read before.

    Where their places are known beforehand several are read at once: of all steps PostgreSQL's takes longest.
    """

    def __init__(self, source: ListSource[P], parameters: P, first_batch: Sequence[ListItem]) -> None:
        self.first_batch = first_batch
        self._source = source
        self._parameters = parameters
        self.is_complete = len(first_batch) < STREAM_BATCH_SIZE
        """Whether nothing follows."""
        self._position = None if self.is_complete else first_batch[-1].position
        self._pending: deque[asyncio.Task[Sequence[ListItem]]] = deque()

    async def remaining(self) -> AsyncGenerator[Sequence[ListItem]]:
        """All after the first."""
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
                task.cancel()  # where it is not done
            await asyncio.gather(*self._pending, return_exceptions=True)

    async def _prefetch(self) -> None:
        while self._position is not None and len(self._pending) < PREFETCH_BATCHES:
            after, self._position = self._position, await self._source.position_after(self._parameters, self._position)
            self._pending.append(asyncio.create_task(self._read_batch(after, self._position)))
        if self._pending:
            await asyncio.wait(self._pending, timeout=SEND_GRACE_SECONDS)  # until the statements are on their way

    async def _read_batch(self, after: Any, last: Any) -> Sequence[ListItem]:
        if last is None or self._source.read_range is None:
            return await self._source.read_page(self._parameters, after, STREAM_BATCH_SIZE)
        return await self._source.read_range(after, last)
