"""An import of patients in one transaction: each line has the effect of a POST, or of a PUT if the patient exists.

The services write the lines, whereas the command imports whole sets with statements of its own. Each line is thus
written with the rights and the hospital scope of the principal, like a request, and lines share statements as requests
do.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.auth.principal import Principal
from app.db.connection import Connection
from app.db.database import set_local
from app.db.transaction_batching import MAX_BATCH_COST
from app.errors import FieldError
from app.fields.types import TIMESTAMP_FIELDS
from app.patient_identifiers.resolving import IDENTIFIERS, resolve
from app.patient_identifiers.types import IdentifierType, read_types
from app.patients.service import PatientService
from app.staging.batches import ValidLine
from app.staging.duplicates import COMPARE_NOBODY, DUPLICATE_MESSAGE, DuplicatePolicy
from app.staging.name_words import DEFER_NAME_WORDS, INSERT_WORDS_OF_PATIENTS
from app.staging.results import RowStatus
from app.transfer.bodies import LineValidator
from app.transfer.importing import SCAN_SETTINGS
from app.transfer.layout import Layout
from app.transfer.reading import parse_json_line
from app.transfer.resources import RESOURCES
from app.uploads.line_writes import Line, LineWriter
from app.uploads.schemas import ImportParameters
from app.uploads.stored_patients import ComparedLines, compare_lines, find_stored

CHUNK_SIZE = 3 * MAX_BATCH_COST
"""Number of lines that are checked and compared together."""
STATEMENT_TIMEOUT = "20s"
"""Maximum duration of a statement. Those that follow the lines concern thousands of patients at once."""
MAX_COMPARISONS_PER_LINE = 5
"""How often a line is compared with stored patients at most, if earlier lines of the same person are rejected. After so
many of them, it is refused as their duplicate, so that a file with one person in all lines does not take forever.
"""
MAX_ERRORS_PER_LINE = 20
"""Maximum number of errors that the result of a line lists."""
_SET_SETTINGS = set_local({"statement_timeout": STATEMENT_TIMEOUT, **dict.fromkeys(SCAN_SETTINGS, "off")})
_ALLOW_SCANS = set_local(dict.fromkeys(SCAN_SETTINGS, "on"))
_DUPLICATE_ERROR = FieldError((), DUPLICATE_MESSAGE, "possible_duplicate")
_LAYOUT = Layout(PatientService.repository_class)


@dataclass(frozen=True, slots=True)
class LineResult:
    """The result of importing a line."""

    line: int
    status: str
    """One of `ImportStatus`."""
    unique_id: str | None = None
    version: int | None = None
    errors: Sequence[FieldError] = ()
    """The reasons why the line was rejected, or remarks on a line that was not rejected."""
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
        """Return the result for an import that is undone. In a dry run, it says what a real import would have done."""
        if self.status == "rejected":
            return self
        return replace(self, version=None, unique_id=self.sent_id, status=self.status if is_dry_run else "not_stored")


class PatientImport:
    """An import of lines in the transaction of a connection, on behalf of a principal."""

    def __init__(
        self, connection: Connection, principal: Principal, parameters: ImportParameters, *, shares_statements: bool
    ) -> None:
        self._connection = connection
        duplicates = DuplicatePolicy(parameters.duplicates or DuplicatePolicy.REPORT)
        self._compares_new = duplicates is not DuplicatePolicy.IGNORE
        self._matcher = duplicates.matcher(connection, principal.hospitals)
        self._identifier_types: Mapping[str, IdentifierType] = {}
        self._created_ids: set[str] = set()
        """The ids of patients that earlier lines have created."""
        self._allows_other_person = parameters.allow_other_person
        self._writer = LineWriter(
            PatientService(connection, principal),
            updates=parameters.update,
            # the statements for several requests are those of unrestricted principals
            shares_statements=shares_statements and principal.hospitals is None,
        )
        self._validator = LineValidator(RESOURCES["patients"], overwrite=parameters.update)

    @property
    def compared_ids(self) -> set[str]:
        """The ids of existing patients about which the results reveal something, even if lines were rejected."""
        return self._writer.compared_ids

    async def run(self, lines: Sequence[tuple[int, bytes]]) -> list[LineResult]:
        """Write all valid lines, and return the results of all lines.

        If lines were rejected, the caller must undo the import.
        """
        await self._connection.execute(_SET_SETTINGS)
        await self._connection.execute(DEFER_NAME_WORDS)
        if not self._compares_new:
            await self._connection.execute(COMPARE_NOBODY)
        if self._matcher is not None:
            self._identifier_types = await read_types(self._connection)
        results: list[LineResult] = []
        chunk: list[Line] = []
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
        written = [result.unique_id for result in results if result.status in {RowStatus.CREATED, RowStatus.UPDATED}]
        await self._connection.execute(_ALLOW_SCANS)
        for statement in INSERT_WORDS_OF_PATIENTS:
            await self._connection.execute(statement, {"ids": sorted({*filter(None, written)})})
        return sorted(results, key=lambda result: result.line)

    def _check_lines(self, lines: Sequence[tuple[int, bytes]]) -> list[Line | LineResult]:
        return [self._check(number, line) for number, line in lines]

    def _check(self, number: int, line: bytes) -> Line | LineResult:
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
        return Line(number, record, checked.values.get("unique_id") or None, checked.values, timestamps)

    async def _write_chunk(
        self, chunk: Sequence[Line], max_comparisons: int = MAX_COMPARISONS_PER_LINE
    ) -> list[LineResult]:
        repository = self._writer.service.repository
        stored = await find_stored(repository, [line.unique_id for line in chunk if line.unique_id is not None])
        comparison = await self._compare([line for line in chunk if line.unique_id in stored.visible_ids])
        new = [line for line in chunk if line.unique_id not in stored.versions]
        duplicates = await self._find_duplicates(new)
        rejected = {**comparison.rejected, **{number: [_DUPLICATE_ERROR] for number in duplicates}}
        outcomes = await self._writer.write([line for line in chunk if line.number not in rejected], stored)
        ids = {number: outcome for number, outcome in outcomes.items() if isinstance(outcome, str)}
        # an earlier line that is not stored is no reason to refuse a line, so these are compared again
        is_any_rejected = len(ids) < len(outcomes) and max_comparisons > 1
        again = [line for line in chunk if is_any_rejected and duplicates.get(line.number) == []]
        outcomes |= rejected
        for line in again:
            del outcomes[line.number]
        versions = (await find_stored(repository, [*ids.values()])).versions
        self._created_ids.update(unique_id for unique_id in ids.values() if unique_id not in stored.versions)
        results = [
            LineResult(number, "rejected", errors=outcome)
            if not isinstance(outcome, str)
            else LineResult(
                number,
                _status(outcome, stored.versions, versions),
                outcome,
                versions[outcome],
                errors=comparison.remarks.get(number, ()),
                sent_id=line.unique_id,
            )
            for number, line, outcome in (
                (line.number, line, outcomes[line.number]) for line in chunk if line.number in outcomes
            )
        ]
        return [*results, *(await self._write_chunk(again, max_comparisons - 1) if again else ())]

    async def _compare(self, lines: Sequence[Line]) -> ComparedLines:
        """Compare lines with the patients that they would update."""
        if not self._writer.updates or not lines:
            return ComparedLines({}, {})
        self._writer.compared_ids |= {line.values["unique_id"] for line in lines}
        return await compare_lines(
            self._connection,
            {line.number: line.values for line in lines},
            allow_other_person=self._allows_other_person,
        )

    async def _find_duplicates(self, lines: Sequence[Line]) -> dict[int, list[str]]:
        """Return the numbers of the lines whose patients are probably registered already, if such lines are refused.

        The values are the ids of these patients, or empty if the patient is only in an earlier one of the `lines`.
        """
        if self._matcher is None or not lines:
            return {}
        patients = []
        for line in lines:
            hospital_ids = {*line.values.get("hospital_ids", ())}
            # invalid identifiers are left to the write, which rejects the line
            identifiers = resolve(line.values.get(IDENTIFIERS), self._identifier_types, hospital_ids).identifiers
            patients.append(
                {
                    **dict.fromkeys(self._matcher.compared_fields),
                    **line.values,
                    "line": line.number,
                    IDENTIFIERS: identifiers,
                    "not_duplicates": line.record.get("not_duplicates") or (),
                }
            )
        compared, duplicates = await self._matcher.compare(patients), dict[int, list[str]]()
        for number in compared.lines:
            if (ids := compared.duplicates(number)) is None:
                compared.accept(number)
            else:
                duplicates[number] = ids
                self._writer.compared_ids.update({*ids} - self._created_ids)
        return duplicates


def _status(unique_id: str, before: Mapping[str, int], after: Mapping[str, int]) -> RowStatus:
    if unique_id not in before:
        return RowStatus.CREATED
    return RowStatus.UNCHANGED if before[unique_id] == after[unique_id] else RowStatus.UPDATED
