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

from app.auth.principal import Principal
from app.db.bulkhead import Bulkhead
from app.errors import FieldError, InvalidError
from app.memory import give_back_soon
from app.resource.cursors import CURSOR, LONGEST, Cursors, wanted
from app.resource.wanted import Listed, Wanted

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
SEARCH = "search/"
"""What follows the path of a list where it is searched by a request with a body."""
BATCH = 500
"""Records that the stream reads at once: about half a megabyte, a few milliseconds of a connection."""
MOST_STREAMS = 12
"""Whole lists that a process sends at once: each has some megabytes in memory."""
MOST_STREAMS_OF_ONE = 4
"""Of these, those of one principal."""
AHEAD = 3
"""Batches that are read while one is sent."""
SENT = 0.001
"""Seconds in which a statement is sent."""


class PageParameters(BaseModel):
    """Which part of a list is wanted; without parameters, all of it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limit: Annotated[int | None, Field(ge=1, le=MAX_LIMIT)] = None
    """The most records of a page."""
    cursor: Annotated[str | None, Field(min_length=1, max_length=LONGEST, json_schema_extra={"pattern": CURSOR})] = None
    """Where the page begins, from the `Link` header of the page before; it holds what else was asked for."""

    @property
    def always_in_pages(self) -> bool:
        """Whether a list without a limit is a page: who searches wants the best."""
        return False


class ListParameters(PageParameters):
    """Which part of a list of records is wanted, and whether they are to be counted."""

    count: Literal["exact"] | None = None
    """`exact`: answer in `X-Total-Count` how many records the list has. Of those that a filter or a search finds it is
    exact up to 1,000, who are put on record as counted; beyond, an estimate with two digits. Not with HEAD."""

    def wanted(self, phone_region: str) -> Wanted:  # noqa: ARG002  # of those that have telephone numbers
        """What of the list is wanted; telephone numbers without a country's code are of `phone_region`."""
        return Wanted()


P = TypeVar("P", bound=PageParameters)
Read = Callable[[P, Any, int], Awaitable[Sequence[Listed]]]
"""Reads up to so many records of what is wanted, after a place (None is before all)."""
Show = Callable[[Sequence[Listed]], Awaitable[None]]
"""Is told of records that are about to leave."""
Count = Callable[[P], Awaitable[int | None]]
"""Counts the records of what is wanted, if that is asked for."""


async def _nothing(_: Sequence[Listed]) -> None:
    """Where the request itself says what is shown."""


async def _unknown(_: PageParameters, __: Any) -> None:
    """Where a place is known only when the records before it are read."""


async def _uncounted(_: PageParameters) -> None:
    """Where lists are not counted."""


@dataclass(frozen=True, slots=True)
class Source(Generic[P]):
    """Where the records of a list come from."""

    read: Read[P]
    show: Show = _nothing
    count: Count[P] = _uncounted
    skip: Callable[[P, Any], Awaitable[Any]] = _unknown
    """The place of the record that is `BATCH` after another in the whole list; None where it is not known."""
    between: Callable[[Any, Any], Awaitable[Sequence[Listed]]] | None = None
    """Reads the records from after one place up to another that `skip` knew."""


class Form(NamedTuple):
    """How a list is written."""

    media_type: str
    opening: bytes
    ending: bytes
    """Of each record."""
    separator: bytes
    closing: bytes

    def of(self, records: Sequence[Listed]) -> bytes:
        """Some records of a list."""
        # each by itself: one letter beyond ASCII makes the encoding of the whole text slow
        documents = [record.document.encode() for record in records]
        if self.ending:
            documents = [document + self.ending for document in documents]
        return self.separator.join(documents)


ARRAY = Form("application/json", b"[", b"", b",", b"]")
NDJSON = Form("application/x-ndjson", b"", b"\n", b"", b"")
"""One record a line, for tools that read as they go."""


async def list_answer(request: Request, source: Source[P], parameters: P, cap: int | None) -> Response:
    """The whole list as a stream, or the page that `parameters`, or the operators' `cap`, ask for.

    An array, or where the client accepts that, one record a line.
    """
    _refuse_query(request)
    cursors: Cursors = request.app.state.cursors
    path, principal = _path(request), Principal.of(request)
    after, parameters = await cursors.open(path, principal, parameters.cursor, parameters, _where(request))
    read_wanted = partial(source.read, parameters)
    form = NDJSON if NDJSON.media_type in request.headers.get("accept", "").lower() else ARRAY
    headers = {"Vary": "Accept"}
    if (total := await source.count(parameters)) is not None:
        headers["X-Total-Count"] = str(total)
    limit = parameters.limit
    if limit is None:
        limit = DEFAULT_LIMIT if parameters.cursor is not None or parameters.always_in_pages else cap
    if limit is None:
        streams: Bulkhead = request.app.state.streams
        first = await read_wanted(None, BATCH)  # before the answer begins: a failure here is still a problem
        if len(first) >= BATCH:
            leave = streams.enter_at_once(principal.name)
            if leave is None:
                first = ()  # nothing is held while it waits
                leave = await streams.enter(principal.name)
            request.scope["state"]["leave"] = partial(_end_stream, streams, leave)
            first = first or await read_wanted(None, BATCH)
        await source.show(first)
        batches = _Batches(source, parameters, first)
        batches.whole |= request.scope["state"]["method"] == "HEAD"  # its headers leave with the first
        return StreamingResponse(_stream(batches, source.show, form), headers=headers, media_type=form.media_type)
    items = await read_wanted(after, limit + 1)  # one more tells whether there is a next page
    page, more = items[:limit], len(items) > limit
    # that there is a next page tells of its first record that it is among what was asked for
    await source.show(items if more and wanted(parameters) else page)
    headers |= await _ways_on(request, page[-1].place if more else None, min(limit, MAX_LIMIT), parameters)
    body = form.opening + form.of(page) + form.closing
    return Response(body, headers=headers, media_type=form.media_type)


def _end_stream(streams: Bulkhead, leave: Callable[[], None]) -> None:
    leave()
    if streams.is_idle:
        give_back_soon()


def _refuse_query(request: Request) -> None:
    """Refuse parameters in the query of who sends a body."""
    if _where(request) == "body" and request.query_params:
        raise InvalidError(
            [FieldError(("query", name), "Must be in the body", "extra_forbidden") for name in request.query_params]
        )


def _where(request: Request) -> str:
    """Where it stands what is wanted."""
    return "body" if request.method == "POST" else "query"


def _path(request: Request) -> str:
    """The path of the list, be it asked for by a search or not."""
    path: str = request.scope["path"]
    return path.removesuffix(SEARCH)


async def _ways_on(request: Request, after: Any, limit: int, parameters: PageParameters) -> dict[str, str]:
    """The headers by which a client gets to other pages; `after` is where this one ends, if there is a next.

    Who sends what it wants in a body gets a cursor to send there. Links are relative to this service: what names it may
    be a proxy's. What was asked for may name people: in links it is sealed too.
    """
    cursors: Cursors = request.app.state.cursors
    path, principal, where = _path(request), Principal.of(request), _where(request)
    following = None if after is None else await cursors.seal(path, principal, after, parameters, where)
    if where == "body":
        return {} if following is None else {"Next-Cursor": following}
    first = await cursors.seal(path, principal, None, parameters) if wanted(parameters) else None
    places = {"first": first} if following is None else {"next": following, "first": first}
    links = []
    for relation, cursor in places.items():
        query = {"limit": str(limit)} if cursor is None else {"limit": str(limit), "cursor": cursor}
        links.append(f'<{path}?{urlencode(query)}>; rel="{relation}"')
    return {"Link": ", ".join(links)}


async def _stream(batches: "_Batches[P]", show: Show, form: Form) -> AsyncIterator[bytes]:
    first = form.opening + form.of(batches.first)
    if batches.whole:
        yield first + form.closing
        return
    yield first
    async with aclosing(batches.following()) as following:
        async for more in following:
            if more:
                await show(more)
                yield form.separator + form.of(more)
    yield form.closing


class _Batches(Generic[P]):
    """The batches of a whole list, read while the client takes what was read before.

    Where their places are known beforehand several are read at once: of all steps PostgreSQL's takes longest.
    """

    def __init__(self, source: Source[P], parameters: P, first: Sequence[Listed]) -> None:
        self.first = first
        self._source = source
        self._parameters = parameters
        self.whole = len(first) < BATCH
        """Whether nothing follows."""
        self._place = None if self.whole else first[-1].place
        self._coming: deque[asyncio.Task[Sequence[Listed]]] = deque()

    async def following(self) -> AsyncGenerator[Sequence[Listed]]:
        """All after the first."""
        try:
            await self._read_ahead()
            while self._coming:
                items = await self._coming.popleft()
                if self._place is None and not self._coming and len(items) >= BATCH:
                    self._place = items[-1].place
                await self._read_ahead()
                yield items
        finally:
            for task in self._coming:
                task.cancel()  # where it is not done
            await asyncio.gather(*self._coming, return_exceptions=True)

    async def _read_ahead(self) -> None:
        while self._place is not None and len(self._coming) < AHEAD:
            after, self._place = self._place, await self._source.skip(self._parameters, self._place)
            self._coming.append(asyncio.create_task(self._read(after, self._place)))
        if self._coming:
            await asyncio.wait(self._coming, timeout=SENT)  # until the statements are on their way

    async def _read(self, after: Any, last: Any) -> Sequence[Listed]:
        if last is None or self._source.between is None:
            return await self._source.read(self._parameters, after, BATCH)
        return await self._source.between(after, last)
