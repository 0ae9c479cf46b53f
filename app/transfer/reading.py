"""Reading of import files, which contain a table or NDJSON.

A file is read line by line, so that memory use does not grow with its size. It may be a pipe.
"""

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from app.errors import FieldError
from app.http.strict_json import InvalidJSONError, parse_json
from app.registers.options import TableOptions
from app.registers.register import Register
from app.table_files.errors import UnreadableFileError
from app.table_files.lines import GZIP_MAGIC, ZIP_MAGIC, LineReader, read_independently
from app.table_files.tables import CsvTable, Table
from app.table_files.workbooks import WorkbookTable
from app.transfer.layout import Layout

_FHIR_PATTERN = re.compile(rb'\s*[\[{].{0,65536}?(?<!\\)"resourceType"\s*:\s*"(?P<type>[A-Za-z]{1,64})"', re.DOTALL)
"""Matches the beginning of JSON with FHIR resources, up to the type of the first one. The API's records have no such
key, and quotation marks in their values have backslashes."""


class ParsedLine(NamedTuple):
    """A record of an import file, parsed but not yet validated."""

    line_number: int
    """Number of the line on which the record begins, counted from 1."""
    record: dict[str, Any] | None
    """The record as a request body that is not yet validated, or None if the line could not be parsed."""
    errors: Sequence[FieldError] = ()
    """The reasons why the line, or some fields that `record` therefore lacks, could not be parsed."""
    remarks: Sequence[FieldError] = ()
    """What was left out of fields that were parsed nevertheless."""


class RecordFile:
    """An import file, which is read from beginning to end.

    Only the format of dates that are not in ISO 8601 requires a second reading, for which a second reader is opened.
    """

    def __init__(
        self,
        file: BinaryIO,
        layout: Layout,
        resource: str = "patients",
        options: TableOptions | None = None,
    ) -> None:
        """Prepare to read a file of records of `resource`."""
        self._file = file
        self._layout = layout
        self._resource = resource
        self._options = options or TableOptions()
        self._reader = LineReader(file, self._options.encoding)

    def know_identifier_types(self, names: Iterable[str]) -> None:
        """Accept columns with the values of these types of identifiers, instead of the built-in ones."""
        self._layout = Layout(self._layout.repository, names)

    @property
    def bytes_read(self) -> int:
        """Number of bytes that have been read from the file so far. For a gzip file, these are compressed bytes."""
        return self._reader.bytes_read

    def lines(self) -> Iterator[ParsedLine]:
        """Yield the lines of the file. A line that cannot be parsed has errors instead of a record.

        Raises:
            UnreadableFileError: the file has an unsupported format, or the rest of the file cannot be decompressed or
                split into records.
        """
        table_or_line = self._open()
        if isinstance(table_or_line, bytes):
            if self._options.is_given:
                raise UnreadableFileError("The file is NDJSON, whose keys are the API's: omit the options for tables.")
            yield from self._json_lines(table_or_line, self._reader.lines())
        else:
            yield from self._table_lines(self._register(table_or_line))

    def register(self) -> Register:
        """Return the table in the file, whose columns have been recognized.

        Raises:
            UnreadableFileError: the file contains no table, or the options contradict the table.
        """
        table = self._open()
        if isinstance(table, bytes):
            raise UnreadableFileError("The file is NDJSON, whose keys are the API's. It has no columns to inspect.")
        return self._register(table)

    def _register(self, table: Table) -> Register:
        return Register(table, self._read_again, self._resource, self._layout.readable_columns, self._options)

    def _open(self) -> Table | bytes:
        """Return the table in the file, or the first line of NDJSON."""
        if self._reader.first_bytes.startswith(ZIP_MAGIC):
            workbook = read_independently(self._file)
            if workbook is None:
                raise UnreadableFileError("An Excel workbook cannot be read from a pipe: name the file.")
            return WorkbookTable(workbook, self._options.sheet)
        if self._options.sheet is not None:
            raise UnreadableFileError("The file is no Excel workbook, so it has no sheets: omit --sheet.")
        if self._reader.other_format is not None:
            raise UnreadableFileError(
                f"The file is {self._reader.other_format}. Save it as a workbook (.xlsx) without a password, or as CSV."
            )
        lines = self._reader.lines()
        first_line = self._first_line(lines)
        return first_line if first_line.lstrip().startswith(b"{") else CsvTable(self._reader, first_line, lines)

    def _read_again(self) -> Table | None:
        file = read_independently(self._file)
        if file is None:
            return None
        table = RecordFile(file, self._layout, self._resource, self._options)._open()  # type: ignore[arg-type]  # noqa: SLF001  # a raw reader
        return None if isinstance(table, bytes) else table

    def _first_line(self, lines: Iterator[bytes]) -> bytes:
        """Return the first line that is not blank, or an empty one if there is none.

        Raises:
            UnreadableFileError: the file has an unsupported format.
        """
        first_line = next((line for line in lines if self._reader.has_content(line.strip())), b"")
        if first_line.startswith(GZIP_MAGIC):
            raise UnreadableFileError("The file is compressed twice. Decompress it once.")
        if (fhir := _FHIR_PATTERN.match(self._reader.first_bytes.removeprefix(codecs.BOM_UTF8))) is not None:
            raise UnreadableFileError(
                f"The file is FHIR, with the resource {fhir['type'].decode()}. Send it to POST /fhir, as Bundles of at "
                "most 100 Patients each (docs/fhir.md), or write the API's fields, one record per line."
            )
        if first_line.lstrip().startswith(b"["):
            raise UnreadableFileError(
                "The file is one JSON array. Write one record per line instead: request the list with `Accept: "
                "application/x-ndjson`."
            )
        return first_line

    def _json_lines(self, first: bytes, rest: Iterator[bytes]) -> Iterator[ParsedLine]:
        line = first
        while line:
            if self._reader.has_content(line.strip()):
                yield parse_json_line(self._reader.line_number, line, self._layout)
            line = next(rest, b"")

    def _table_lines(self, register: Register) -> Iterator[ParsedLine]:
        to_record = self._layout.from_csv_row
        for line_number, cells, errors, remarks in register.rows():
            yield ParsedLine(line_number, to_record(cells) if cells else None, errors, remarks)


def parse_json_line(line_number: int, line: bytes, layout: Layout) -> ParsedLine:
    """Return the record in a line of NDJSON, or the errors of the line."""
    try:
        record = parse_json(line.rstrip(), one_line=True)
    except InvalidJSONError as error:
        return ParsedLine(line_number, None, (FieldError((), f"The line {error}", "json"),))
    if not isinstance(record, dict):
        return ParsedLine(line_number, None, (FieldError((), "The line is not a JSON object", "json"),))
    return ParsedLine(line_number, layout.with_link_ids(record))
