"""Reading files of records: CSV or NDJSON, plain or gzip, from a file or a pipe, line by line in little memory."""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from app.errors import FieldError
from app.http.middleware import MAX_BODY_SIZE_BYTES
from app.http.strict_json import InvalidJSONError, parse_json
from app.transfer.formulas import unescape_formula
from app.transfer.layout import Layout

MAX_LINE_BYTES = MAX_BODY_SIZE_BYTES
"""Of one line: what the API takes as one body."""
MAX_BLANK_LINES = 1_048_576
"""In a file: as many rows as a worksheet of Excel has, all of which a spreadsheet may save."""
EXPANSION_ALLOWANCE_BYTES = 16 * 1024 * 1024
MAX_EXPANSION_RATIO = 100
"""Of a gzip, bytes to which each byte may expand, beyond `FREE_BYTES`: whole registers have 5 to 20, bombs 1,000."""
_GZIP_MAGIC = b"\x1f\x8b"
_UTF_8_BOM = b"\xef\xbb\xbf"
_UTF_16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_ZIP_MAGIC = b"PK\x03\x04"
"""With which a workbook of Excel begins: it is an archive."""
NOT_UTF_8_MESSAGE = "Is not in UTF-8. Save the file in UTF-8: in Excel, as “CSV UTF-8”"
_COLUMN_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}")


class UnreadableFileError(Exception):
    """The file cannot be read as what it seems to be; the message tells where, and what to do."""


class ParsedLine(NamedTuple):
    """A record as the file has it."""

    line_number: int
    """Of the line in which it begins, from 1."""
    record: dict[str, Any] | None
    """The body of a request; none where there is only an error."""
    errors: tuple[FieldError, ...] = ()


class _CountingReader(io.RawIOBase):
    """A file, with how many bytes of it were read: a pipe cannot tell."""

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
    """What a gzip expands to, which is bounded by how much of it was read."""

    def __init__(self, compressed: "io.BufferedReader[_CountingReader]", compressed_file: _CountingReader) -> None:
        super().__init__(gzip.GzipFile(fileobj=compressed))
        self._compressed_file = compressed_file

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer)
        if self.byte_count > EXPANSION_ALLOWANCE_BYTES + MAX_EXPANSION_RATIO * self._compressed_file.byte_count:
            raise UnreadableFileError(
                f"The file expands to more than {MAX_EXPANSION_RATIO} times its size. "
                "If that is right, unpack it first."
            )
        return size


class RecordFile:
    """A file that is read once, from its beginning to its end."""

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        self._file = _CountingReader(file)
        self._layout = layout
        # a pipe has no place to go back to, so that what was looked at must stay in a buffer
        buffered = io.BufferedReader(self._file)
        is_gzip = buffered.peek(2).startswith(_GZIP_MAGIC)
        self._reader = io.BufferedReader(_BoundedGzipReader(buffered, self._file)) if is_gzip else buffered
        self._line_number = 0
        self._blank_lines = 0

    @property
    def bytes_read(self) -> int:
        """How many bytes of the file have been read."""
        return self._file.byte_count

    def lines(self) -> Iterator[ParsedLine]:
        """All records.

        Raises:
            UnreadableFileError: the rest of the file cannot be told apart.
        """
        raw_lines = self._raw_lines()
        first_line = next((line for line in raw_lines if self._has_content(line.removeprefix(_UTF_8_BOM).strip())), b"")
        if first_line.startswith(_GZIP_MAGIC):
            raise UnreadableFileError("The file is packed twice. Unpack it once.")
        if first_line.startswith(_ZIP_MAGIC):
            raise UnreadableFileError("The file is an Excel workbook. Save it as “CSV UTF-8”.")
        if first_line.startswith(_UTF_16_BOMS):
            raise UnreadableFileError("The file is in UTF-16. Save it in UTF-8: in Excel, as “CSV UTF-8”.")
        first_line = first_line.removeprefix(_UTF_8_BOM)
        if first_line.lstrip().startswith(b"["):
            raise UnreadableFileError(
                "The file is one JSON array. Have a record a line instead: ask the list with `Accept: "
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
            raise self._unreadable_error("is the last that can be unpacked: the file is damaged or cut off") from None

    def _has_content(self, content: object) -> bool:
        """Whether a line has a record. Those that have none are counted: each costs time, and takes a bit of a gzip.

        Raises:
            UnreadableFileError: they are too many.
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
            return ParsedLine(self._line_number, None, (FieldError((), "The line is no JSON object", "json"),))
        return ParsedLine(self._line_number, self._layout.with_link_ids(record))

    def _csv_lines(self, first: bytes, rest: Iterator[bytes]) -> Iterator[ParsedLine]:
        header = self._decode(first)
        if header.startswith("sep="):  # Excel's own way to say it
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
                if self._has_content("".join(cells).strip()):  # spreadsheets end with rows of nothing
                    yield self._line_from_csv(first_line_number, names, cells)
        except csv.Error:
            message = (
                "has a cell whose quotation marks or line ends are wrong: marks go around the whole cell and are "
                "doubled in it, and a line ends with LF or CRLF"
            )
            raise self._unreadable_error(message) from None

    def _decode(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise self._unreadable_error("is not in UTF-8. Save the file in UTF-8: in Excel, as “CSV UTF-8”") from None

    def _column_names(self, cells: list[str]) -> list[str]:
        names = [cell.strip() for cell in cells]
        while names and not names[-1]:  # spreadsheets have columns of nothing, too
            names.pop()
        allowed = self._layout.columns
        # a file without a header begins with somebody's data: what is said of it is where it stands
        is_header = 2 * sum(name in allowed for name in names) >= len(names)
        for column_number, name in enumerate(names, start=1):
            if name not in allowed:
                shown_name = f", {name}," if is_header and _COLUMN_NAME_PATTERN.fullmatch(name) else ""
                raise self._unreadable_error(
                    f"has to name the columns. Column {column_number}{shown_name} is none of: {', '.join(allowed)}"
                )
            if names.index(name) != column_number - 1:
                raise self._unreadable_error(f"names column {name} twice")
        return names

    def _line_from_csv(self, line_number: int, names: list[str], cells: list[str]) -> ParsedLine:
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()
        if len(cells) != len(names):
            message = f"Has {len(cells)} cells, and there are {len(names)} columns"
            return ParsedLine(line_number, None, (FieldError((), message, "cells"),))
        for name, cell in zip(names, cells, strict=True):
            if not cell.isascii() and any("\udc80" <= character <= "\udcff" for character in cell):
                return ParsedLine(line_number, None, (FieldError((name,), NOT_UTF_8_MESSAGE, "encoding"),))
        return ParsedLine(
            line_number, self._layout.from_csv_row(dict(zip(names, map(unescape_formula, cells), strict=True)))
        )
