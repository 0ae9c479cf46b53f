"""The writes of an import's lines. Consecutive lines share a statement if concurrent requests could share it."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
    ValidationFailedError,
)
from app.http.field_errors import validated_body
from app.patients.schemas import PatientCreate, PatientUpdate
from app.patients.service import PatientService
from app.records.missing import retired_error
from app.staging.patients import NAME_COLUMNS
from app.uploads.stored_patients import StoredPatients, find_stored, used_ids

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
    """Lines would change stored patients, or compare themselves with them, but the import must not."""

    def __init__(self, ids: Collection[str] = ()) -> None:
        """`ids` are those of the patients that were changed."""
        super().__init__(TAKEN_MESSAGE)
        self.ids = ids


@dataclass(frozen=True, slots=True)
class _Write:
    """The write of a line: the body of a POST or of a PUT."""

    line: Line
    body: PatientCreate | PatientUpdate
    shared: BatchableWrite | None
    """The same write as a row of a statement that may write several patients, if that is possible."""
    links: Mapping[str, list[str]] | None
    """The links that the line requests by the name of the set, or None if it may have errors that precede theirs."""


@dataclass
class LineWriter:
    """Writes lines with the rights of a principal. A stored patient is changed, or only compared with its line."""

    service: PatientService
    updates: bool
    shares_statements: bool
    compared_ids: set[str] = field(default_factory=set)
    """The ids of the stored patients that were compared with a line, also if the line is rejected."""
    _expects_errors: bool = False
    """Whether lines of the last group were rejected, so that those of the next one are examined first."""

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

    async def _write_group(self, writes: Sequence[_Write], stored: StoredPatients) -> dict[int, str | list[FieldError]]:
        """Make the writes that are not rejected, in one savepoint.

        If it cannot be found out which are rejected, each is made in a savepoint of its own, which takes several times
        as long.
        """
        outcomes: dict[int, str | list[FieldError]] = {}
        is_examined = False
        while writes:
            if self._expects_errors and not is_examined:
                outcomes |= await self._examine(writes, stored)
                is_examined = True
            elif (written := await self._write_together(writes, stored)) is not None:
                outcomes |= written
            elif is_examined:
                outcomes |= await self._write_one_by_one(writes, stored)
            else:
                self._expects_errors = True
            writes = [write for write in writes if write.line.number not in outcomes]
        self._expects_errors = any(isinstance(outcome, list) for outcome in outcomes.values())
        return outcomes

    async def _write_together(
        self, writes: Sequence[_Write], stored: StoredPatients
    ) -> Mapping[int, str | list[FieldError]] | None:
        """Make writes in one savepoint, and return the ids of the patients.

        If writes changed patients that must not be changed, nothing is written, and only the errors of these writes are
        returned. If something else is wrong, nothing is written, and the result is None.
        """
        shared = writes[0].shared
        try:
            async with translate_errors(), self.service.connection.savepoint():
                ids = await self._execute(writes)
                if not self.updates:
                    await self._refuse_changes(stored, [*ids.values()])
                return ids
        except TakenError as error:
            return {one.line.number: [*_line_errors(error)] for one in writes if one.line.unique_id in error.ids}
        except UnavailableError as error:
            if shared is None or not isinstance(error, LockNotAvailableError):
                raise
        except ServiceError as error:
            if shared is None and len(writes) == 1:
                return {writes[0].line.number: [*_line_errors(error)]}
        except asyncpg.PostgresError:  # the shared statement stores everything or fails, whatever is wrong with a line
            if shared is None:
                raise
        return None

    async def _execute(self, writes: Sequence[_Write]) -> dict[int, str]:
        if (shared := writes[0].shared) is None:
            await self.service.connection.execute(_RESET_LOCK_TIMEOUT)
            return {one.line.number: await self._make(one) for one in writes}
        rows = [one.shared.row for one in writes if one.shared is not None]
        await self.service.connection.execute(shared.statement, {"rows": rows})
        return {one.line.number: row["unique_id"] for one, row in zip(writes, rows, strict=True)}

    async def _write_one_by_one(
        self, writes: Sequence[_Write], stored: StoredPatients
    ) -> dict[int, str | list[FieldError]]:
        outcomes: dict[int, str | list[FieldError]] = {}
        for write in writes:
            outcomes |= await self._write_together([replace(write, shared=None)], stored) or {}
        return outcomes

    async def _examine(self, writes: Sequence[_Write], stored: StoredPatients) -> dict[int, list[FieldError]]:
        """Return the errors that two statements find for all writes: in links, and in ids of deleted patients."""
        repository, errors = self.service.repository, dict[int, list[FieldError]]()
        # no id contains a +
        examined = {one.line.unique_id or f"+{one.line.number}": one for one in writes if one.links is not None}
        linkable = await repository.linkable_ids({key: one.links for key, one in examined.items() if one.links})
        for key, one in examined.items():
            is_creation = isinstance(one.body, PatientCreate)
            if found := self.service.link_errors(linkable[key], is_creation=is_creation):
                errors[one.line.number] = [*_line_errors(ValidationFailedError(found))]
        chosen = {one.line.unique_id: one.line.number for one in examined.values() if one.line.number not in errors}
        new_ids = [unique_id for unique_id in chosen if unique_id is not None and unique_id not in stored.versions]
        for unique_id in await used_ids(repository, new_ids):
            errors[chosen[unique_id]] = [*_line_errors(await retired_error(repository, unique_id))]
        return errors

    def _prepare(self, line: Line, stored: StoredPatients) -> _Write:
        """Return the write of a line.

        Raises:
            ServiceError: the line is rejected.
        """
        shares = self.shares_statements
        if line.unique_id is None or line.unique_id not in stored.visible_ids:
            create = validated_body(PatientCreate, line.record)
            shared = PatientService.batchable_create(create, self._principal, line.timestamps) if shares else None
            return _Write(line, create, shared, self._links(line, create))
        if not (self.updates or self._principal.has(Scope.PATIENTS_READ)):
            raise TakenError
        self.compared_ids.add(line.unique_id)
        record = {name: value for name, value in line.record.items() if name != "unique_id"}
        if not self.updates and isinstance(profile := record.get("patient_profile"), dict):
            record["patient_profile"] = {"unique_id": profile["unique_id"]}  # the profile's own data are not compared
        update = validated_body(PatientUpdate, record)
        shared = PatientService.batchable_update(line.unique_id, update, self._principal) if shares else None
        return _Write(line, update, shared, self._links(line, update))

    def _links(self, line: Line, body: PatientCreate | PatientUpdate) -> Mapping[str, list[str]] | None:
        sent, principal = body.model_fields_set, self._principal
        may_have_other_errors = [
            "patient_identifiers" in sent,
            body.read_only_link_ids(),
            body.patient_profile is not None and not principal.has(Scope.PROFILES_WRITE),
            isinstance(body, PatientCreate) and principal.hospitals is not None and line.unique_id is not None,
            isinstance(body, PatientUpdate) and any(name in sent and not line.values[name] for name in NAME_COLUMNS),
        ]
        if any(may_have_other_errors):
            return None
        names = self.service.repository.link_relations
        return {name: getattr(body, name) if name in sent else [] for name in names}

    async def _make(self, write: _Write) -> str:
        if isinstance(write.body, PatientCreate):
            return (await self.service.create(write.body, timestamps=write.line.timestamps)).unique_id
        assert write.line.unique_id is not None, "a stored patient has an id"  # noqa: S101
        return (await self.service.update(write.line.unique_id, write.body)).unique_id

    async def _refuse_changes(self, stored: StoredPatients, ids: Sequence[str]) -> None:
        """Raise TakenError if a line has changed a stored patient, which the caller then undoes."""
        before = {unique_id: stored.versions[unique_id] for unique_id in ids if unique_id in stored.visible_ids}
        after = (await find_stored(self.service.repository, [*before])).versions
        if changed := [unique_id for unique_id in before if after.get(unique_id) != before[unique_id]]:
            raise TakenError(changed)


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
        else:
            cost += 1
    if group:
        yield group


def _fits(write: BatchableWrite | None, previous: BatchableWrite | None, keys: frozenset[str], cost: int) -> bool:
    """Return whether a write can be made together with others, which have these conflict keys and this total cost."""
    if write is None or previous is None:
        return write is previous and cost < MAX_BATCH_COST
    return (
        write.statement is previous.statement
        and keys.isdisjoint(write.conflict_keys)
        and cost + write.cost <= MAX_BATCH_COST
    )


def _line_errors(error: ServiceError) -> Iterator[FieldError]:
    """Yield the errors of a line, whose locations begin with the field."""
    if error.errors:
        for one in error.errors:
            location = one.location_in_body
            yield one if location is None else one._replace(loc=location)
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
