"""Responses that contain one record, including conditional ones (304)."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response
from pydantic_core import to_json

from app.fields.selection import FieldSelection
from app.records.preconditions import Precondition, entity_tag, etag_matches


def nested_document(name: str, document: str, others: Mapping[str, Any]) -> str:
    """Return a JSON object with a record, as JSON text, in the member `name`, followed by the members in `others`."""
    return f'{{"{name}":{document},{to_json(others).decode()[1:]}'


def record_response(
    request: Request,
    document: str,
    status: int = 200,
    headers: dict[str, str] | None = None,
    selection: FieldSelection | None = None,
) -> Response:
    """Return a response with a record and its ETag.

    If this is a GET request whose header `If-None-Match` contains the ETag, return a 304 response instead. `document`
    is the record as JSON text, of which the response contains the fields in `selection`. The ETag is always that of the
    whole record, so that it can be sent as `If-Match` with a change. It is a strong validator of the reduced
    representation too, which has a URL of its own and never changes without the record.
    """
    tag = entity_tag(document)
    # a cache may store the response, but has to revalidate it before each use
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", **(headers or {})}
    if_none_match = Precondition.from_headers(request.headers).if_none_match if request.method == "GET" else None
    if if_none_match is not None and etag_matches(if_none_match, tag):
        return Response(None, 304, headers)
    content = document if selection is None else selection.apply(document)
    return Response(content, status, headers, media_type="application/json")
