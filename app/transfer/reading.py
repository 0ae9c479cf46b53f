"""Reading of import files, which contain CSV or NDJSON and may be compressed with gzip.

A file is read line by line, so that memory use does not grow with its size. It may be a pipe.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from app.errors import FieldError
from app.http.strict_json import MAX_BODY_SIZE_BYTES, InvalidJSONError, parse_json
from app.suggestions import suggestion
from app.transfer.formulas import unescape_formula
from app.transfer.layout import Layout

MAX_LINE_BYTES = MAX_BODY_SIZE_BYTES
"""Maximum size of a line or of a CSV record, in bytes. It is the same as for a request body in the API."""
MAX_BLANK_LINES = 1_048_576
"""Maximum number of blank lines in a file.

It is the number of rows in an Excel worksheet, because spreadsheet programs may save every row.
"""
EXPANSION_ALLOWANCE_BYTES = 16 * 1024 * 1024
"""Number of decompressed bytes that a gzip file may have without regard to its compressed size.

The limit for further bytes is `MAX_EXPANSION_RATIO`.
"""
MAX_EXPANSION_RATIO = 100
"""Maximum number of decompressed bytes per compressed byte of a gzip file, after the first `EXPANSION_ALLOWANCE_BYTES`.

A real patient register expands 5 to 20 times, and a decompression bomb 1,000 times.
"""
_GZIP_MAGIC = b"\x1f\x8b"
_UTF_8_BOM = b"\xef\xbb\xbf"
_UTF_16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_ZIP_MAGIC = b"PK\x03\x04"
"""The first bytes of a ZIP archive. Every Excel workbook is a ZIP archive."""
NOT_UTF_8_MESSAGE = "Is not in UTF-8. Save the file as UTF-8; in Excel, choose “CSV UTF-8”"
_COLUMN_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}")


class UnreadableFileError(Exception):
    """An import cannot read or use a file. The message says where the problem is and what to change."""


class ParsedLine(NamedTuple):
    """A record of an import file, parsed but not yet validated."""

    line_number: int
    """Number of the line on which the record begins, counted from 1."""
    record: dict[str, Any] | None
    """The record as a request body that is not yet validated, or None if the line could not be parsed."""
    errors: tuple[FieldError, ...] = ()
    """The reasons why the line could not be parsed, if `record` is None."""


class _CountingReader(io.RawIOBase):
    """A wrapper of a file that counts the bytes read from it, because a pipe cannot report its position."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.byte_count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size: int = self._file.readinto(buffer)
        self.byte_count += size
        return size


class _BoundedGzipReader(_CountingReader):
    """Decompresses a gzip file. It limits the output relative to the number of compressed bytes that have been read."""

    def __init__(self, compressed: "io.BufferedReader[_CountingReader]", compressed_file: _CountingReader) -> None:
        super().__init__(gzip.GzipFile(fileobj=compressed))
        self._compressed_file = compressed_file

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer)
        if self.byte_count > EXPANSION_ALLOWANCE_BYTES + MAX_EXPANSION_RATIO * self._compressed_file.byte_count:
            raise UnreadableFileError(
                f"The file expands to more than {MAX_EXPANSION_RATIO} times its size. "
                "If you expect that, decompress it first."
            )
        return size


class RecordFile:
    """An import file, which is read only once, from beginning to end."""

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        self._file = _CountingReader(file)
        self._layout = layout
        # a pipe cannot seek back, so the bytes that `peek` has read must stay in a buffer
        buffered = io.BufferedReader(self._file)
        is_gzip = buffered.peek(2).startswith(_GZIP_MAGIC)
        self._reader = io.BufferedReader(_BoundedGzipReader(buffered, self._file)) if is_gzip else buffered
        self._line_number = 0
        self._blank_lines = 0

    @property
    def bytes_read(self) -> int:
        """Number of bytes that have been read from the file so far. For a gzip file, these are compressed bytes."""
        return self._file.byte_count

    def lines(self) -> Iterator[ParsedLine]:
        """Return an iterator over the lines of the file. A line that cannot be parsed has errors instead of a record.

        Raises:
            UnreadableFileError: the file has an unsupported format. The iterator also raises this error if the rest of
                the file cannot be decompressed or split into records.
        """
        raw_lines = self._raw_lines()
        first_line = next((line for line in raw_lines if self._has_content(line.removeprefix(_UTF_8_BOM).strip())), b"")
        if first_line.startswith(_GZIP_MAGIC):
            raise UnreadableFileError("The file is compressed twice. Decompress it once.")
        if first_line.startswith(_ZIP_MAGIC):
            raise UnreadableFileError("The file is an Excel workbook. Save it as “CSV UTF-8”.")
        if first_line.startswith(_UTF_16_BOMS):
            raise UnreadableFileError("The file is in UTF-16. Save it as UTF-8; in Excel, choose “CSV UTF-8”.")
        first_line = first_line.removeprefix(_UTF_8_BOM)
        if first_line.lstrip().startswith(b"["):
            raise UnreadableFileError(
                "The file is one JSON array. Write one record per line instead: request the list with `Accept: "
                "application/x-ndjson`."
            )
        is_json = first_line.lstrip().startswith(b"{")
        return self._json_lines(first_line, raw_lines) if is_json else self._csv_lines(first_line, raw_lines)

    def _raw_lines(self) -> Iterator[bytes]:
        try:
            while line := self._reader.readline(MAX_LINE_BYTES + 1):
                self._line_number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise self._unreadable_error("is longer than 1 MiB")
                yield line
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise self._unreadable_error(
                "is the last that can be decompressed: the file is damaged or cut off"
            ) from None

    def _has_content(self, content: object) -> bool:
        """Return whether the content of a line is not blank, and count the line if it is blank.

        The number of blank lines is limited, because a blank line takes time to read but only about one bit in a gzip
        file.

        Raises:
            UnreadableFileError: the file has more than `MAX_BLANK_LINES` blank lines.
        """
        if not content:
            self._blank_lines += 1
            if self._blank_lines > MAX_BLANK_LINES:
                raise self._unreadable_error(f"is one of more than {MAX_BLANK_LINES:,} blank lines. Remove them")
        return bool(content)

    def _unreadable_error(self, problem: str) -> UnreadableFileError:
        return UnreadableFileError(f"Line {self._line_number} {problem}.")

    def _json_lines(self, first: bytes, rest: Iterator[bytes]) -> Iterator[ParsedLine]:
        line = first
        while line:
            if self._has_content(line.strip()):
                try:
                    yield self._line_from_json(parse_json(line.rstrip(), one_line=True))
                except InvalidJSONError as error:
                    yield ParsedLine(self._line_number, None, (FieldError((), f"The line {error}", "json"),))
            line = next(rest, b"")

    def _line_from_json(self, record: Any) -> ParsedLine:
        if not isinstance(record, dict):
            return ParsedLine(self._line_number, None, (FieldError((), "The line is not a JSON object", "json"),))
        return ParsedLine(self._line_number, self._layout.with_link_ids(record))

    def _csv_lines(self, first: bytes, rest: Iterator[bytes]) -> Iterator[ParsedLine]:
        header = self._decode(first)
        if header.startswith("sep="):  # in Excel, such a line declares the delimiter
            header = self._decode(next(rest, b""))
        delimiter = max(";", "\t", ",", key=header.count)

        csv.field_size_limit(MAX_LINE_BYTES)
        row_bytes = 0

        def decoded_lines() -> Iterator[str]:
            nonlocal row_bytes
            yield header
            for line in rest:
                row_bytes += len(line)
                if row_bytes > MAX_LINE_BYTES:
                    raise self._unreadable_error(
                        "belongs to a record that is longer than 1 MiB: its quotation marks are wrong"
                    )
                yield line.decode(errors="surrogateescape")

        rows = csv.reader(decoded_lines(), delimiter=delimiter, strict=True)
        try:
            names = self._column_names(next(rows, []))
            while True:
                first_line_number, row_bytes = self._line_number + 1, 0
                cells = next(rows, None)
                if cells is None:
                    return
                if self._has_content("".join(cells).strip()):  # spreadsheets save empty rows at the end
                    yield self._line_from_csv(first_line_number, names, cells)
        except csv.Error:
            message = (
                "has a cell with wrong quotation marks or line endings: enclose the whole cell in quotation marks, "
                "double those inside it, and end each line with LF or CRLF"
            )
            raise self._unreadable_error(message) from None

    def _decode(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise self._unreadable_error(
                "is not in UTF-8. Save the file as UTF-8; in Excel, choose “CSV UTF-8”"
            ) from None

    def _column_names(self, cells: list[str]) -> list[str]:
        names = [cell.strip() for cell in cells]
        while names and not names[-1]:  # spreadsheets save empty columns, too
            names.pop()
        allowed = self._layout.columns
        # if the file has no header, its first line contains personal data, which the message must not show
        is_header = 2 * sum(name in allowed for name in names) >= len(names)
        for column_number, name in enumerate(names, start=1):
            if name not in allowed:
                problem = f"must name the columns. Column {column_number}"
                where_listed = "a CSV export has all of them"
                if is_header and _COLUMN_NAME_PATTERN.fullmatch(name):
                    hint = suggestion(name, allowed, where_listed)
                    raise self._unreadable_error(f"{problem}, {name}, is not one of them ({hint})")
                raise self._unreadable_error(f"{problem} is not one of them ({where_listed})")
            if names.index(name) != column_number - 1:
                raise self._unreadable_error(f"names column {name} twice")
        return names

    def _line_from_csv(self, line_number: int, names: list[str], cells: list[str]) -> ParsedLine:
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()
        if len(cells) != len(names):
            message = f"Has {len(cells)} cells, but the file has {len(names)} columns"
            return ParsedLine(line_number, None, (FieldError((), message, "cells"),))
        for name, cell in zip(names, cells, strict=True):
            if not cell.isascii() and any("\udc80" <= character <= "\udcff" for character in cell):
                return ParsedLine(line_number, None, (FieldError((name,), NOT_UTF_8_MESSAGE, "encoding"),))
        return ParsedLine(
            line_number, self._layout.from_csv_row(dict(zip(names, map(unescape_formula, cells), strict=True)))
        )
