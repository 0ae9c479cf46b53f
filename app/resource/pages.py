"""Lists: a page of records, or all of them as a stream."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, Literal, NamedTuple, TypeVar
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from app.errors import FieldError, InvalidError
from app.resource.cursors import Cursors, wanted
from app.resource.repository import Record

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_CURSOR = 4000
BATCH = 500
"""Records that the stream reads at once: about half a megabyte, a few milliseconds of a connection."""


class PageParameters(BaseModel):
    """Which part of a list is wanted; without parameters, all of it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limit: Annotated[int | None, Field(ge=1, le=MAX_LIMIT)] = None
    """The most records of a page."""
    cursor: Annotated[str | None, Field(min_length=1, max_length=MAX_CURSOR)] = None
    """Where the page begins, from the `Link` header of the page before; it holds what else was asked for."""


class ListParameters(PageParameters):
    """Which part of a list of records is wanted, and whether they are to be counted."""

    count: Literal["exact"] | None = None
    """`exact`: answer the number of all records that the list has in `X-Total-Count`."""


Page = Annotated[PageParameters, Query()]
Listed = Annotated[ListParameters, Query()]
P = TypeVar("P", bound=PageParameters)
Read = Callable[[P, str, int], Awaitable[list[Record]]]
"""Reads up to so many records of what is wanted, after an id (`""` is before all)."""
Show = Callable[[list[Record]], Awaitable[None]]
"""Is told of records that are about to leave."""


class Form(NamedTuple):
    """How a list is written."""

    media_type: str
    opening: str
    ending: str
    """Of each record."""
    separator: str
    closing: str

    def of(self, records: list[Record]) -> str:
        """Some records of a list."""
        return self.separator.join(f"{record.document}{self.ending}" for record in records)


ARRAY = Form("application/json", "[", "", ",", "]")
NDJSON = Form("application/x-ndjson", "", "\n", "", "")
"""One record a line, for tools that read as they go."""
_VARY = {"Vary": "Accept"}


async def _nothing(_: list[Record]) -> None:
    """Where the request itself says what is shown."""


async def list_answer(
    request: Request, read: Read[P], parameters: P, cap: int | None, show: Show = _nothing
) -> Response:
    """The whole list as a stream, or the page that `parameters`, or the operators' `cap`, ask for.

    An array, or where the client accepts that, one record a line.
    """
    _refuse_repeated(request)
    cursors: Cursors = request.app.state.cursors
    after, parameters = await cursors.open(request.scope["path"], parameters.cursor, parameters)
    read_wanted = partial(read, parameters)
    form = NDJSON if NDJSON.media_type in request.headers.get("accept", "").lower() else ARRAY
    limit = parameters.limit
    if limit is None:
        limit = cap if parameters.cursor is None else DEFAULT_LIMIT
    if limit is None:
        first = await read_wanted("", BATCH)  # before the answer begins: a failure here is still a problem
        await show(first)
        return StreamingResponse(_stream(first, read_wanted, show, form), headers=_VARY, media_type=form.media_type)
    records = await read_wanted(after, limit + 1)  # one more tells whether there is a next page
    page = records[:limit]
    await show(page)
    places = {"next": page[-1].unique_id, "first": ""} if len(records) > limit else {"first": ""}
    links = [
        await _link(request, relation, place, min(limit, MAX_LIMIT), parameters) for relation, place in places.items()
    ]
    body = f"{form.opening}{form.of(page)}{form.closing}"
    return Response(body, headers={"Link": ", ".join(links), **_VARY}, media_type=form.media_type)


def _refuse_repeated(request: Request) -> None:
    """Refuse parameters that are given twice: which one counts, two programs may see differently."""
    given = Counter(name for name, _ in request.query_params.multi_items())
    errors = [
        FieldError(("query", name), "Must be given once", "repeated") for name, times in given.items() if times > 1
    ]
    if errors:
        raise InvalidError(errors)


async def _link(request: Request, relation: str, after: str, limit: int, parameters: PageParameters) -> str:
    """The link to a page, relative to this service: what names it may be a proxy's."""
    cursors: Cursors = request.app.state.cursors
    path = request.scope["path"]
    query = {"limit": str(limit)}
    if after or wanted(parameters):  # what was asked for may name people: it is sealed too
        query["cursor"] = await cursors.seal(path, after, parameters)
    return f'<{path}?{urlencode(query)}>; rel="{relation}"'


async def _stream(
    records: list[Record], read: Callable[[str, int], Awaitable[list[Record]]], show: Show, form: Form
) -> AsyncIterator[str]:
    opening = form.opening
    while True:
        yield opening + form.of(records)
        if len(records) < BATCH:
            break
        records = await read(records[-1].unique_id, BATCH)
        if records:
            await show(records)
        opening = form.separator if records else ""
    yield form.closing
