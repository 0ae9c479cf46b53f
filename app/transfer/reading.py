"""Reading files of records: CSV or NDJSON, plain or gzip, from a file or a pipe, line by line in little memory."""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from app.errors import FieldError
from app.http.middleware import MAX_BODY
from app.strict_json import NotJSONError, parse
from app.transfer.formulas import unguarded
from app.transfer.layout import Layout

MOST_BYTES = MAX_BODY
"""Of one line: what the API takes as one body."""
MAX_BLANK_LINES = 1_048_576
"""In a file: as many rows as a worksheet of Excel has, all of which a spreadsheet may save."""
FREE_BYTES = 16 * 1024 * 1024
MAX_EXPANSION = 100
"""Of a gzip, bytes to which each byte may expand, beyond `FREE_BYTES`: whole registers have 5 to 20, bombs 1,000."""
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_ZIP = b"PK\x03\x04"
"""With which a workbook of Excel begins: it is an archive."""
NOT_UTF_8 = "Is not in UTF-8. Save the file in UTF-8: in Excel, as “CSV UTF-8”"
_COLUMN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}")


class UnreadableFileError(Exception):
    """The file cannot be read as what it seems to be; the message tells where, and what to do."""


class Line(NamedTuple):
    """A record as the file has it."""

    number: int
    """Of the line in which it begins, from 1."""
    record: dict[str, Any] | None
    """The body of a request; none where there is only an error."""
    errors: tuple[FieldError, ...] = ()


class _Counted(io.RawIOBase):
    """A file, with how many bytes of it were read: a pipe cannot tell."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read: int = self._file.readinto(buffer)
        self.count += read
        return read


class _Unpacked(_Counted):
    """What a gzip expands to, which is bounded by how much of it was read."""

    def __init__(self, packed: "io.BufferedReader[_Counted]", source: _Counted) -> None:
        super().__init__(gzip.GzipFile(fileobj=packed))
        self._source = source

    def readinto(self, buffer: Any) -> int:
        read = super().readinto(buffer)
        if self.count > FREE_BYTES + MAX_EXPANSION * self._source.count:
            raise UnreadableFileError(
                f"The file expands to more than {MAX_EXPANSION} times its size. If that is right, unpack it first."
            )
        return read


class Source:
    """A file that is read once, from its beginning to its end."""

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        self._file = _Counted(file)
        self._layout = layout
        # a pipe has no place to go back to, so that what was looked at must stay in a buffer
        whole = io.BufferedReader(self._file)
        packed = whole.peek(2).startswith(_GZIP)
        self._text = io.BufferedReader(_Unpacked(whole, self._file)) if packed else whole
        self._number = 0
        self._blank_lines = 0

    @property
    def position(self) -> int:
        """How many bytes of the file have been read."""
        return self._file.count

    def lines(self) -> Iterator[Line]:
        """All records.

        Raises:
            UnreadableFileError: the rest of the file cannot be told apart.
        """
        raw = self._raw_lines()
        first = next((line for line in raw if self._says_something(line.removeprefix(_BOM).strip())), b"")
        if first.startswith(_GZIP):
            raise UnreadableFileError("The file is packed twice. Unpack it once.")
        if first.startswith(_ZIP):
            raise UnreadableFileError("The file is an Excel workbook. Save it as “CSV UTF-8”.")
        if first.startswith(_UTF_16):
            raise UnreadableFileError("The file is in UTF-16. Save it in UTF-8: in Excel, as “CSV UTF-8”.")
        first = first.removeprefix(_BOM)
        if first.lstrip().startswith(b"["):
            raise UnreadableFileError(
                "The file is one JSON array. Have a record a line instead: ask the list with `Accept: "
                "application/x-ndjson`."
            )
        as_json = first.lstrip().startswith(b"{")
        return self._from_json(first, raw) if as_json else self._from_csv(first, raw)

    def _raw_lines(self) -> Iterator[bytes]:
        try:
            while line := self._text.readline(MOST_BYTES + 1):
                self._number += 1
                if len(line) > MOST_BYTES:
                    raise self._unreadable("is longer than 1 MiB")
                yield line
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise self._unreadable("is the last that can be unpacked: the file is damaged or cut off") from None

    def _says_something(self, content: object) -> bool:
        """Whether a line has a record. Those that have none are counted: each costs time, and takes a bit of a gzip.

        Raises:
            UnreadableFileError: they are too many.
        """
        if not content:
            self._blank_lines += 1
            if self._blank_lines > MAX_BLANK_LINES:
                raise self._unreadable(f"is one of more than {MAX_BLANK_LINES:,} blank lines. Remove them")
        return bool(content)

    def _unreadable(self, what: str) -> UnreadableFileError:
        return UnreadableFileError(f"Line {self._number} {what}.")

    def _from_json(self, first: bytes, rest: Iterator[bytes]) -> Iterator[Line]:
        line = first
        while line:
            if self._says_something(line.strip()):
                try:
                    yield self._of_json(parse(line.rstrip(), one_line=True))
                except NotJSONError as error:
                    yield Line(self._number, None, (FieldError((), f"The line {error}", "json"),))
            line = next(rest, b"")

    def _of_json(self, record: Any) -> Line:
        if not isinstance(record, dict):
            return Line(self._number, None, (FieldError((), "The line is no JSON object", "json"),))
        return Line(self._number, self._layout.relinked(record))

    def _from_csv(self, first: bytes, rest: Iterator[bytes]) -> Iterator[Line]:
        header = self._decode(first)
        if header.startswith("sep="):  # Excel's own way to say it
            header = self._decode(next(rest, b""))
        separator = max(";", "\t", ",", key=header.count)

        csv.field_size_limit(MOST_BYTES)
        row_bytes = 0

        def text() -> Iterator[str]:
            nonlocal row_bytes
            yield header
            for line in rest:
                row_bytes += len(line)
                if row_bytes > MOST_BYTES:
                    raise self._unreadable(
                        "belongs to a record that is longer than 1 MiB: its quotation marks are wrong"
                    )
                yield line.decode(errors="surrogateescape")

        rows = csv.reader(text(), delimiter=separator, strict=True)
        try:
            names = self._names(next(rows, []))
            while True:
                begins, row_bytes = self._number + 1, 0
                cells = next(rows, None)
                if cells is None:
                    return
                if self._says_something("".join(cells).strip()):  # spreadsheets end with rows of nothing
                    yield self._of_csv(begins, names, cells)
        except csv.Error:
            message = (
                "has a cell whose quotation marks or line ends are wrong: marks go around the whole cell and are "
                "doubled in it, and a line ends with LF or CRLF"
            )
            raise self._unreadable(message) from None

    def _decode(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise self._unreadable("is not in UTF-8. Save the file in UTF-8: in Excel, as “CSV UTF-8”") from None

    def _names(self, cells: list[str]) -> list[str]:
        names = [cell.strip() for cell in cells]
        while names and not names[-1]:  # spreadsheets have columns of nothing, too
            names.pop()
        allowed = self._layout.columns
        # a file without a header begins with somebody's data: what is said of it is where it stands
        is_header = 2 * sum(name in allowed for name in names) >= len(names)
        for place, name in enumerate(names, start=1):
            if name not in allowed:
                shown = f", {name}," if is_header and _COLUMN_NAME.fullmatch(name) else ""
                raise self._unreadable(
                    f"has to name the columns. Column {place}{shown} is none of: {', '.join(allowed)}"
                )
            if names.index(name) != place - 1:
                raise self._unreadable(f"names column {name} twice")
        return names

    def _of_csv(self, number: int, names: list[str], cells: list[str]) -> Line:
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()
        if len(cells) != len(names):
            message = f"Has {len(cells)} cells, and there are {len(names)} columns"
            return Line(number, None, (FieldError((), message, "cells"),))
        for name, cell in zip(names, cells, strict=True):
            if not cell.isascii() and any("\udc80" <= character <= "\udcff" for character in cell):
                return Line(number, None, (FieldError((name,), NOT_UTF_8, "encoding"),))
        return Line(number, self._layout.record(dict(zip(names, map(unguarded, cells), strict=True))))
