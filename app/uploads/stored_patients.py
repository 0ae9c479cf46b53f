"""The comparison of lines with the stored patients that they would update, as the command makes it."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Integer, String, Text, any_, column, literal_column

from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.db.transaction_batching import input_rows
from app.errors import FieldError
from app.patients.service import PatientService
from app.statements.damage import LOST_ZEROS_MESSAGE, OTHER_PERSON_PROBLEM, lost_zeros_statement, other_person_statement
from app.statements.write_statements import client_columns
from app.transfer.patients import BIRTH_DATE_COLUMN, NAME_COLUMNS

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


async def find_other_persons(
    connection: Connection, lines: Mapping[int, Mapping[str, Any]]
) -> dict[int, list[FieldError]]:
    """Return the errors of the lines that would replace a person. `lines` are validated values by line number."""
    rows = await connection.execute(_SELECT_OTHER_PERSONS, {"rows": _rows(lines)})
    return {line: [FieldError(("unique_id",), OTHER_PERSON_MESSAGE, "other_person")] for (line,) in rows}


async def find_lost_zeros(
    connection: Connection, lines: Mapping[int, Mapping[str, Any]]
) -> dict[int, list[FieldError]]:
    """Return remarks on the lines that only remove leading zeros. `lines` are validated values by line number."""
    remarks: dict[int, list[FieldError]] = {}
    for line, name in await connection.execute(_SELECT_LOST_ZEROS, {"rows": _rows(lines)}):
        remarks.setdefault(line, []).append(FieldError((name,), LOST_ZEROS_MESSAGE, "zeros_lost"))
    return remarks


def _rows(lines: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for number, values in lines.items():
        given = [name for name in _InputLines.client_columns if name in values]
        fields = {name: values[name].isoformat() if isinstance(values[name], date) else values[name] for name in given}
        rows.append({"line": number, "unique_id": values["unique_id"], "given": given, **fields})
    return rows
