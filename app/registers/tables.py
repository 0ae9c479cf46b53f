"""Tables in files: CSV and Excel workbooks, as rows of texts with the numbers of their lines."""

import csv
import io
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from typing import Any, NamedTuple, Protocol

from app.registers.errors import UnreadableFileError
from app.registers.lines import (
    EXPANSION_ALLOWANCE_BYTES,
    MAX_BLANK_LINES,
    MAX_EXPANSION_RATIO,
    MAX_LINE_BYTES,
    SAMPLE_BYTES,
    IndependentReader,
    LineReader,
    encoding_hint,
    expansion_error,
)

SEPARATORS = (";", "\t", ",")
_WRONG_QUOTES = (
    "has a cell with wrong quotation marks: enclose the whole cell in quotation marks, and double those inside it"
)
_ZERO_PADDED_FORMAT = re.compile(r"0{2,}")


class Row(NamedTuple):
    """A row of a table."""

    line_number: int
    """Number of the line or row on which it begins, counted from 1."""
    cells: list[str]


class Table(Protocol):
    """A table in a file. `rows` yields all rows that are not blank, and the first of them is the header."""

    description: str
    """The format, for people."""
    is_workbook: bool

    def rows(self) -> Iterator[Row]:
        """Yield the rows. Bytes that are not in UTF-8 are lone surrogates, as `surrogateescape` decodes them.

        Raises:
            UnreadableFileError: the rest of the file cannot be split into rows.
        """

    def encoding_hint(self, cells: Sequence[str]) -> str:
        """Return a sentence about the encoding of a row that is not in UTF-8."""


class CsvTable:
    """A table in a CSV file."""

    is_workbook = False

    def __init__(self, reader: LineReader, first_line: bytes, other_lines: Iterator[bytes]) -> None:
        self._reader = reader
        self._other_lines = other_lines
        self._encoding_hint: str | None = None
        header = self._decode(first_line)
        if header.startswith("sep="):  # in Excel, such a line declares the separator
            header = self._decode(next(other_lines, b""))
        while header and not header.replace('""', "").strip(" \t\r\n;,"):  # blank rows above the header
            reader.has_content("")
            header = self._decode(next(other_lines, b""))
        self._header = header
        self._header_line_number = reader.line_number
        self.separator = max(*SEPARATORS, key=header.count)
        name = {"\t": "a tab", ";": "a semicolon", ",": "a comma"}[self.separator]
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
        """Return a sentence about the encoding of a row that is not in UTF-8. The first such row decides."""
        if self._encoding_hint is None:
            row = "".join(cells).encode(errors="surrogateescape")
            self._encoding_hint = encoding_hint(self._reader.first_bytes + row)
        return self._encoding_hint

    def _decode(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError:
            hint = encoding_hint(self._reader.first_bytes + line)
            raise self._reader.error(f"is not in UTF-8. {hint}") from None


def _open_quotation_mark(first_line_number: int, lines: list[bytes]) -> str:
    """Return the message for a record whose last quotation mark is not closed. `lines` are the lines of the record."""
    open_line, is_open = 0, False
    for place, line in enumerate(lines):
        if line.count(b'"') % 2:
            is_open = not is_open
            open_line = place if is_open else open_line
    return (
        f"Line {first_line_number + open_line} has a cell with wrong quotation marks: one opens there and is never "
        "closed."
    )


class WorkbookTable:
    """A worksheet of an Excel workbook (.xlsx)."""

    is_workbook = True

    def __init__(self, file: IndependentReader, sheet: str | None) -> None:
        import openpyxl  # noqa: PLC0415  # most imports do without it
        from openpyxl.utils.exceptions import InvalidFileException  # noqa: PLC0415

        warnings.filterwarnings("ignore", module="openpyxl")  # about styles and validation rules, which do not matter
        reader = io.BufferedReader(file, SAMPLE_BYTES)
        try:
            _check_expansion(reader)
            self._workbook = openpyxl.load_workbook(reader, read_only=True, data_only=True, keep_links=False)
        except UnreadableFileError:
            raise
        except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, OSError, SyntaxError, TypeError):
            raise UnreadableFileError("The file is neither CSV nor a readable Excel workbook (.xlsx).") from None
        names = [one.title for one in self._workbook.worksheets]
        if sheet is not None and sheet not in names:
            raise UnreadableFileError(f"The workbook has no sheet {sheet}. Its sheets are: {', '.join(names)}.")
        if not names:
            raise UnreadableFileError("The workbook has no worksheet.")
        self._sheet: Any = self._workbook[sheet or names[0]]
        self.description = f"Excel workbook, sheet {self._sheet.title} of {', '.join(names)}"

    def rows(self) -> Iterator[Row]:
        """Yield the rows, as `Table` describes."""
        blank_rows = 0
        self._sheet.reset_dimensions()  # programs declare wrong ones
        try:
            for number, row in enumerate(self._sheet.iter_rows(), start=1):
                cells = [_cell_text(cell) for cell in row]
                if any(cells):
                    yield Row(number, cells)
                else:
                    blank_rows += 1
                    if blank_rows > MAX_BLANK_LINES:
                        raise UnreadableFileError(
                            f"The sheet has more than {MAX_BLANK_LINES:,} blank rows. Remove them."
                        )
        except (zipfile.BadZipFile, KeyError, ValueError, SyntaxError, TypeError, EOFError):
            raise UnreadableFileError("The workbook is damaged. Open it in Excel, and save it again.") from None
        finally:
            self._workbook.close()

    def encoding_hint(self, _: Sequence[str]) -> str:
        """Return nothing, because a workbook is in Unicode."""
        return ""


def _check_expansion(file: "io.BufferedReader[Any]") -> None:
    """Refuse a ZIP archive that expands too much. Its members are decompressed, because declared sizes may be wrong."""
    allowance = EXPANSION_ALLOWANCE_BYTES + MAX_EXPANSION_RATIO * file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as opened:
                while chunk := opened.read(SAMPLE_BYTES):
                    allowance -= len(chunk)
                    if allowance < 0:
                        raise expansion_error()
    file.seek(0)


def _cell_text(cell: Any) -> str:
    """Return the value of a cell as text: dates in ISO 8601, and numbers without an exponent."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(timespec="seconds")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is int and _ZERO_PADDED_FORMAT.fullmatch(cell.number_format or ""):
        return str(value).zfill(len(cell.number_format))
    return str(value)
