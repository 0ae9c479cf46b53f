"""Tables in files: CSV and Excel workbooks, as rows of texts with the numbers of their lines."""

import csv
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from app.table_files.errors import CellError, UnreadableFileError
from app.table_files.lines import (
    MAX_LINE_BYTES,
    LineReader,
)

SEPARATORS = {"|": "a vertical bar", ";": "a semicolon", "\t": "a tab", ",": "a comma"}
"""The characters that may separate cells, with their names. If several are equally frequent, the last of them is used.
"""
_SAMPLE_LINES = 20
"""Number of lines at the beginning of a file in which the separator is sought. The first line with one decides; titles
may have none.
"""
_WRONG_QUOTES = (
    "has a cell with wrong quotation marks: enclose the whole cell in quotation marks, and double those inside it"
)


class Row(NamedTuple):
    """A row of a table."""

    line_number: int
    """Number of the line or row on which it begins, counted from 1."""
    cells: list[str]
    faults: Sequence[tuple[int, CellError]] = ()
    """The indexes of cells without a usable value, such as the error of a formula, each with the reason."""


class Table(Protocol):
    """A table in a file, whose first row is the header."""

    description: str
    """The format, for people."""
    is_workbook: bool
    other_sheets: Sequence[str]
    """The names of the other worksheets in the same file."""

    def rows(self) -> Iterator[Row]:
        """Yield the rows that are not blank.

        Bytes that are not in UTF-8 become lone surrogates, as `surrogateescape` decodes them.

        Raises:
            UnreadableFileError: the rest of the file cannot be split into rows.
        """

    def encoding_hint(self, cells: Sequence[str]) -> str:
        """Return a sentence about the encoding of a row that is not in UTF-8."""


class CsvTable:
    """A table in a CSV file."""

    is_workbook = False
    other_sheets: Sequence[str] = ()

    def __init__(self, reader: LineReader, first_line: bytes, other_lines: Iterator[bytes]) -> None:
        self._reader = reader
        self._other_lines = other_lines
        self._encoding_hint: str | None = None
        header = self._decode(first_line)
        if header.startswith("sep="):  # in Excel, such a line declares the separator
            header = self._decode(next(other_lines, b""))
        while header and not header.replace('""', "").strip(" \t\r\n;,|"):  # blank rows above the header
            reader.has_content("")
            header = self._decode(next(other_lines, b""))
        self._header = header
        self._header_line_number = reader.line_number
        line = next((one for one in (header, *_sample_lines(reader)) if any(map(one.count, SEPARATORS))), header)
        self.separator = max(reversed(SEPARATORS), key=line.count)
        name = SEPARATORS[self.separator]
        self.description = f"CSV, separated by {name}, in {reader.encoding or 'utf-8'}"

    def rows(self) -> Iterator[Row]:
        """Yield the rows, as `Table` describes."""
        csv.field_size_limit(MAX_LINE_BYTES)
        reader = self._reader
        row_lines: list[bytes] = []
        row_bytes = 0
        first_line_number = self._header_line_number

        def decoded_lines() -> Iterator[str]:
            nonlocal row_bytes
            row_lines.append(self._header.encode())
            yield self._header
            for line in self._other_lines:
                row_bytes += len(line)
                row_lines.append(line)
                if row_bytes > MAX_LINE_BYTES:
                    raise UnreadableFileError(
                        f"{_open_quotation_mark(first_line_number, row_lines)} The record is longer than 1 MiB."
                    )
                yield line.decode(errors="surrogateescape")

        rows = csv.reader(decoded_lines(), delimiter=self.separator, strict=True)
        try:
            while (cells := next(rows, None)) is not None:
                # spreadsheets save empty rows at the end
                if (cells and cells[0].strip()) or reader.has_content("".join(cells).strip()):
                    yield Row(first_line_number, cells)
                first_line_number, row_bytes = reader.line_number + 1, 0
                row_lines.clear()
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise UnreadableFileError(_open_quotation_mark(first_line_number, row_lines)) from None
            opened = f" It belongs to a record that begins on line {first_line_number}." if len(row_lines) > 1 else ""
            raise UnreadableFileError(f"{reader.error(_WRONG_QUOTES)}{opened}") from None

    def encoding_hint(self, cells: Sequence[str]) -> str:
        """Return a sentence about the encoding of the file, which depends on the first row that is not in UTF-8."""
        if self._encoding_hint is None:
            row = "".join(cells).encode(errors="surrogateescape")
            self._encoding_hint = self._reader.encoding_hint(row)
        return self._encoding_hint

    def _decode(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError:
            hint = self._reader.encoding_hint(line)
            raise self._reader.error(f"is not in UTF-8. {hint}") from None


def _sample_lines(reader: LineReader) -> list[str]:
    """Return the first lines of a file, even if the rest is damaged, and without regard to quotation marks."""
    try:
        text = reader.first_bytes.decode(reader.encoding or "utf-8", errors="replace")
    except UnicodeError:  # some encodings, such as idna, cannot replace what they cannot decode
        return []
    return text.splitlines()[:_SAMPLE_LINES]


def _open_quotation_mark(first_line_number: int, lines: list[bytes]) -> str:
    """Return the message for a record whose last quotation mark is not closed. `lines` are the lines of the record."""
    open_line, is_open = 0, False
    for index, line in enumerate(lines):
        if line.count(b'"') % 2:
            is_open = not is_open
            open_line = index if is_open else open_line
    return (
        f"Line {first_line_number + open_line} has a cell with wrong quotation marks: one opens there and is never "
        "closed."
    )
