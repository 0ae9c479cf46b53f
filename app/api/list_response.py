"""Responses to list requests: one page with headers that lead to other pages, or the whole list as a stream."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.admission.bulkhead import Bulkhead
from app.api.list_source import STREAM_BATCH_SIZE, ListSource
from app.api.services import get_services
from app.api.streaming import stream_list
from app.auth.principal import Principal
from app.errors import FieldError, ValidationFailedError
from app.http.accept import choose_media_type
from app.http.field_errors import safe_location_part
from app.listing.cursors import non_paging_parameters
from app.listing.formats import JSON_ARRAY, NDJSON, ListFormat
from app.listing.page import EMPTY_PAGE
from app.listing.pagination import DEFAULT_LIMIT, MAX_LIMIT, PageParameters
from app.memory import schedule_memory_trim
from app.paths import SEARCH_SUFFIX
from app.request_state import RequestState

MAX_STREAMS = 12
"""Maximum number of whole lists that one process streams concurrently. Each takes some megabytes of memory."""
MAX_STREAMS_PER_PRINCIPAL = 4
"""Maximum number of whole lists that one process streams concurrently to the same principal."""

P = TypeVar("P", bound=PageParameters)


async def list_response(
    request: Request,
    parameters: P,
    create_source: Callable[[P], ListSource],
    extra_headers: Mapping[str, str] | None = None,
) -> Response:
    """Return one page of a list, or the whole list as a stream.

    The response is a page if the request has a `limit` or a `cursor`, if it searches for a text, or if the setting
    `list_cap` is set. Its body is a JSON array, or one record per line if the client prefers `application/x-ndjson`.
    `create_source` is called with `parameters` or, if they contain a cursor, with the parameters stored in the cursor.

    Raises:
        ValidationFailedError: the cursor or a parameter is invalid.
    """
    _reject_query_parameters(request, parameters)
    services = get_services(request)
    after, parameters = await services.cursors.open(
        _list_path(request),
        Principal.from_request(request),
        parameters.cursor,
        parameters,
        _parameters_location(request),
    )
    source = create_source(parameters)
    list_format = NDJSON if choose_media_type(request, [NDJSON.media_type]) == NDJSON.media_type else JSON_ARRAY
    headers = {"Vary": "Accept", **(extra_headers or {})}
    if (total := await source.count()) is not None:
        headers["X-Total-Count"] = str(total)
    limit = parameters.limit
    if limit is None:
        is_page = parameters.cursor is not None or parameters.is_paged_by_default
        limit = DEFAULT_LIMIT if is_page else services.settings.list_cap
    if limit is None:
        return await _stream_response(request, source, list_format, headers)
    found = await source.page(after, limit + 1)  # one more, to find out whether there is a next page
    has_next = len(found) > limit
    page = found.without_last() if has_next else found
    # the link to the next page reveals that its first record matches the query, so that record is audited as well
    selects_records = bool(non_paging_parameters(parameters).keys() - {"fields", "include"})
    await source.before_send(found if selects_records else page)
    headers |= source.headers
    headers |= await _pagination_headers(
        request, page.last_position if has_next else None, min(limit, MAX_LIMIT), parameters
    )
    body = b"".join((list_format.opening, list_format.encode(page), list_format.closing))  # copied once
    return Response(body, headers=headers, media_type=list_format.media_type)


async def _stream_response(
    request: Request, source: ListSource, list_format: ListFormat, headers: dict[str, str]
) -> Response:
    state = RequestState.from_scope(request.scope)
    # the cursor first, so that no change falls between it and the list
    if (changes_cursor := await source.changes_cursor()) is not None:
        headers = {**headers, "Changes-Cursor": changes_cursor}
    # read before the response starts, so that a failure can still become a problem response
    first_batch = await source.page(None, STREAM_BATCH_SIZE)
    if len(first_batch) >= STREAM_BATCH_SIZE:
        streams, name = get_services(request).stream_bulkhead, Principal.from_request(request).name
        release = streams.try_acquire(name)
        if release is None:
            first_batch = EMPTY_PAGE  # hold no records while waiting for a slot
            release = await streams.acquire(name)
        state.release_stream_slot = partial(_end_stream, streams, release)
        first_batch = first_batch or await source.page(None, STREAM_BATCH_SIZE)
    await source.before_send(first_batch)
    chunks = stream_list(source, list_format, first_batch, first_only=state.method == "HEAD")
    return StreamingResponse(chunks, headers=headers, media_type=list_format.media_type)


def _end_stream(streams: Bulkhead, release: Callable[[], None]) -> None:
    release()
    if streams.is_idle:
        schedule_memory_trim()


def _reject_query_parameters(request: Request, parameters: PageParameters) -> None:
    """Raise ValidationFailedError if a request that must send its parameters in the body has query parameters.

    Only `include` may be in both, because all other requests have it in the query.
    """
    if _parameters_location(request) == "body" and request.query_params:
        allowed = type(parameters).model_fields.keys() & {"include"}
        errors = [
            FieldError(("query", safe_location_part(name)), "Must be in the body", "extra_forbidden")
            for name in request.query_params
            if name not in allowed
        ]
        if errors:
            raise ValidationFailedError(errors)


def _parameters_location(request: Request) -> str:
    """Return `body` for a search, which has its parameters in the body, and otherwise `query`."""
    return "body" if request.method == "POST" else "query"


def _list_path(request: Request) -> str:
    """Return the path of the requested list. For a search, this is the path of the list that is searched."""
    path: str = request.scope["path"]
    return path.removesuffix(SEARCH_SUFFIX)


async def _pagination_headers(request: Request, after: Any, limit: int, parameters: PageParameters) -> dict[str, str]:
    """Return the headers that lead to other pages.

    `after` is the position of the last item of this page, or None if this is the last page. If there is a next page,
    the client gets the cursor to request it with. Unless its parameters are in the body, it also gets links. These are
    relative, because a proxy may expose this service under a different host name. The parameters may contain people's
    names, so a link contains them only in encrypted form, inside the cursor.
    """
    cursors = get_services(request).cursors
    path, principal, location = _list_path(request), Principal.from_request(request), _parameters_location(request)
    next_cursor = None if after is None else await cursors.seal(path, principal, after, parameters, location)
    headers = {} if next_cursor is None else {"Next-Cursor": next_cursor}
    if location == "body":
        return headers
    first_cursor = await cursors.seal(path, principal, None, parameters) if non_paging_parameters(parameters) else None
    cursors_by_relation = (
        {"first": first_cursor} if next_cursor is None else {"next": next_cursor, "first": first_cursor}
    )
    links = []
    for relation, cursor in cursors_by_relation.items():
        # neither value has a character that a URL escapes
        query = f"limit={limit}" if cursor is None else f"limit={limit}&cursor={cursor}"
        links.append(f'<{path}?{query}>; rel="{relation}"')
    return {**headers, "Link": ", ".join(links)}
