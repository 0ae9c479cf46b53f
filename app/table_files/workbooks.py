"""Tables in Excel workbooks (.xlsx), as rows of texts: dates and numbers as the sheet shows them."""

import io
import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from functools import lru_cache
from itertools import repeat
from typing import Any

from app.table_files.errors import CellError, UnreadableFileError
from app.table_files.lines import (
    EXPANSION_ALLOWANCE_BYTES,
    MAX_BLANK_LINES,
    MAX_EXPANSION_RATIO,
    SAMPLE_BYTES,
    IndependentReader,
    expansion_error,
)
from app.table_files.tables import Row

_DAMAGE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    RuntimeError,  # also NotImplementedError: a member is encrypted, or compressed by an unknown method
    KeyError,
    ValueError,
    SyntaxError,
    TypeError,
    EOFError,
)
"""The errors that `zipfile` and openpyxl raise if a workbook is damaged."""
_CONTENT_TYPES_MEMBER = "[Content_Types].xml"
"""The file that every document of Microsoft Office has, by ECMA-376."""
NOT_AVAILABLE = "#N/A"
"""The error that stands for a missing value. It is read as a null word, not as an error."""
_FORMULA_TAG_PATTERN = re.compile(rb"<(?:\w{1,20}:)?f[ />]")
_MAX_TAG_BYTES = 24
_MERGE_PATTERN = re.compile(rb'<(?:\w{1,20}:)?mergeCell ref="([A-Z]{1,3})([0-9]{1,7}):([A-Z]{1,3})([0-9]{1,7})"')
_MAX_MERGE_BYTES = 64
_LOCALE_PATTERN = re.compile(r"\[\$[^\]]*\]")
_FORMAT_TOKEN_PATTERN = re.compile(r'"(?P<text>[^"]*)"|\\(?P<escaped>.)|_.|(?P<digit>[0#?])|(?P<mark>[ ()+-])')


class WorkbookTable:
    """A worksheet of an Excel workbook (.xlsx)."""

    is_workbook = True

    def __init__(self, file: IndependentReader, sheet: str | None) -> None:
        import openpyxl  # noqa: PLC0415  # most imports do without it
        from openpyxl.utils.exceptions import InvalidFileException  # noqa: PLC0415

        warnings.filterwarnings("ignore", module="openpyxl")  # about styles and validation rules, which do not matter
        reader = io.BufferedReader(file, SAMPLE_BYTES)
        try:
            has_formulas = _check_members(reader)
            self._workbooks = [
                openpyxl.load_workbook(reader, read_only=True, data_only=data_only, keep_links=False)
                for data_only in ([True, False] if has_formulas else [True])
            ]
        except UnreadableFileError:
            raise
        except (*_DAMAGE_ERRORS, InvalidFileException, OSError):
            raise UnreadableFileError(
                "The file is neither CSV nor a readable Excel workbook (.xlsx): it may be damaged or protected by a "
                "password."
            ) from None
        names = [one.title for one in self._workbooks[0].worksheets]
        if sheet is not None and sheet not in names:
            raise UnreadableFileError(f"The workbook has no sheet {sheet}. Its sheets are: {', '.join(names)}.")
        if not names:
            raise UnreadableFileError("The workbook has no worksheet.")
        self._sheets: list[Any] = [workbook[sheet or names[0]] for workbook in self._workbooks]
        self._reader = reader
        self.description = f"Excel workbook, sheet {sheet or names[0]} of {', '.join(names)}"
        self.other_sheets: Sequence[str] = [name for name in names if name != (sheet or names[0])]

    def rows(self) -> Iterator[Row]:
        """Yield the rows, as `Table` describes."""
        blank_rows = 0
        for sheet in self._sheets:
            sheet.reset_dimensions()  # programs declare wrong ones
        try:
            merged_cells = _MergedCells(self._reader, self._sheets[0]._worksheet_path)  # noqa: SLF001  # has no other name
            values, *formulas = (sheet.iter_rows() for sheet in self._sheets)
            for number, (row, formula_row) in enumerate(
                zip(values, *(formulas or [repeat(())]), strict=False), start=1
            ):
                cells = [_cell_text(cell) for cell in row]
                faults = [*_faults(row, formula_row)]
                merged_cells.fill(number, cells)
                if any(cells) or faults:
                    yield Row(number, cells, faults)
                else:
                    blank_rows += 1
                    if blank_rows > MAX_BLANK_LINES:
                        raise UnreadableFileError(
                            f"The sheet has more than {MAX_BLANK_LINES:,} blank rows. Remove them."
                        )
        except _DAMAGE_ERRORS:
            raise UnreadableFileError("The workbook is damaged. Open it in Excel, and save it again.") from None
        finally:
            for workbook in self._workbooks:
                workbook.close()

    def encoding_hint(self, _: Sequence[str]) -> str:
        """Return nothing, because a workbook is in Unicode."""
        return ""


def _check_members(file: "io.BufferedReader[Any]") -> bool:
    """Refuse a ZIP archive that expands too much, and return whether a member may contain formulas.

    Its members are decompressed, because declared sizes may be wrong.
    """
    allowance = EXPANSION_ALLOWANCE_BYTES + MAX_EXPANSION_RATIO * file.seek(0, io.SEEK_END)
    has_formulas = False
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            end = b""
            with archive.open(member) as opened:
                while chunk := opened.read(SAMPLE_BYTES):
                    allowance -= len(chunk)
                    if allowance < 0:
                        raise expansion_error("save it as CSV")
                    has_formulas = has_formulas or _FORMULA_TAG_PATTERN.search(end + chunk) is not None
                    end = chunk[-_MAX_TAG_BYTES:]
        _check_format(archive)
    file.seek(0)
    return has_formulas


def _check_format(archive: zipfile.ZipFile) -> None:
    """Refuse an OpenDocument file, and an archive that is no document at all."""
    names = archive.namelist()
    if "mimetype" in names:
        raise UnreadableFileError("The file is an OpenDocument file. Save it as an Excel workbook (.xlsx) or as CSV.")
    if _CONTENT_TYPES_MEMBER not in names:
        raise UnreadableFileError("The file is a ZIP archive. Unpack it, and import the files in it.")


class _MergedCells:
    """The cells of a worksheet that are merged with cells below, which have no values of their own."""

    def __init__(self, file: "io.BufferedReader[Any]", path: str) -> None:
        """Read which cells are merged. `path` is the member of the worksheet."""
        self._starts: dict[int, list[tuple[int, int]]] = {}
        """The index of the column and the number of the last row for each merged cell, by the number of its row."""
        self._texts: dict[int, tuple[int, str]] = {}
        """The number of the last row and the text of each merged cell that continues, by the index of its column."""
        end = b""
        with zipfile.ZipFile(file) as archive, archive.open(path.removeprefix("/")) as opened:
            while chunk := opened.read(SAMPLE_BYTES):
                for column, first, last_column, last in _MERGE_PATTERN.findall(end + chunk):
                    if column == last_column and first != last:
                        self._starts.setdefault(int(first), []).append((_column_index(column), int(last)))
                end = (end + chunk)[-_MAX_MERGE_BYTES:]

    def fill(self, number: int, cells: list[str]) -> None:
        """Put the texts of merged cells above into the cells of a row, unless the whole row is blank."""
        for index, (last_number, text) in [*self._texts.items()]:
            if number > last_number:
                del self._texts[index]
            elif any(cells):
                cells += [""] * (index + 1 - len(cells))
                cells[index] = cells[index] or text
        for index, last_number in self._starts.get(number, ()):
            self._texts[index] = last_number, cells[index] if index < len(cells) else ""


def _column_index(column: bytes) -> int:
    """Return the index of a column, which is 0 for A and 26 for AA."""
    number = 0
    for letter in column:
        number = number * 26 + letter - ord("A") + 1
    return number - 1


def _faults(row: Sequence[Any], formula_row: Sequence[Any]) -> Iterator[tuple[int, CellError]]:
    """Yield the indexes of the cells without a usable value, each with the reason. `formula_row` has their formulas."""
    for index, cell in enumerate(row):
        if cell.data_type == "e" and cell.value != NOT_AVAILABLE:
            yield index, CellError("spreadsheet_error", "Is the error of a formula: correct it in the spreadsheet")
    for index, cell in enumerate(formula_row):
        if cell.data_type == "f" and (index >= len(row) or row[index].value is None):
            message = "Is a formula without a result: open the workbook in Excel, and save it again"
            yield index, CellError("spreadsheet_error", message)


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
    if type(value) is int and value >= 0 and (parts := _format_parts(cell.number_format or "")):
        return _formatted(str(value), parts)
    return str(value)


@lru_cache
def _format_parts(number_format: str) -> Sequence[tuple[str, str]]:
    """Return the parts of a number format with leading zeros or literal text, from left to right.

    A part is ("digit", its placeholder) or ("text", the text). The result is empty for other formats, such as those
    with decimals or conditions, which change only the display of a number.
    """
    section = _LOCALE_PATTERN.sub("", number_format.partition(";")[0])
    parts, position = [], 0
    while position < len(section):
        token = _FORMAT_TOKEN_PATTERN.match(section, position)
        if token is None:
            return ()
        position = token.end()
        if token["digit"]:
            parts.append(("digit", token["digit"]))
        else:
            parts.append(("text", token["text"] or token["escaped"] or token["mark"] or ""))
    return parts if ("digit", "0") in parts else ()


def _formatted(digits: str, parts: Sequence[tuple[str, str]]) -> str:
    """Return the digits of a number as its format shows them: the first placeholder gets all digits that are left."""
    texts: list[str] = []
    remaining = sum(kind == "digit" for kind, _ in parts)
    for kind, text in reversed(parts):
        if kind == "text":
            texts.append(text)
            continue
        remaining -= 1
        taken = digits if remaining == 0 else digits[-1:]
        digits = digits[: len(digits) - len(taken)]
        texts.append(taken or ("0" if text == "0" else ""))
    return "".join(reversed(texts)).strip()
