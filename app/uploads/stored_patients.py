"""The stored patients of lines: which there are, and whether a line would damage one, as the command finds it."""

from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    Select,
    String,
    Text,
    any_,
    bindparam,
    column,
    literal_column,
    select,
)

from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.db.transaction_batching import input_rows
from app.errors import FieldError
from app.models import journal
from app.patients.service import PatientService
from app.records.repository import Repository
from app.staging.patients import BIRTH_DATE_COLUMN, NAME_COLUMNS
from app.statements.damage import LOST_ZEROS_MESSAGE, OTHER_PERSON_PROBLEM, lost_zeros_statement, other_person_statement
from app.statements.hospital_scope import scope_parameters
from app.statements.write_statements import client_columns

OTHER_PERSON_MESSAGE = f"{OTHER_PERSON_PROBLEM} ?allow_other_person=true"


class _InputLines:
    """The lines in the parameter `rows` of a statement."""

    table = PatientService.repository_class.table
    client_columns: Sequence[str] = tuple(
        name
        for name in client_columns(PatientService.repository_class.table)
        if name == BIRTH_DATE_COLUMN or isinstance(PatientService.repository_class.table.c[name].type, String)
    )

    def __init__(self) -> None:
        self.staging_table = input_rows(
            column("line", Integer),
            column("unique_id", ID_TEXT),
            column("given", ARRAY(Text)),
            *(column(name, self.table.c[name].type) for name in self.client_columns),
            max_rows=None,
        )

    @property
    def same_record(self) -> ColumnElement[bool]:
        return self.table.c.unique_id == self.staging_table.c.unique_id

    def sets_field(self, name: str) -> ColumnElement[bool]:
        given: ColumnElement[bool] = literal_column(f"'{name}'") == any_(self.staging_table.c.given)
        return given


_LINES = _InputLines()
_SELECT_OTHER_PERSONS = other_person_statement(_LINES, NAME_COLUMNS, BIRTH_DATE_COLUMN)
_SELECT_LOST_ZEROS = lost_zeros_statement(_LINES)


class StoredPatients(NamedTuple):
    """Those of some patients that are stored."""

    versions: Mapping[str, int]
    """The versions of all stored patients by id, also of those that the principal cannot see."""
    visible_ids: frozenset[str]
    """The ids of those that the principal can see."""


@cache
def _select_stored(*, restricted: bool) -> Select[Any]:
    repository = PatientService.repository_class
    is_visible = repository.visibility_condition(restricted=restricted).label("is_visible")
    columns = repository.table.c
    is_requested = columns.unique_id == any_(bindparam("ids", type_=ARRAY(ID_TEXT)))
    return select(columns.unique_id, columns.version, is_visible).where(is_requested)


async def find_stored(repository: Repository, ids: Sequence[str]) -> StoredPatients:
    """Return which of the patients with these ids are stored."""
    if not ids:
        return StoredPatients({}, frozenset())
    parameters = {"ids": ids, **scope_parameters(repository.principal)}
    rows = (await repository.connection.execute(_select_stored(restricted=repository.restricted), parameters)).all()
    return StoredPatients(
        {row.unique_id: row.version for row in rows}, frozenset(row.unique_id for row in rows if row.is_visible)
    )


_SELECT_USED_IDS = (
    select(journal.c.unique_id)
    .distinct()
    .where(
        journal.c.resource == literal_column(f"'{PatientService.repository_class.table.name}'"),
        journal.c.unique_id == any_(bindparam("ids", type_=ARRAY(ID_TEXT))),
    )
)


async def used_ids(repository: Repository, ids: Sequence[str]) -> list[str]:
    """Return those of the ids that a patient ever had."""
    if not ids:
        return []
    return [*(await repository.connection.execute(_SELECT_USED_IDS, {"ids": ids})).scalars()]


class ComparedLines(NamedTuple):
    """What the comparison of lines with the patients that they would update has found, by the number of the line."""

    rejected: Mapping[int, list[FieldError]]
    """The errors of the lines that would replace a person."""
    remarks: Mapping[int, list[FieldError]]
    """The remarks on lines that only remove leading zeros."""


async def compare_lines(
    connection: Connection, lines: Mapping[int, Mapping[str, Any]], *, allow_other_person: bool
) -> ComparedLines:
    """Compare lines with the stored patients that they would update. `lines` are validated values by line number."""
    parameters = {"rows": _rows(lines)}
    rejected: dict[int, list[FieldError]] = {}
    remarks: dict[int, list[FieldError]] = {}
    if not allow_other_person:
        for (line,) in await connection.execute(_SELECT_OTHER_PERSONS, parameters):
            rejected[line] = [FieldError(("unique_id",), OTHER_PERSON_MESSAGE, "other_person")]
    for line, name in await connection.execute(_SELECT_LOST_ZEROS, parameters):
        remarks.setdefault(line, []).append(FieldError((name,), LOST_ZEROS_MESSAGE, "zeros_lost"))
    return ComparedLines(rejected, remarks)


def _rows(lines: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for number, values in lines.items():
        given = [name for name in _InputLines.client_columns if name in values]
        fields = {name: values[name].isoformat() if isinstance(values[name], date) else values[name] for name in given}
        rows.append({"line": number, "unique_id": values["unique_id"], "given": given, **fields})
    return rows
