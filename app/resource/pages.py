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


async def list_answer(request: Request, read: Read, parameters: PageParameters, cap: int | None) -> Response:
    """The whole list as a stream, or the page that `parameters`, or the operators' `cap`, ask for."""
    limit = parameters.limit
    if limit is None:
        limit = cap if parameters.cursor is None else DEFAULT_LIMIT
    if limit is not None:
        return await _page(request, read, parameters.cursor or "", limit)
    first = await read("", BATCH)  # before the answer begins: a failure here is still a problem
    return StreamingResponse(_stream(first, read), media_type="application/json")


async def _page(request: Request, read: Read, after: str, limit: int) -> Response:
    records = await read(after, limit + 1)  # one more tells whether there is a next page
    more = len(records) > limit
    body = f"[{','.join(record.document for record in records[:limit])}]"
    response = Response(body, media_type="application/json")
    if more:
        query = urlencode({"limit": min(limit, MAX_LIMIT), "cursor": _cursor(records[limit - 1].unique_id)})
        response.headers["Link"] = f'<{request.scope["path"]}?{query}>; rel="next"'
    return response


async def _stream(records: list[Record], read: Read) -> AsyncIterator[str]:
    opening = "["
    while True:
        yield opening + ",".join(record.document for record in records)
        if len(records) < BATCH:
            break
        records = await read(records[-1].unique_id, BATCH)
        opening = "," if records else ""
    yield "]"
