"""The writes of an import's lines. Consecutive lines share a statement if concurrent requests could share it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
from sqlalchemy import text

from app.auth.principal import Principal
from app.auth.scopes import Scope
from app.db.errors import LockNotAvailableError, translate_errors
from app.db.transaction_batching import MAX_BATCH_COST, BatchableWrite
from app.errors import (
    ConflictError,
    FieldError,
    ForbiddenError,
    IdentifierRetiredError,
    NotFoundError,
    ServiceError,
    UnavailableError,
)
from app.http.field_errors import validated_body
from app.patients.schemas import PatientCreate, PatientUpdate
from app.patients.service import PatientService
from app.uploads.stored_patients import StoredPatients, find_stored

TAKEN_MESSAGE = "A stored patient has this unique_id: use ?update=true to change it"
_RESET_LOCK_TIMEOUT = text("SET LOCAL lock_timeout TO DEFAULT")
"""Statement before lines that are written alone, because a shared statement does not wait for locks."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that has passed all checks that do not need the database."""

    number: int
    record: Mapping[str, Any]
    unique_id: str | None
    values: Mapping[str, Any]
    """The validated values by field name."""
    timestamps: Mapping[str, Any]


class TakenError(ConflictError):
    """The line would change a stored patient, or compare itself with it, but the import must not."""

    def __init__(self) -> None:
        super().__init__(TAKEN_MESSAGE)


@dataclass(frozen=True, slots=True)
class _Write:
    """The write of a line: the body of a POST or of a PUT."""

    line: Line
    body: PatientCreate | PatientUpdate
    shared: BatchableWrite | None
    """The same write as a row of a statement that may write several patients, if that is possible."""


@dataclass
class LineWriter:
    """Writes lines with the rights of a principal. A stored patient is changed, or only compared with its line."""

    service: PatientService
    updates: bool
    shares_statements: bool
    compared_ids: set[str] = field(default_factory=set)
    """The ids of the stored patients that were compared with a line, also if the line is rejected."""

    @property
    def _principal(self) -> Principal:
        return self.service.principal

    async def write(self, lines: Iterable[Line], stored: StoredPatients) -> dict[int, str | list[FieldError]]:
        """Write lines, and return the id of its patient, or the errors, by the number of each line."""
        outcomes: dict[int, str | list[FieldError]] = {}
        writes = []
        for line in lines:
            try:
                writes.append(self._prepare(line, stored))
            except ServiceError as error:
                outcomes[line.number] = list(_line_errors(error))
        for group in _groups(writes):
            outcomes |= await self._write_group(group, stored)
        return outcomes

    async def _write_group(
        self, writes: Sequence[_Write], stored: StoredPatients
    ) -> Mapping[int, str | list[FieldError]]:
        """Make writes in one savepoint or, if one of them is rejected, in a savepoint for each."""
        connection, shared = self.service.connection, writes[0].shared
        try:
            async with translate_errors(), connection.savepoint():
                if shared is not None:
                    rows = [one.shared.row for one in writes if one.shared is not None]
                    await connection.execute(shared.statement, {"rows": rows})
                    ids = {one.line.number: row["unique_id"] for one, row in zip(writes, rows, strict=True)}
                else:
                    ids = {one.line.number: await self._write_alone(one) for one in writes}
                if not self.updates:
                    await self._refuse_changes(stored, [*ids.values()])
                return ids
        except UnavailableError as error:
            if shared is None or not isinstance(error, LockNotAvailableError):
                raise
        except ServiceError as error:
            if shared is None and len(writes) == 1:
                return {writes[0].line.number: list(_line_errors(error))}
        except asyncpg.PostgresError:  # the shared statement stores everything or fails, whatever is wrong with a line
            if shared is None:
                raise
        await connection.execute(_RESET_LOCK_TIMEOUT)
        outcomes: dict[int, str | list[FieldError]] = {}
        for write in writes:
            outcomes |= await self._write_group([replace(write, shared=None)], stored)
        return outcomes

    def _prepare(self, line: Line, stored: StoredPatients) -> _Write:
        """Return the write of a line.

        Raises:
            ServiceError: the line is rejected.
        """
        shares = self.shares_statements
        if line.unique_id is None or line.unique_id not in stored.visible_ids:
            create = validated_body(PatientCreate, line.record)
            shared = PatientService.batchable_create(create, self._principal, line.timestamps) if shares else None
            return _Write(line, create, shared)
        if not (self.updates or self._principal.has(Scope.PATIENTS_READ)):
            raise TakenError
        self.compared_ids.add(line.unique_id)
        record = {name: value for name, value in line.record.items() if name != "unique_id"}
        if not self.updates and isinstance(profile := record.get("patient_profile"), dict):
            record["patient_profile"] = {"unique_id": profile["unique_id"]}  # the profile's own data are not compared
        update = validated_body(PatientUpdate, record)
        shared = PatientService.batchable_update(line.unique_id, update, self._principal) if shares else None
        return _Write(line, update, shared)

    async def _write_alone(self, write: _Write) -> str:
        if isinstance(write.body, PatientCreate):
            return (await self.service.create(write.body, timestamps=write.line.timestamps)).unique_id
        assert write.line.unique_id is not None, "a stored patient has an id"  # noqa: S101
        return (await self.service.update(write.line.unique_id, write.body)).unique_id

    async def _refuse_changes(self, stored: StoredPatients, ids: Sequence[str]) -> None:
        """Raise TakenError if a line has changed a stored patient, which the caller then undoes."""
        before = {unique_id: stored.versions[unique_id] for unique_id in ids if unique_id in stored.visible_ids}
        if before and (await find_stored(self.service.repository, [*before])).versions != before:
            raise TakenError


def _groups(writes: Iterable[_Write]) -> Iterator[list[_Write]]:
    """Yield groups of consecutive writes: those that can share a statement, and those that cannot."""
    group: list[_Write] = []
    keys: frozenset[str] = frozenset()
    cost = 0
    for write in writes:
        if group and not _fits(write.shared, group[-1].shared, keys, cost):
            yield group
            group, keys, cost = [], frozenset(), 0
        group.append(write)
        if write.shared is not None:
            keys, cost = keys | write.shared.conflict_keys, cost + write.shared.cost
    if group:
        yield group


def _fits(write: BatchableWrite | None, previous: BatchableWrite | None, keys: frozenset[str], cost: int) -> bool:
    """Return whether a write can be made together with others, which have these conflict keys and this total cost."""
    if write is None or previous is None:
        return write is previous
    return (
        write.statement is previous.statement
        and keys.isdisjoint(write.conflict_keys)
        and cost + write.cost <= MAX_BATCH_COST
    )


def _line_errors(error: ServiceError) -> Iterator[FieldError]:
    """Yield the errors of a line, whose locations begin with the field."""
    if error.errors:
        for one in error.errors:
            place = one.place_in_body
            yield one if place is None else one._replace(loc=place)
    elif isinstance(error, IdentifierRetiredError):
        yield FieldError(("unique_id",), error.detail, "identifier_retired")
    elif isinstance(error, TakenError):
        yield FieldError(("unique_id",), error.detail, "identifier_taken")
    elif isinstance(error, ForbiddenError):
        yield FieldError((), error.detail, "forbidden")
    elif isinstance(error, NotFoundError):
        yield FieldError(("unique_id",), error.detail, "not_found")
    else:
        yield FieldError((), error.detail, "conflict")
