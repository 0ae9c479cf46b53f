"""The requests that change patients."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import Request, Response

from app.api.services import get_services
from app.api.writes import WriteRequest
from app.audit.recorder import RequestAudit
from app.db.connection import Connection
from app.duplicates.matching import duplicate_check
from app.errors import UnreadableBodyError
from app.fhir.changes import (
    Applied,
    PatientChange,
    condition_criteria,
    condition_pairs,
    id_in,
    read_sent_patient,
)
from app.fhir.responses import fhir_response, preference, write_response
from app.fhir.routing import base_url, query_pairs, read_resource
from app.fhir.search import search_context
from app.fhir_resources.services import PATIENT_SERVICE
from app.fhir_search.criteria import Criterion
from app.patients.schemas import PatientCreate
from app.patients.service import PatientService
from app.records.preconditions import Precondition
from app.records.results import Record


def is_lenient(request: Request) -> bool:
    """Return whether a request allows the service to leave out what the register cannot hold.

    Raises:
        ValidationFailedError: a preference has an unknown value.
    """
    return preference(request, "handling") == "lenient"


async def check_creation(request: Request, body: PatientCreate, connection: Connection) -> None:
    """Raise an error if the request asks for a check, and the person is probably registered already."""
    check = duplicate_check(request, body)
    if check is not None:
        await check(connection)


def change_of(
    request: Request,
    resource: Mapping[str, Any],
    condition: Sequence[Criterion] | None,
    *,
    replaces: bool,
    unique_id: str | None,
) -> PatientChange:
    """Return the change that stores the Patient in a request.

    Raises:
        ValidationFailedError: elements have errors or cannot be kept.
    """
    patient = read_sent_patient(resource, base_url(request), is_lenient=is_lenient(request))
    return PatientChange(patient, replaces, unique_id, condition)


async def create_patient(request: Request) -> Response:
    """Create the Patient in the body, unless `If-None-Exist` says that there is one with an identifier."""
    resource = await read_resource(request, "Patient")
    header, condition = request.headers.get("if-none-exist"), None
    if header is not None:
        source = ("header", "If-None-Exist")
        condition = condition_criteria(condition_pairs(header), source, search_context(request))
    change = change_of(request, resource, condition, replaces=False, unique_id=None)
    return await _run(request, change, accepts_key=True)


async def update_patient(request: Request, unique_id: str) -> Response:
    """Replace a Patient with the one in the body, or create it with this id."""
    resource = await read_resource(request, "Patient")
    if not unique_id or id_in(resource) != unique_id:
        raise UnreadableBodyError("The id in the body must be the id in the path, which is that of a resource.")
    change = change_of(request, resource, None, replaces=True, unique_id=unique_id)
    return await _run(request, change, accepts_key=False)


async def update_matching_patient(request: Request) -> Response:
    """Replace the Patient with the identifier in the query, or create one if there is none."""
    sent = [(name, value) for name, value in query_pairs(request) if name != "_format"]
    resource = await read_resource(request, "Patient")
    condition = condition_criteria(sent, ("query", "identifier"), search_context(request))
    change = change_of(request, resource, condition, replaces=True, unique_id=id_in(resource))
    return await _run(request, change, accepts_key=False)


async def _run(request: Request, change: PatientChange, *, accepts_key: bool) -> Response:
    body, audit = change.body, RequestAudit.from_request(request)
    updated_id = change.unique_id if change.replaces and change.condition is None else None
    write = WriteRequest(request, PATIENT_SERVICE, body=body, unique_id=updated_id, accepts_key=accepts_key)
    check = partial(check_creation, request)
    applied: Applied | None = None

    async def apply(service: PatientService, precondition: Precondition) -> Record:
        nonlocal applied
        if change.replaces:  # also if a condition finds out which patient it is
            precondition = replace(precondition, required=get_services(request).settings.require_if_match)
        applied = await change.apply(service, precondition, check)
        audit.success_status = applied.status
        return applied.record

    # a statement shared with other requests cannot find out what the change depends on
    is_unconditional = change.condition is None and not change.patient.record.has_derived_parts
    is_checked = isinstance(body, PatientCreate) and duplicate_check(request, body) is not None
    record = await write.run(apply, batched=is_unconditional and not is_checked)
    if applied is None:  # as a single statement, or by an earlier request
        applied = change.patient.applied(record, 200 if updated_id else 201)
    return write_response(request, applied, write.replay_headers)


async def delete_patient(request: Request, unique_id: str) -> Response:
    """Delete a Patient."""
    write = WriteRequest(request, PATIENT_SERVICE, unique_id=unique_id)
    await write.run(lambda service, precondition: service.delete(unique_id, precondition))
    return fhir_response(None, 204)
