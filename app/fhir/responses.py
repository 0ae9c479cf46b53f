"""Responses of the FHIR interface: resources with their versions, and Bundles."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from fastapi import Request, Response
from pydantic_core import to_json

from app.errors import FieldError
from app.fhir.changes import Applied
from app.fhir.routing import base_url
from app.fhir_resources.documents import Meta, meta_of
from app.fhir_resources.ids import logical_id, logical_ids
from app.http.outcomes import FHIR_MEDIA_TYPE, issue
from app.listing.page import Page
from app.records.preconditions import Precondition, etag_matches
from app.records.results import Record
from app.records.service import raise_if_any

LEFT_OUT_HEADER = "Elements-Left-Out"
"""Response header with the paths of the elements that the register did not keep, because the client allows that."""
MAX_HEADER_PATHS = 50
"""Maximum number of paths in that header."""


def fhir_response(content: str | bytes | None, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a resource as JSON text, or without content."""
    return Response(content, status, headers, media_type=FHIR_MEDIA_TYPE if content is not None else None)


def version_headers(meta: Meta) -> dict[str, str]:
    """Return the headers that identify the version of a resource."""
    changed = datetime.fromisoformat(meta.last_updated).astimezone(UTC)
    return {
        "ETag": f'W/"{meta.version_id}"',
        "Last-Modified": format_datetime(changed, usegmt=True),
        "Cache-Control": "private, no-cache",
    }


def resource_response(
    request: Request, document: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the response with a resource or, if the client has this version, a 304 response."""
    all_headers = {**version_headers(meta_of(document)), **(headers or {})}
    if request.method == "GET" and "if-none-match" in request.headers:
        if_none_match = Precondition.from_headers(request.headers).if_none_match or ""
        if etag_matches(if_none_match, all_headers["ETag"]):
            return fhir_response(None, 304, all_headers)
    return fhir_response(document, status, all_headers)


def location_of(base: str, record: Record) -> str:
    """Return the address of the version of a Patient that was just written."""
    return f"{base}/Patient/{logical_id(record.unique_id)}/_history/{meta_of(record.document).version_id}"


def write_response(request: Request, applied: Applied, headers: Mapping[str, str]) -> Response:
    """Return the response to a request that has changed a Patient.

    The header `Prefer` decides what it contains. If the register did not keep all elements, the default is an
    OperationOutcome that lists them.
    """
    record, status, left_out, warnings, _ = applied
    all_headers = {
        **version_headers(meta_of(record.document)),
        "Location": location_of(base_url(request), record),
        **headers,
    }
    if warnings:
        all_headers["Identifier-Warning"] = ", ".join(warnings)
    if left_out:
        paths = [str(error.loc[0]) for error in left_out]
        more = [f"and {len(paths) - MAX_HEADER_PATHS} more"] if len(paths) > MAX_HEADER_PATHS else []
        all_headers[LEFT_OUT_HEADER] = ", ".join(paths[:MAX_HEADER_PATHS] + more)
    requested = preference(request, "return") or ("OperationOutcome" if left_out else "representation")
    if requested == "minimal":
        return fhir_response(None, status, all_headers)
    if requested == "OperationOutcome":
        return fhir_response(to_json(left_out_outcome(left_out)), status, all_headers)
    return fhir_response(record.document, status, all_headers)


def left_out_outcome(left_out: Sequence[FieldError]) -> dict[str, Any]:
    """Return the OperationOutcome that says which elements the register did not keep."""
    issues = [issue(error, "warning") for error in left_out]
    stored = {"severity": "information", "code": "informational", "details": {"text": "The resource was stored."}}
    return {"resourceType": "OperationOutcome", "issue": [*issues, stored]}


_PREFERENCES: Mapping[str, tuple[str, ...]] = {
    "handling": ("strict", "lenient"),
    "return": ("minimal", "representation", "OperationOutcome"),
}
"""The values of the preferences that clients may have. Other preferences are ignored, as RFC 7240 requires."""


def preference(request: Request, name: str) -> str | None:
    """Return the value of a preference in the header `Prefer` (RFC 7240), or None if the client has none.

    Raises:
        ValidationFailedError: any of the preferences has an unknown value.
    """
    found: dict[str, str] = {}
    for header in request.headers.getlist("prefer"):
        for part in header.replace(";", ",").split(","):
            key, _, value = part.partition("=")
            found.setdefault(key.strip().lower(), value.strip().strip('"'))
    raise_if_any(
        FieldError(("header", "Prefer"), f"{key} must be {', '.join(values[:-1])} or {values[-1]}", "literal_error")
        for key, values in _PREFERENCES.items()
        if found.get(key, values[0]) not in values
    )
    return found.get(name)


def bundle(kind: str, members: Iterable[str], entries: Iterable[bytes] | None) -> bytes:
    """Return a Bundle of a type with further `members`, each as JSON text.

    Each of the `entries` may consist of several with commas between them. If `entries` is None or empty, the Bundle has
    no member `entry`.
    """
    joined = b",".join(entries or ())
    opening = ",".join([f'{{"resourceType":"Bundle","type":"{kind}"', *members]).encode()
    return b"".join((opening, b',"entry":[', joined, b"]}") if joined else (opening, b"}"))


def link_member(links: Mapping[str, str]) -> str:
    """Return the member of a Bundle with its links, by relation."""
    return '"link":' + to_json([{"relation": name, "url": url} for name, url in links.items()]).decode()


def match_entries(base: str, resource_type: str, page: Page) -> bytes:
    """Return the entries of the resources of a page, which a search has found, with commas between them."""
    opening, closing = b'{"fullUrl":' + to_json(f"{base}/{resource_type}/")[:-1], b',"search":{"mode":"match"}}'
    pieces: list[bytes] = []
    for resource_id, document in zip(logical_ids(page.ids), page.documents(), strict=True):
        pieces += (b"," + opening if pieces else opening, resource_id.encode(), b'","resource":', document, closing)
    return b"".join(pieces)  # the resources are copied once
