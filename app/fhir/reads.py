"""Reads of single resources: the current version, an earlier one, and the list of all versions."""

from typing import Any

from fastapi import Request, Response
from pydantic_core import to_json

from app.api.services import get_services
from app.audit.break_glass import break_glass
from app.auth.principal import Principal
from app.errors import FieldError, InvalidSearchError, NotFoundError
from app.fhir.resources import PATIENT, ResourceType
from app.fhir.responses import bundle, fhir_response, link_member, resource_response
from app.fhir.routing import base_url, query_pairs
from app.fhir.search import CURSOR_PARAMETER, DEFAULT_COUNT, MAX_COUNT
from app.fhir_resources.history import ResourceHistory, ResourceVersion
from app.fhir_resources.ids import logical_id
from app.fields.history import MAX_VERSION
from app.listing.cursors import InvalidCursorError

_METHODS = {"deleted": "DELETE", "erased": "DELETE"}
"""The method of the request in an entry of a history, by the action in the journal. Other actions have PUT."""
_STATUSES = {"created": "201", "deleted": "204", "erased": "204"}


async def read_resource_of(request: Request, resource_type: ResourceType, unique_id: str) -> Response:
    """Return the current version of a resource. The resource of a merged patient names the survivor.

    Raises:
        NotFoundError: there is no such resource that is visible to the principal.
        GoneError: the resource was deleted, and the principal may know that it existed.
    """
    principal = break_glass(request) if resource_type is PATIENT else Principal.from_request(request)
    reads = get_services(request).batched_reads
    try:
        document = (await reads.get(resource_type.repository_class, principal.hospitals, unique_id)).document
    except NotFoundError:
        if resource_type is not PATIENT:
            raise
        document = await _read_former(request, principal, unique_id)
    return resource_response(request, document)


async def _read_former(request: Request, principal: Principal, unique_id: str) -> str:
    """Return the resource of a patient that was merged into another one.

    Raises:
        NotFoundError: there never was such a patient, or the principal may not see its history.
        GoneError: the patient was deleted.
    """
    async with get_services(request).database.read() as connection:
        history = ResourceHistory(PATIENT.repository_class(connection, principal))
        return await history.version(unique_id, await history.newest_version(unique_id))


async def read_version(request: Request, unique_id: str, version: str) -> Response:
    """Return a Patient as it was in a version."""
    number = int(version) if version.isascii() and version.isdecimal() and len(version) <= len(str(MAX_VERSION)) else 0
    async with get_services(request).database.read() as connection:
        history = ResourceHistory(PATIENT.repository_class(connection, Principal.from_request(request)))
        document = await history.version(unique_id, min(number, MAX_VERSION - 1))
    return resource_response(request, document)


async def read_history(request: Request, unique_id: str) -> Response:
    """Return the Bundle with a page of the versions of a Patient, newest first."""
    services, principal = get_services(request), Principal.from_request(request)
    sent = dict(query_pairs(request))
    limit_text, cursor = sent.get("_count", str(DEFAULT_COUNT)), sent.get(CURSOR_PARAMETER)
    if not (limit_text.isascii() and limit_text.isdecimal() and 0 < int(limit_text[:9]) <= MAX_COUNT):
        raise InvalidSearchError([FieldError(("query", "_count"), f"Must be from 1 to {MAX_COUNT}", "parameter_value")])
    purpose = [b"fhir history", principal.name.encode(), unique_id.encode()]
    try:
        before = MAX_VERSION if cursor is None else await services.cursors.decrypt(cursor, purpose)
    except InvalidCursorError:
        message = "Must be a cursor from a link in an earlier Bundle"
        raise InvalidSearchError([FieldError(("query", CURSOR_PARAMETER), message, "parameter_value")]) from None
    limit = int(limit_text)
    async with services.database.search_snapshot(principal.name) as connection:
        history = ResourceHistory(PATIENT.repository_class(connection, principal))
        entries = await history.entries(unique_id, before, limit + 1)
        if not entries:
            await history.newest_version(unique_id)
    base = base_url(request)
    address = f"{base}/Patient/{logical_id(unique_id)}"
    links = {"self": f"{address}/_history?_count={limit}"}
    if cursor is not None:
        links["self"] += f"&{CURSOR_PARAMETER}={cursor}"
    if len(entries) > limit:
        following = await services.cursors.encrypt(entries[limit - 1].version, purpose)
        links["next"] = f"{address}/_history?_count={limit}&{CURSOR_PARAMETER}={following}"
    return fhir_response(bundle("history", [link_member(links)], (_entry(address, entry) for entry in entries[:limit])))


def _entry(address: str, entry: ResourceVersion) -> bytes:
    request: dict[str, Any] = {"method": _METHODS.get(entry.action, "PUT"), "url": address.rpartition("/Patient/")[2]}
    request["url"] = f"Patient/{request['url']}"
    response = {
        "status": _STATUSES.get(entry.action, "200"),
        "etag": f'W/"{entry.version}"',
        "lastModified": entry.time,
    }
    resource = b"" if entry.document is None else b',"resource":' + entry.document.encode()
    return b'{"fullUrl":%b%b,"request":%b,"response":%b}' % (
        to_json(address),
        resource,
        to_json(request),
        to_json(response),
    )
