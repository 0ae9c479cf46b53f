"""Changes of patients: from the resource that a client sends to the record, and to the resource that is stored.

A request and an entry of a Bundle describe a change in the same way, and it is applied by the same code.
"""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from app.db.connection import Connection
from app.errors import (
    FieldError,
    IdentifierTakenError,
    InvalidSearchError,
    MergedError,
    MultipleMatchesError,
    NotFoundError,
    PatientIdentifierTakenError,
    ServiceError,
    UnreadableBodyError,
    ValidationFailedError,
)
from app.fhir_resources.ids import unique_id_of
from app.fhir_resources.patient_elements import CLEARED_FIELDS
from app.fhir_resources.patients import PatientRecord, differing_parts, read_patient
from app.fhir_search.criteria import Criterion
from app.fhir_search.listing import CriteriaListing
from app.fhir_search.parameters import parse_criteria
from app.fhir_search.parsers import SearchContext
from app.http.field_errors import validated_body
from app.listing.query import ListQuery
from app.patients.schemas import PatientCreate, PatientMatch, PatientUpdate
from app.patients.service import PatientService
from app.records.preconditions import Precondition
from app.records.results import Record

B = TypeVar("B", PatientCreate, PatientMatch, PatientUpdate)
C = TypeVar("C", PatientCreate, PatientUpdate)
PatientCheck = Callable[[PatientCreate, Connection], Awaitable[None]]
"""Raises an error if the patient must not be created, for example because the person is registered already."""


class SentPatient(NamedTuple):
    """A Patient that a client sends, read as far as possible without the database."""

    record: PatientRecord
    is_lenient: bool
    """Whether the client allows the service to leave out what the register cannot hold."""

    @contextmanager
    def located_errors(self) -> Iterator[None]:
        """Turn errors about fields of the record into errors about elements of the resource."""
        try:
            yield
        except ServiceError as error:
            error.errors = [
                one if one.location_in_body is None else one._replace(loc=(self.record.path_for(one.location_in_body),))
                for one in error.errors
            ]
            raise

    def body(self, schema: type[C], unique_id: str | None) -> C:
        """Return the body that creates the record, or that replaces everything that it has.

        It contains the id `unique_id` if this is not None.
        """
        cleared = CLEARED_FIELDS if schema is PatientUpdate else {}
        others = {name: value for name, value in cleared.items() if name not in self.record.fields}
        return self.validated(schema, others if unique_id is None else {**others, "unique_id": unique_id})

    def validated(self, schema: type[B], others: Mapping[str, Any]) -> B:
        """Return the fields of the record and `others` as a body.

        Raises:
            ValidationFailedError: values are wrong.
        """
        with self.located_errors():
            return validated_body(schema, {**self.record.fields, **others})

    def applied(self, stored: Record, status: int) -> "Applied":
        """Return the result of a change to the Patient.

        Raises:
            ValidationFailedError: see `left_out_of`.
        """
        words = (warning.split(" ") for warning in stored.warnings)
        warnings = [
            f"{self.record.path_for(tuple(path.split('.')))} {' '.join(rest)} {self.record.path_for((field,))}"
            for path, *rest, field in words
        ]
        return Applied(stored, status, self.left_out_of(stored), warnings)

    def left_out_of(self, stored: Record) -> list[FieldError]:
        """Return the elements that the stored Patient does not have, including those that only the service sets.

        Raises:
            ValidationFailedError: such an element differs, and the client does not allow the service to leave it out.
        """
        differing = differing_parts(self.record, json.loads(stored.document)) if self.record.has_derived_parts else []
        if differing and not self.is_lenient:
            raise ValidationFailedError(differing)
        return [*self.record.findings.refused, *differing]


def read_sent_patient(resource: Mapping[str, Any], base: str, *, is_lenient: bool) -> SentPatient:
    """Return the Patient that a client sends.

    Raises:
        ValidationFailedError: elements have errors or, unless the client is lenient, cannot be kept.
    """
    record = read_patient(resource, base)
    errors, refused = record.findings.errors, record.findings.refused
    if errors or (refused and not is_lenient):
        raise ValidationFailedError([*errors, *([] if is_lenient else refused)])
    return SentPatient(record, is_lenient)


def condition_pairs(condition: str) -> list[tuple[str, str]]:
    """Return the parameters in a condition, which has the form of a query."""
    return parse_qsl(condition.lstrip("?"), keep_blank_values=True)


def condition_criteria(
    sent: Sequence[tuple[str, str]], source: tuple[str, ...], context: SearchContext
) -> list[Criterion]:
    """Return the criteria of a condition, whose only parameter is `identifier`.

    Raises:
        InvalidSearchError: there are other parameters, or none, or the value is invalid. Its location is `source`.
    """
    if [name for name, _ in sent] != ["identifier"]:
        raise InvalidSearchError([FieldError(source, "Must be one identifier=system|value", "parameter")])
    criteria, errors = parse_criteria("Patient", sent, context)
    messages = [message for _, message in errors]
    if not (criteria or messages):  # a system alone, which all patients have
        messages = ["Must have the value of an identifier"]
    if messages:
        raise InvalidSearchError([FieldError(source, message, "parameter_value") for message in messages])
    return criteria


class Applied(NamedTuple):
    """The result of a change: the Patient afterwards, the HTTP status, and what was left out."""

    record: Record
    status: int
    left_out: Sequence[FieldError] = ()
    warnings: Sequence[str] = ()
    """What may be wrong with identifiers of the Patient."""
    is_unchanged: bool = False
    """Whether a conditional creation has found the Patient, so that nothing is stored."""


@dataclass(frozen=True)
class PatientChange:
    """The creation or the replacement of a Patient, possibly on a condition."""

    patient: SentPatient
    replaces: bool
    """Whether an existing Patient is replaced. Otherwise, it is left as it is."""
    unique_id: str | None
    """The id of the record to replace or to create, or None if it is generated or found by the identifier."""
    condition: Sequence[Criterion] | None
    """The criteria that find the patient to change, or None if the change has no condition."""

    @cached_property
    def body(self) -> PatientCreate | PatientUpdate:
        """The body of the change, if no condition finds another record."""
        if self.replaces and self.unique_id is not None:
            return self.patient.body(PatientUpdate, self.unique_id)
        return self.patient.body(PatientCreate, self.unique_id)

    def _body_for(self, schema: type[C], unique_id: str | None) -> C:
        """Return the body that creates or updates a record, which is validated only once."""
        body = self.body if unique_id == self.unique_id else None
        return body if isinstance(body, schema) else self.patient.body(schema, unique_id)

    async def apply(self, service: PatientService, precondition: Precondition, check: PatientCheck) -> Applied:
        """Make the change in the transaction of `service`.

        Raises:
            MultipleMatchesError: several patients have the identifier.
            UnreadableBodyError: the resource has another id than the one with the identifier.
            ServiceError: see `PatientService`. Errors name elements of the resource.
        """
        with self.patient.located_errors():
            if self.condition is None:
                return await self._apply_to(self.unique_id, service, precondition, check)
            existing = await _find(service, self.condition)
            if existing is None:
                try:
                    async with service.connection.savepoint():
                        return await self._create(self.unique_id, service, precondition, check)
                except (IdentifierTakenError, PatientIdentifierTakenError):  # by a request with the same condition
                    existing = await _find(service, self.condition)
                    if existing is None:
                        raise
            if not self.replaces:
                return Applied(existing, 200, is_unchanged=True)
            if self.unique_id not in {None, existing.unique_id}:
                raise UnreadableBodyError("The id in the body is not that of the resource with this identifier.")
            return await self._apply_to(existing.unique_id, service, precondition, check)

    async def _apply_to(
        self, unique_id: str | None, service: PatientService, precondition: Precondition, check: PatientCheck
    ) -> Applied:
        if self.replaces and unique_id is not None:
            try:
                record = await service.update(unique_id, self._body_for(PatientUpdate, unique_id), precondition)
            except MergedError:
                raise
            except NotFoundError:
                if precondition.if_match is not None:
                    raise
            else:
                return self.patient.applied(record, 200)
        return await self._create(unique_id, service, precondition, check)

    async def _create(
        self, unique_id: str | None, service: PatientService, precondition: Precondition, check: PatientCheck
    ) -> Applied:
        body = self._body_for(PatientCreate, unique_id)
        await check(body, service.connection)
        record = await service.create(body, precondition)
        return self.patient.applied(record, 201)


async def _find(service: PatientService, condition: Sequence[Criterion]) -> Record | None:
    """Return the visible patient that meets a condition, or None if there is none."""
    page = await CriteriaListing(service.repository).page(ListQuery(search=condition), None, 2)
    if len(page) > 1:
        raise MultipleMatchesError
    return Record(page.ids[0], page.documents()[0].decode()) if page else None


def id_in(resource: Mapping[str, Any]) -> str | None:
    """Return the id of the record that a resource represents, or None if the resource has no id.

    Raises:
        UnreadableBodyError: no record can have the id of the resource.
    """
    if "id" not in resource:
        return None
    unique_id = unique_id_of(str(resource["id"]))
    if unique_id is None:
        raise UnreadableBodyError("The id in the body cannot be that of a resource.")
    return unique_id
