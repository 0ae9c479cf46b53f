"""Changes of patients: from the resource in a request to the record, and back to the resource that is stored."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request, Response
from pydantic import ValidationError

from app.api.services import get_services
from app.api.writes import WriteRequest
from app.audit.recorder import RequestAudit
from app.auth.principal import Principal
from app.db.connection import Connection
from app.duplicates.matching import duplicate_check
from app.errors import (
    FieldError,
    IdentifierTakenError,
    InvalidSearchError,
    MultipleMatchesError,
    NotFoundError,
    UnreadableBodyError,
    ValidationFailedError,
)
from app.fhir.resources import PATIENT
from app.fhir.responses import fhir_response, preference, resource_response, write_response
from app.fhir.routing import base_url, query_pairs, read_resource
from app.fhir_resources.ids import unique_id_of
from app.fhir_resources.patients import CLEARED_FIELDS, PatientRecord, differing_displays, read_patient
from app.fhir_resources.services import PATIENT_SERVICE
from app.fhir_search.listing import CriteriaListing
from app.fhir_search.parameters import SearchContext, parse_criteria
from app.http.field_errors import field_errors
from app.listing.query import ListQuery
from app.patients.schemas import PatientCreate, PatientUpdate
from app.patients.service import PatientService
from app.records.preconditions import Precondition
from app.records.results import Record

B = TypeVar("B", PatientCreate, PatientUpdate)


class Write(NamedTuple):
    """A Patient that a request sends, read as far as possible without the database."""

    record: PatientRecord
    left_out: Sequence[FieldError]
    """The elements that the register does not keep, which the client allows."""
    is_lenient: bool

    @contextmanager
    def located_errors(self) -> Iterator[None]:
        """Turn errors about fields of the record into errors about elements of the resource."""
        try:
            yield
        except ValidationFailedError as error:
            error.errors = [
                self.record.translate(one._replace(loc=one.loc[1:])) if one.loc[:1] == ("body",) else one
                for one in error.errors
            ]
            raise

    def creation(self, unique_id: str | None) -> PatientCreate:
        """Return the body that creates the record, with the id `unique_id` if it is not None."""
        fields = {**self.record.fields, **({} if unique_id is None else {"unique_id": unique_id})}
        return self._validated(PatientCreate, fields)

    def update(self, unique_id: str) -> PatientUpdate:
        """Return the body that replaces everything that the record has."""
        fields = {**CLEARED_FIELDS, "unique_id": unique_id, **self.record.fields}
        return self._validated(PatientUpdate, fields)

    def _validated(self, schema: type[B], fields: Mapping[str, Any]) -> B:
        try:
            return schema.model_validate(fields)
        except ValidationError as error:
            errors = [self.record.translate(one) for one in field_errors(error, schema)]
            raise ValidationFailedError(errors) from None

    def left_out_of(self, stored: Record) -> list[FieldError]:
        """Return all elements that the stored Patient does not have, including texts of references.

        Raises:
            ValidationFailedError: a text is not that of the directory, and the request is not lenient.
        """
        differing = differing_displays(self.record, json.loads(stored.document)) if self.record.displays else []
        if differing and not self.is_lenient:
            raise ValidationFailedError(differing)
        return [*self.left_out, *differing]


def read_write(resource: Mapping[str, Any], base: str, *, is_lenient: bool) -> Write:
    """Return the Patient that a request sends.

    Raises:
        ValidationFailedError: elements have errors or, unless the request is lenient, cannot be kept.
    """
    record = read_patient(resource, base)
    errors, refused = record.findings.errors, record.findings.refused
    if errors or (refused and not is_lenient):
        raise ValidationFailedError([*errors, *([] if is_lenient else refused)])
    return Write(record, refused, is_lenient)


async def _read_request(request: Request) -> tuple[dict[str, Any], Write]:
    resource = await read_resource(request, "Patient")
    return resource, read_write(resource, base_url(request), is_lenient=is_lenient(request))


def is_lenient(request: Request) -> bool:
    """Return whether a request allows to leave out what the register cannot hold.

    Raises:
        ValidationFailedError: the preference has an unknown value.
    """
    handling = preference(request, "handling")
    if handling not in {None, "strict", "lenient"}:
        raise ValidationFailedError(
            [FieldError(("header", "Prefer"), "handling is strict or lenient", "literal_error")]
        )
    return handling == "lenient"


def single_identifier(sent: Sequence[tuple[str, str]], source: str) -> str:
    """Return the value of the only parameter of a condition, which is `identifier`.

    Raises:
        InvalidSearchError: there are other parameters, or none.
    """
    if [name for name, _ in sent] != ["identifier"]:
        location = ("header", source) if source != "query" else ("query", "identifier")
        raise InvalidSearchError([FieldError(location, "Must be one identifier=system|value", "parameter")])
    return sent[0][1]


async def matching_records(request: Request, connection: Connection, identifier: str) -> list[Record]:
    """Return up to two visible patients with this identifier."""
    context = SearchContext(base_url(request), get_services(request).settings.phone_region)
    criteria, errors = parse_criteria("Patient", [("identifier", identifier)], context)
    if errors:
        raise InvalidSearchError([FieldError(("query", name), message, "parameter_value") for name, message in errors])
    repository = PATIENT.repository_class(connection, Principal.from_request(request))
    page = await CriteriaListing(repository).page(ListQuery(search=criteria), None, 2)
    return [Record(unique_id, text.decode()) for unique_id, text in zip(page.ids, page.documents(), strict=True)]


async def create_patient(request: Request) -> Response:
    """Create the Patient in the body, unless `If-None-Exist` says that there is one with an identifier."""
    condition = request.headers.get("if-none-exist")
    _, write = await _read_request(request)
    if condition is None:
        return await _create(request, write, write.creation(None))
    sent = condition_pairs(condition)
    return await create_if_none(request, write, single_identifier(sent, "If-None-Exist"))


def condition_pairs(condition: str) -> list[tuple[str, str]]:
    """Return the parameters in a condition, which has the form of a query."""
    return parse_qsl(condition.lstrip("?"), keep_blank_values=True)


async def create_if_none(request: Request, write: Write, identifier: str) -> Response:
    """Create a Patient unless there is one with the identifier, which is then the response.

    Raises:
        MultipleMatchesError: several patients have the identifier.
    """
    existing = await _single_match(request, identifier)
    if existing is not None:
        return resource_response(request, existing.document)
    try:
        return await _create(request, write, write.creation(None))
    except IdentifierTakenError:  # by a concurrent request
        existing = await _single_match(request, identifier)
        if existing is None:
            raise
        return resource_response(request, existing.document)


async def _single_match(request: Request, identifier: str) -> Record | None:
    principal = Principal.from_request(request)
    async with get_services(request).database.search_snapshot(principal.name) as connection:
        found = await matching_records(request, connection, identifier)
    if len(found) > 1:
        raise MultipleMatchesError
    RequestAudit.from_request(request).ids = [record.unique_id for record in found]
    return found[0] if found else None


async def _create(request: Request, write: Write, body: PatientCreate, status: int = 201) -> Response:
    RequestAudit.from_request(request).success_status = status
    change = WriteRequest(request, PATIENT_SERVICE, body=body, accepts_key=True)
    check = duplicate_check(request, body)

    async def create(service: PatientService, precondition: Precondition) -> Record:
        if check is not None:
            await check(service.connection)
        record = await service.create(body, precondition)
        write.left_out_of(record)
        return record

    with write.located_errors():
        record = await change.run(create, batched=check is None and not write.record.displays)
    return write_response(request, record, status, write.left_out_of(record), change.replayed_header)


async def update_patient(request: Request, unique_id: str) -> Response:
    """Replace a Patient with the one in the body, or create it with this id."""
    resource, write = await _read_request(request)
    if unique_id_of(str(resource.get("id"))) != unique_id or not unique_id:
        raise UnreadableBodyError("The id in the body must be the id in the path, which is that of a resource.")
    return await update_or_create(request, write, unique_id)


async def update_or_create(request: Request, write: Write, unique_id: str) -> Response:
    """Replace the Patient with this id, or create it."""
    body = write.update(unique_id)
    change = WriteRequest(request, PATIENT_SERVICE, body=body, unique_id=unique_id)

    async def update(service: PatientService, precondition: Precondition) -> Record:
        record = await service.update(unique_id, body, precondition)
        write.left_out_of(record)
        return record

    try:
        with write.located_errors():
            record = await change.run(update, batched=not write.record.displays)
    except NotFoundError:
        if "if-match" in request.headers:
            raise
        return await _create(request, write, write.creation(unique_id))
    return write_response(request, record, 200, write.left_out_of(record))


async def update_matching_patient(request: Request) -> Response:
    """Replace the only Patient with the identifier in the query, or create one."""
    sent = [(name, value) for name, value in query_pairs(request) if name != "_format"]
    resource, write = await _read_request(request)
    existing = await _single_match(request, single_identifier(sent, "query"))
    sent_id = unique_id_of(str(resource["id"])) if "id" in resource else None
    if existing is None:
        return await _create(request, write, write.creation(sent_id))
    if sent_id is not None and sent_id != existing.unique_id:
        raise UnreadableBodyError("The id in the body is not that of the resource with this identifier.")
    return await update_or_create(request, write, existing.unique_id)


async def delete_patient(request: Request, unique_id: str) -> Response:
    """Delete a Patient."""
    change = WriteRequest(request, PATIENT_SERVICE, unique_id=unique_id)
    await change.run(lambda service, precondition: service.delete(unique_id, precondition))
    return fhir_response(None, 204)
