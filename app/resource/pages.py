"""Lists: a page of records, or all of them as a stream."""

import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.resource.identifiers import is_identifier
from app.resource.repository import Record
from app.resource.values import refuse

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
BATCH = 500
"""Records that the stream reads at once: about half a megabyte, a few milliseconds of a connection."""


def _cursor_after(cursor: str) -> str:
    try:
        after = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        after = ""
    if not is_identifier(after):
        raise refuse("cursor", "Must be a cursor from the Link header of an earlier page")
    return after


def _cursor(after: str) -> str:
    return base64.urlsafe_b64encode(after.encode()).decode().rstrip("=")


class PageParameters(BaseModel):
    """Which part of a list is wanted; without parameters, all of it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limit: Annotated[int | None, Field(ge=1, le=MAX_LIMIT)] = None
    """The most records of a page."""
    cursor: Annotated[str | None, Field(max_length=200), AfterValidator(_cursor_after)] = None
    """Where the page begins, from the `Link` header of the page before."""


Page = Annotated[PageParameters, Query()]
Read = Callable[[str, int], Awaitable[list[Record]]]
"""Reads up to so many records after an id, in the order of `unique_id`."""
Show = Callable[[list[Record]], Awaitable[None]]
"""Is told of records that are about to leave."""


async def _nothing(_: list[Record]) -> None:
    """Where the request itself says what is shown."""


async def list_answer(
    request: Request, read: Read, parameters: PageParameters, cap: int | None, show: Show = _nothing
) -> Response:
    """The whole list as a stream, or the page that `parameters`, or the operators' `cap`, ask for."""
    limit = parameters.limit
    if limit is None:
        limit = cap if parameters.cursor is None else DEFAULT_LIMIT
    if limit is not None:
        return await _page(request, read, show, parameters, limit)
    first = await read("", BATCH)  # before the answer begins: a failure here is still a problem
    await show(first)
    return StreamingResponse(_stream(first, read, show), media_type="application/json")


async def _page(request: Request, read: Read, show: Show, parameters: PageParameters, limit: int) -> Response:
    records = await read(parameters.cursor or "", limit + 1)  # one more tells whether there is a next page
    page = records[:limit]
    await show(page)
    response = Response(f"[{','.join(record.document for record in page)}]", media_type="application/json")
    if len(records) > limit:
        query = {"limit": min(limit, MAX_LIMIT), "cursor": _cursor(page[-1].unique_id)}
        kept = parameters.model_dump(mode="json", exclude=set(query), exclude_none=True)
        response.headers["Link"] = f'<{request.scope["path"]}?{urlencode({**kept, **query})}>; rel="next"'
    return response


async def _stream(records: list[Record], read: Read, show: Show) -> AsyncIterator[str]:
    opening = "["
    while True:
        yield opening + ",".join(record.document for record in records)
        if len(records) < BATCH:
            break
        records = await read(records[-1].unique_id, BATCH)
        if records:
            await show(records)
        opening = "," if records else ""
    yield "]"
