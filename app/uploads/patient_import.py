"""An import of patients in one transaction: each line has the effect of a POST, or of a PUT if the patient exists.

The services write the lines, and not the statements for whole sets with which the command imports. Each line is thus
written with the rights and the hospital scope of the principal, like a request.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ARRAY, bindparam, select

from app.auth.principal import Principal
from app.auth.scopes import Scope
from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.db.database import set_local
from app.db.errors import translate_errors
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
from app.http.field_errors import field_errors
from app.patients.schemas import PatientCreate, PatientUpdate
from app.patients.service import PatientService
from app.records.results import Record
from app.transfer.bodies import TIMESTAMP_FIELDS, LineValidator, ValidLine
from app.transfer.layout import Layout
from app.transfer.name_words import DEFER_NAME_WORDS, INSERT_WORDS_OF_PATIENTS
from app.transfer.reading import parse_json_line
from app.transfer.resources import RESOURCES
from app.uploads.schemas import ImportParameters, ImportStatus
from app.uploads.stored_patients import find_lost_zeros, find_other_persons

CHUNK_SIZE = 50
"""Number of lines that share a savepoint, unless one of them is rejected.

PostgreSQL is slower for all clients if one transaction has many savepoints.
"""
STATEMENT_TIMEOUT = "20s"
"""Maximum duration of a statement. Those that follow the lines concern thousands of patients at once."""
MAX_ERRORS_PER_LINE = 20
"""Maximum number of errors that the result of a line lists."""
TAKEN_MESSAGE = "A stored patient has this unique_id: use ?update=true to change it"
_SET_TIMEOUT = set_local({"statement_timeout": STATEMENT_TIMEOUT})
_LAYOUT = Layout(PatientService.repository_class)
_PATIENTS = PatientService.repository_class.table
_SELECT_VERSIONS = select(_PATIENTS.c.unique_id, _PATIENTS.c.version).where(
    _PATIENTS.c.unique_id == bindparam("ids", type_=ARRAY(ID_TEXT)).any_()
)


@dataclass(frozen=True, slots=True)
class LineResult:
    """What became of a line."""

    line: int
    status: ImportStatus
    unique_id: str | None = None
    version: int | None = None
    errors: Sequence[FieldError] = ()
    """Why the line was rejected, or remarks on a line that was not."""
    sent_id: str | None = None
    """The id in the line."""

    def as_json(self) -> dict[str, Any]:
        """Return the result as an object of the response."""
        errors = [
            {"loc": list(loc), "msg": message, "type": kind} for loc, message, kind in self.errors[:MAX_ERRORS_PER_LINE]
        ]
        return {
            "line": self.line,
            "status": self.status,
            "unique_id": self.unique_id,
            "version": self.version,
            "errors": errors,
        }

    def undone(self, *, is_dry_run: bool) -> "LineResult":
        """Return the result for an import that is undone. A dry run tells what would have become of the line."""
        if self.status == "rejected":
            return self
        return replace(self, version=None, unique_id=self.sent_id, status=self.status if is_dry_run else "not_stored")


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that has passed all checks that do not need the database."""

    number: int
    record: dict[str, Any]
    unique_id: str | None
    values: dict[str, Any]
    """The validated values by field name."""
    timestamps: dict[str, Any]


class _TakenError(ConflictError):
    """The line would change a stored patient, or compare itself with it, but the import must not."""


class PatientImport:
    """An import of lines in the transaction of a connection, on behalf of a principal."""

    def __init__(self, connection: Connection, principal: Principal, parameters: ImportParameters) -> None:
        self._connection = connection
        self._service = PatientService(connection, principal)
        self._updates = parameters.update
        self._allows_other_person = parameters.allow_other_person
        self._compares = parameters.update or principal.has(Scope.PATIENTS_READ)
        self.compared_ids: set[str] = set()
        """The ids of the existing patients of which the results tell something, also if their lines were rejected."""
        self._validator = LineValidator(RESOURCES["patients"], overwrite=parameters.update)

    async def run(self, lines: Sequence[tuple[int, bytes]]) -> list[LineResult]:
        """Write all valid lines, and return the results of all lines. The caller undoes it if lines were rejected."""
        await self._connection.execute(_SET_TIMEOUT)
        await self._connection.execute(DEFER_NAME_WORDS)
        results: list[LineResult] = []
        chunk: list[_Line] = []
        for start in range(0, len(lines), CHUNK_SIZE):
            # in a thread, because it would block the event loop for a second if all lines have many errors
            for checked in await asyncio.to_thread(self._check_lines, lines[start : start + CHUNK_SIZE]):
                if isinstance(checked, LineResult):
                    results.append(checked)
                    continue
                # a patient that comes up again goes into the next chunk, so that each line gets its own version
                if checked.unique_id in {one.unique_id for one in chunk} - {None}:
                    results += await self._write_chunk(chunk)
                    chunk = []
                chunk.append(checked)
            results += await self._write_chunk(chunk)
            chunk = []
        written = [result.unique_id for result in results if result.status in {"created", "updated"}]
        for statement in INSERT_WORDS_OF_PATIENTS:
            await self._connection.execute(statement, {"ids": sorted({*filter(None, written)})})
        return sorted(results, key=lambda result: result.line)

    def _check_lines(self, lines: Sequence[tuple[int, bytes]]) -> list["_Line | LineResult"]:
        return [self._check(number, line) for number, line in lines]

    def _check(self, number: int, line: bytes) -> "_Line | LineResult":
        parsed = parse_json_line(number, line, _LAYOUT)
        record = dict(parsed.record or {})
        checked = self._validator.validate(parsed)
        if not isinstance(checked, ValidLine):
            return LineResult(number, "rejected", errors=checked)
        created, updated = (checked.values.get(name) for name in TIMESTAMP_FIELDS)
        dates = dict(zip(TIMESTAMP_FIELDS, (created or updated, updated), strict=True))
        for name in TIMESTAMP_FIELDS:
            record.pop(name, None)
        timestamps = {name: time for name, time in dates.items() if time is not None}
        return _Line(number, record, checked.values.get("unique_id") or None, checked.values, timestamps)

    async def _write_chunk(self, chunk: Sequence[_Line]) -> list[LineResult]:
        """Write lines in one savepoint or, if one of them is rejected, in a savepoint for each."""
        ids = [line.unique_id for line in chunk if line.unique_id is not None]
        versions = await self._versions(ids)
        visible = await self._service.repository.get_many(ids) if ids else {}
        updates = {line.number: line.values for line in chunk if self._updates and line.unique_id in visible}
        self.compared_ids |= {values["unique_id"] for values in updates.values()}
        check_persons = updates and not self._allows_other_person
        rejected = await find_other_persons(self._connection, updates) if check_persons else {}
        remarks = await find_lost_zeros(self._connection, updates) if updates else {}
        results = [LineResult(number, "rejected", errors=errors) for number, errors in rejected.items()]
        chunk = [line for line in chunk if line.number not in rejected]
        try:
            async with translate_errors(), self._connection.savepoint():
                written: list[tuple[_Line, str | list[FieldError]]] = [
                    (line, (await self._write(line, visible, versions)).unique_id) for line in chunk
                ]
        except UnavailableError:
            raise
        except ServiceError:
            written = [(line, await self._write_alone(line, visible, versions)) for line in chunk]
        new_versions = await self._versions([one for _, one in written if isinstance(one, str)])
        return results + [
            LineResult(line.number, "rejected", errors=outcome)
            if not isinstance(outcome, str)
            else LineResult(
                line.number,
                _status(outcome, versions, new_versions),
                outcome,
                new_versions[outcome],
                errors=remarks.get(line.number, ()),
                sent_id=line.unique_id,
            )
            for line, outcome in written
        ]

    async def _write_alone(
        self, line: _Line, visible: dict[str, Record], versions: dict[str, int]
    ) -> str | list[FieldError]:
        try:
            async with translate_errors(), self._connection.savepoint():
                return (await self._write(line, visible, versions)).unique_id
        except UnavailableError:
            raise
        except ServiceError as error:
            return list(_line_errors(error))

    async def _write(self, line: _Line, visible: dict[str, Record], versions: dict[str, int]) -> Record:
        """Create or update the patient of a line, and return it.

        Raises:
            ServiceError: the line is rejected.
        """
        unique_id = line.unique_id
        if unique_id is None or unique_id not in visible:
            body = _validated(PatientCreate, line.record)
            return await self._service.create(body, timestamps=line.timestamps)
        if not self._compares:
            raise _TakenError(TAKEN_MESSAGE)
        self.compared_ids.add(unique_id)
        record = {name: value for name, value in line.record.items() if name != "unique_id"}
        if not self._updates and isinstance(profile := record.get("patient_profile"), dict):
            record["patient_profile"] = {"unique_id": profile["unique_id"]}  # the profile's own data are not compared
        updated = await self._service.update(unique_id, _validated(PatientUpdate, record))
        if not self._updates and await self._versions([unique_id]) != {unique_id: versions[unique_id]}:
            raise _TakenError(TAKEN_MESSAGE)
        return updated

    async def _versions(self, ids: Sequence[str]) -> dict[str, int]:
        if not ids:
            return {}
        rows = await self._connection.execute(_SELECT_VERSIONS, {"ids": ids})
        return {row.unique_id: row.version for row in rows}


def _status(unique_id: str, before: dict[str, int], after: dict[str, int]) -> ImportStatus:
    if unique_id not in before:
        return "created"
    return "unchanged" if before[unique_id] == after[unique_id] else "updated"


def _validated(schema: type[Any], record: dict[str, Any]) -> Any:
    try:
        return schema.model_validate(record)
    except ValidationError as error:
        raise ValidationFailedError(field_errors(error, schema)) from None


def _line_errors(error: ServiceError) -> Iterator[FieldError]:
    """Yield the errors of a line, whose locations begin with the field."""
    if error.errors:
        for loc, message, kind in error.errors:
            yield FieldError(loc[1:] if loc[:1] == ("body",) else loc, message, kind)
    elif isinstance(error, IdentifierRetiredError):
        yield FieldError(("unique_id",), error.detail, "identifier_retired")
    elif isinstance(error, _TakenError):
        yield FieldError(("unique_id",), error.detail, "identifier_taken")
    elif isinstance(error, ForbiddenError):
        yield FieldError((), error.detail, "forbidden")
    elif isinstance(error, NotFoundError):
        yield FieldError(("unique_id",), error.detail, "not_found")
    else:
        yield FieldError((), error.detail, "conflict")
