"""Bundles of the types `batch` and `transaction`: many changes of patients in one request.

A transaction is one transaction of the database, so all entries are stored or none is. The entries of a batch are
stored one by one, and each has an outcome of its own.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import Request, Response
from pydantic_core import to_json

from app.api.services import get_services
from app.audit.recorder import RequestAudit
from app.auth.principal import Principal
from app.db.connection import Connection
from app.errors import ConflictError, FieldError, ServiceError, UnreadableBodyError, ValidationFailedError
from app.fhir.changes import Applied, PatientChange, condition_criteria, condition_pairs, id_in
from app.fhir.responses import bundle, fhir_response, left_out_outcome, location_of, preference
from app.fhir.routing import base_url, checked_type, read_resource
from app.fhir.search import search_context
from app.fhir.writes import change_of, check_creation
from app.fhir_resources.documents import meta_of
from app.fhir_resources.elements import Element, Findings
from app.fhir_resources.ids import unique_id_of
from app.fhir_resources.services import PATIENT_SERVICE
from app.http.field_errors import MISSING_MESSAGE
from app.http.outcomes import outcome_content
from app.records.idempotency import IdempotencyKey
from app.records.preconditions import Precondition
from app.records.results import Record

MAX_ENTRIES = 100
"""Maximum number of entries in a Bundle. All of them are stored within the time that a transaction may take."""
TRANSACTION_TIMEOUT_SECONDS = 5.0
"""Maximum duration of the transaction for a Bundle, in seconds."""


class BundleChange(NamedTuple):
    """An entry of a Bundle: the change that it describes and its precondition."""

    change: PatientChange
    precondition: Precondition


async def run_bundle(request: Request) -> Response:
    """Make the changes that a Bundle describes.

    Raises:
        UnreadableBodyError: the Bundle is of another type.
        ValidationFailedError: there are too many entries.
        ServiceError: the Bundle is a transaction, and one of its entries fails. The errors name the entry.
    """
    content = await read_resource(request, "Bundle")
    findings = Findings()
    element = Element(content, "Bundle", findings)
    kind = element.take_text("type")
    if kind not in {"batch", "transaction"}:
        raise UnreadableBodyError("A Bundle must be of the type batch or transaction.")
    element.take_text("resourceType")
    element.take_text("id")
    entries = [value for _, value in element.take_list("entry", dict, description="an object")]
    element.refuse_rest()
    if len(entries) > MAX_ENTRIES:
        message = f"Must have at most {MAX_ENTRIES} items"
        raise ValidationFailedError([FieldError(("Bundle.entry",), message, "too_long")])
    if findings.errors or findings.refused:
        raise ValidationFailedError([*findings.errors, *findings.refused])
    run = _run_transaction if kind == "transaction" else _run_batch
    return await run(request, entries, await request.body())


def _read_entry(request: Request, index: int, value: Mapping[str, Any]) -> BundleChange:
    """Return the change that an entry of a Bundle describes.

    Raises:
        ServiceError: the entry has errors, or describes anything else than a creation or an update of a Patient.
    """
    findings = Findings()
    entry = Element(value, f"Bundle.entry[{index}]", findings)
    entry.take_text("fullUrl")  # it names the resource within the Bundle, and no entry can refer to another one
    resource = entry.take("resource", dict, description="an object")
    sent = entry.take_object("request")
    entry.refuse_rest()
    if sent is None:
        findings.add_error(f"{entry.path}.request", MISSING_MESSAGE, "missing")
        raise ValidationFailedError(findings.errors)
    method, url = sent.take_text("method"), sent.take_text("url") or ""
    if_match, if_none_match = sent.take_text("ifMatch"), sent.take_text("ifNoneMatch")
    if_none_exist = sent.take_text("ifNoneExist")
    sent.refuse_rest()
    path, _, query = url.removeprefix(f"{base_url(request)}/").lstrip("/").partition("?")
    kind, _, resource_id = path.partition("/")
    target = "id" if resource_id else "condition" if query else ""
    if kind != "Patient" or (method, target) not in {("POST", ""), ("PUT", "id"), ("PUT", "condition")}:
        findings.refuse(sent.path, "An entry creates a Patient by POST or updates one by PUT")
    if if_none_exist is not None and method != "POST":
        findings.refuse(f"{sent.path}.ifNoneExist", "Is for creations")
    if resource_id and query:
        findings.refuse(f"{sent.path}.url", "Must have an id or a condition")
    if findings.errors or findings.refused:
        raise ValidationFailedError([*findings.errors, *findings.refused])
    patient = checked_type(resource, "Patient", f"{entry.path}.resource")
    sent_condition = if_none_exist if method == "POST" else None if resource_id else query
    condition = None
    if sent_condition is not None:
        source = (f"{sent.path}.{'ifNoneExist' if method == 'POST' else 'url'}",)
        condition = condition_criteria(condition_pairs(sent_condition), source, search_context(request))
    unique_id = None if method == "POST" else id_in(patient)
    if resource_id and (unique_id is None or unique_id_of(resource_id) != unique_id):
        raise UnreadableBodyError("The id of the resource must be the id in the url.")
    is_required = get_services(request).settings.require_if_match and method == "PUT"
    precondition = Precondition(if_match, if_none_match, is_required)
    change = change_of(request, patient, condition, replaces=method == "PUT", unique_id=unique_id)
    return BundleChange(change, precondition)


def _locate(error: ServiceError, index: int) -> ServiceError:
    """Return an error whose locations begin with the entry of the Bundle in which it occurred."""
    entry = f"Bundle.entry[{index}]"
    if not error.errors:
        error.errors = [FieldError((entry,), error.detail, "entry_refused")]
        return error

    def located(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
        first = str(location[0])
        if first.startswith(entry):
            return location
        return (first.replace("Patient", f"{entry}.resource", 1),) if first.startswith("Patient") else (entry,)

    error.errors = [one._replace(loc=located(one.loc)) for one in error.errors]
    return error


async def _run_transaction(request: Request, entries: list[Any], body: bytes) -> Response:
    services, principal, audit = get_services(request), Principal.from_request(request), _audit(request)
    changes: list[BundleChange] = []
    errors: list[FieldError] = []
    for index, entry in enumerate(entries):
        try:
            changes.append(_read_entry(request, index, entry))
        except ServiceError as error:
            errors += _locate(error, index).errors
    if errors:
        raise ValidationFailedError(errors)
    key = IdempotencyKey.from_request(request, principal, body)
    check = partial(check_creation, request)

    async def work(connection: Connection) -> bytes:
        service = PATIENT_SERVICE(connection, principal)
        stored = None if key is None else await key.claim(service.repository)
        if stored is not None:
            return stored.document.encode()
        done: dict[int, Applied] = {}
        # creations come first (FHIR R4, http.html#trules)
        for index in sorted(range(len(changes)), key=lambda index: changes[index].change.replaces):
            change, precondition = changes[index]
            try:
                applied = await change.apply(service, precondition, check)
                _refuse_overlap(applied, done.values())
            except ServiceError as error:
                raise _locate(error, index) from None
            audit.success_status = applied.status
            await audit.insert(connection, applied.record.unique_id)
            done[index] = applied
        entries = (_response_entry(request, done[index]) for index in range(len(changes)))
        response = bundle("transaction-response", (), entries)
        if key is not None:
            await key.store(connection, Record("", response.decode()))
        return response

    response = await services.database.transaction_for(
        principal.name, work, timeout_seconds=TRANSACTION_TIMEOUT_SECONDS
    )
    audit.success_status = int(HTTPStatus.OK)
    audit.recorded = True
    services.change_watcher.note_commit()
    return fhir_response(response)


def _refuse_overlap(applied: Applied, others: Iterable[Applied]) -> None:
    """Refuse a second change of one patient in a transaction, because the result would depend on the order of entries.

    Raises:
        ConflictError: another entry is about the same patient, and one of the two stores something.
    """
    for other in others:
        if other.record.unique_id == applied.record.unique_id and not (other.is_unchanged and applied.is_unchanged):
            raise ConflictError("Another entry of the transaction is about the same patient. Nothing was stored.")


async def _run_batch(request: Request, entries: list[Any], body: bytes) -> Response:
    services, principal, audit = get_services(request), Principal.from_request(request), _audit(request)
    if IdempotencyKey.from_request(request, principal, body) is not None:
        message = "Is for transactions: the entries of a batch are stored one by one"
        raise ValidationFailedError([FieldError(("header", "Idempotency-Key"), message, "idempotency_key")])
    run = partial(_run_entry, request, principal, audit)
    responses = [await _outcome(request, index, partial(run, index, entry)) for index, entry in enumerate(entries)]
    audit.success_status = int(HTTPStatus.OK)
    audit.recorded = bool(entries)
    services.change_watcher.note_commit()
    return fhir_response(bundle("batch-response", (), responses))


async def _run_entry(request: Request, principal: Principal, audit: RequestAudit, index: int, entry: Any) -> Applied:
    change, precondition = _read_entry(request, index, entry)

    async def work(connection: Connection) -> Applied:
        service = PATIENT_SERVICE(connection, principal)
        applied = await change.apply(service, precondition, partial(check_creation, request))
        audit.success_status = applied.status
        await audit.insert(connection, applied.record.unique_id)
        return applied

    return await get_services(request).database.transaction_for(principal.name, work)


async def _outcome(request: Request, index: int, run: Callable[[], Awaitable[Applied]]) -> bytes:
    """Return the entry of the response to a batch for one of its entries, whether it succeeds or fails."""
    try:
        return _response_entry(request, await run())
    except ServiceError as error:
        located = _locate(error, index)
        request_id = _audit(request).request_state.request_id
        outcome = outcome_content(error.status, error.detail, located.errors, request_id)
        return to_json({"response": {"status": str(int(error.status)), "outcome": outcome}})


def _response_entry(request: Request, applied: Applied) -> bytes:
    record, meta = applied.record, meta_of(applied.record.document)
    response: dict[str, Any] = {
        "status": str(applied.status),
        "location": location_of(base_url(request), record),
        "etag": f'W/"{meta.version_id}"',
        "lastModified": meta.last_updated,
    }
    if applied.left_out:
        response["outcome"] = left_out_outcome(applied.left_out)
    if preference(request, "return") == "minimal":
        return to_json({"response": response})
    return to_json({"resource": json.loads(record.document), "response": response})


def _audit(request: Request) -> RequestAudit:
    return RequestAudit.from_request(request)
