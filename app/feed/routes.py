"""The route of the change feed: pages of changes, which may wait for some, and streams."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from app.api.documentation import problem_responses, request_parameters
from app.api.routing import make_router, passthrough
from app.api.services import get_services
from app.auth.principal import Principal
from app.auth.scopes import Scope, requires
from app.changes.cursors import FEED_PATH
from app.changes.reading import Change as FeedChange
from app.errors import ServiceError
from app.feed.reader import FeedReader, with_member
from app.feed.schemas import Change, FeedParameters
from app.http.accept import JSON_MEDIA_TYPE, choose_media_type
from app.http.query_parameters import parse_query
from app.listing.formats import NDJSON
from app.listing.pagination import DEFAULT_LIMIT
from app.request_state import RequestState

MAX_WAITING_CLIENTS = 2_000
"""Maximum number of clients of one process that wait for changes."""
MAX_WAITING_CLIENTS_PER_PRINCIPAL = 1_500
"""Maximum number of these clients with the same principal."""
HEARTBEAT_INTERVAL_SECONDS = 15.0
"""Seconds without a change after which a stream sends a heartbeat. Proxies cut connections that are idle for longer."""
STREAM_BATCH_SIZE = 500
"""Maximum number of changes that a stream reads at a time."""

_DESCRIPTION = """\
List the changes of all records in the order in which they became visible, oldest first, to keep a copy up to date. No
change is left out or listed twice, however long its transaction took. Send the `Next-Cursor` of each response as
`after` with the next request; a page that is empty means that there is nothing new. `wait` lets a request wait.

To begin, read a list without `limit`, and continue after the cursor in its header `Changes-Cursor`. If the response is
a 410, begin again. The versions of a record arrive in order. Credentials that are restricted to hospitals get the
changes of their patients only.

With `Accept: application/x-ndjson` or `Accept: text/event-stream`, the response is a stream that does not end: each
change has a `cursor`, or an `id` for the header `Last-Event-ID`. A blank line or a comment is sent every 15 seconds."""

router = make_router(FEED_PATH.rstrip("/"), tag="changes")


@router.get(
    "/",
    name="follow_changes",
    summary="Follow the changes of all records",
    description=_DESCRIPTION,
    response_description="The next changes, oldest first.",
    response_model=list[Change],
    openapi_extra=requires(Scope.CHANGES_READ)
    | request_parameters(
        query=FeedParameters,
        headers=[
            {
                "name": "Last-Event-ID",
                "description": "The `id` of the last event of a stream. It replaces `after`, and browsers send it when "
                "they connect again.",
            }
        ],
    ),
    responses=problem_responses(
        410,
        422,
        errors=[{"loc": ["query", "wait"], "msg": "Must be at most 25", "type": "less_than_equal"}],
    )
    | {
        200: {
            "headers": {
                "Next-Cursor": {
                    "description": "The cursor to send as `after` with the next request. Streams do not have it.",
                    "schema": {"type": "string"},
                    "example": "t1Q9Zk3m0aXl",
                }
            }
        }
    },
)
@passthrough
async def follow_changes(request: Request) -> Response:
    """Return a page of changes, or a stream if the client accepts a media type of streams.

    Raises:
        ValidationFailedError: a parameter or the cursor is invalid.
        FeedExpiredError: the changes after the cursor are no longer known.
        MissingScopeError: the request asks for records that the principal may not read.
        TooManyRequestsError, UnavailableError: too many clients wait already.
    """
    parameters = parse_query(request, FeedParameters)
    is_head = RequestState.from_scope(request.scope).method == "HEAD"
    reader = FeedReader(request, parameters)
    await reader.start(request.headers.get("last-event-id"))
    media_type = choose_media_type(request, _STREAM_ENCODERS)
    if encode := _STREAM_ENCODERS.get(media_type):
        return await _stream_response(request, reader, encode, media_type, first_only=is_head)
    wait_seconds = 0 if is_head else parameters.wait or 0
    if wait_seconds:
        await _acquire_waiting_slot(request)
    changes = await reader.page(parameters.limit or DEFAULT_LIMIT, wait_seconds)
    headers = {"Next-Cursor": await reader.cursor(), "Vary": "Accept"}
    if is_head:  # it reads no records, so it neither discloses them nor knows the length of the body
        response = Response(headers=headers, media_type=JSON_MEDIA_TYPE)
        del response.headers["Content-Length"]
        return response
    body = f"[{','.join(await reader.documents(changes))}]"
    return Response(body, headers=headers, media_type=JSON_MEDIA_TYPE)


async def _acquire_waiting_slot(request: Request) -> None:
    """Acquire a slot for a client that waits, which the middleware releases at the end of the request."""
    slots, name = get_services(request).waiting_bulkhead, Principal.from_request(request).name
    RequestState.from_scope(request.scope).release_stream_slot = await slots.acquire(name)


async def _encode_json_lines(reader: FeedReader, changes: Sequence[FeedChange]) -> str:
    documents = await reader.documents(changes)
    cursors = [await reader.cursor(change.feed_position) for change in changes]
    lines = map(with_member, documents, ["cursor"] * len(documents), [f'"{cursor}"' for cursor in cursors])
    return "".join(f"{line}\n" for line in lines) or "\n"


async def _encode_events(reader: FeedReader, changes: Sequence[FeedChange]) -> str:
    documents = await reader.documents(changes)
    events = [
        format_sse_event(data_str=document, id=await reader.cursor(change.feed_position)).decode()
        for document, change in zip(documents, changes, strict=True)
    ]
    return "".join(events) or KEEPALIVE_COMMENT.decode()


_STREAM_ENCODERS: dict[str, Any] = {
    NDJSON.media_type: _encode_json_lines,
    EventSourceResponse.media_type: _encode_events,
}
"""The functions that encode changes, or a heartbeat if there are none, by the media type of the stream."""


async def _stream_response(
    request: Request, reader: FeedReader, encode: Any, media_type: str, *, first_only: bool
) -> Response:
    limit = reader.stream_limit
    await _acquire_waiting_slot(request)
    # read before the response starts, so that a failure can still become a problem response
    first = await reader.page(int(min(limit, STREAM_BATCH_SIZE)), 0)

    async def chunks() -> AsyncIterator[str]:
        changes, sent = first, 0
        while not first_only:
            yield await encode(reader, changes)  # a heartbeat if there are none
            sent += len(changes)
            if sent >= limit or get_services(request).is_stopping:
                return
            try:
                changes = await reader.page(int(min(limit - sent, STREAM_BATCH_SIZE)), HEARTBEAT_INTERVAL_SECONDS)
            except ServiceError:  # the client learns why when it connects again
                return

    headers = {"Vary": "Accept", "X-Accel-Buffering": "no"}  # nginx would hold changes back
    return StreamingResponse(chunks(), headers=headers, media_type=media_type)
