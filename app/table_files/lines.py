"""The lines of a file: decompressed, decoded and numbered, in constant memory.

The file may be a pipe, which can be read only once. A regular file can be read again from the beginning, by a second
reader with a position of its own.
"""

import codecs
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from app.http.strict_json import MAX_BODY_SIZE_BYTES
from app.table_files.encodings import USUAL_ENCODINGS, encoding_hint
from app.table_files.errors import UnreadableFileError

MAX_LINE_BYTES = MAX_BODY_SIZE_BYTES
"""Maximum size of a line or of a CSV record, in bytes. It is the same as for a request body in the API."""
MAX_BLANK_LINES = 1_048_576
"""Maximum number of blank lines in a file.

It is the number of rows in an Excel worksheet, because spreadsheet programs may save every row.
"""
EXPANSION_ALLOWANCE_BYTES = 16 * 1024 * 1024
"""Number of decompressed bytes that a compressed file may have without regard to its compressed size.

The limit for further bytes is `MAX_EXPANSION_RATIO`.
"""
MAX_EXPANSION_RATIO = 100
"""Maximum number of decompressed bytes per compressed byte, after the first `EXPANSION_ALLOWANCE_BYTES`.

A real patient register expands 5 to 20 times, and a decompression bomb 1,000 times.
"""
SAMPLE_BYTES = 64 * 1024
"""Number of bytes at the beginning of a file that show its format."""
GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGIC = b"PK\x03\x04"
"""The first bytes of a ZIP archive. Every Excel workbook is a ZIP archive."""
_OTHER_FORMATS = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel workbook (.xls), or a workbook that is protected by a password",
    b"%PDF-": "a PDF document",
    b"<": "a web page or XML, whatever its name says",
}
"""Formats that people may expect to be readable, by the first bytes of the file."""
_FIRST_END_PATTERN = re.compile(rb'(?:"[^"]*"|[^"\r\n])*(?P<end>\r\n|\r(?=.)|\n)', re.DOTALL)
"""Matches up to the end of the first line. A quotation mark may enclose other ends of lines."""
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is its beginning
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The encodings by their byte order marks."""


def expansion_error(remedy: str = "decompress it first") -> UnreadableFileError:
    """Return the error of a file that may be a decompression bomb. `remedy` is what to do if the file is intended."""
    return UnreadableFileError(
        f"The file expands to more than {MAX_EXPANSION_RATIO} times its size. If you expect that, {remedy}."
    )


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
            raise expansion_error()
        return size


class _Transcoder(io.RawIOBase):
    """A wrapper of a file in any encoding that reads as UTF-8, with LF at the end of lines that end with CR only.

    If the encoding is None, the bytes stay as they are.
    """

    def __init__(self, file: "io.BufferedReader[Any]", encoding: str | None, *, ends_with_cr: bool) -> None:
        self._file = file
        self._encoding = encoding
        self._decoder = None if encoding is None else codecs.getincrementaldecoder(encoding)()
        self._ends_with_cr = ends_with_cr
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._pending:
            chunk = self._file.read1(SAMPLE_BYTES)
            if self._decoder is not None:
                try:
                    text = self._decoder.decode(chunk, final=not chunk)
                except UnicodeError:
                    raise UnreadableFileError(f"The file is not in the encoding {self._encoding}.") from None
                self._pending = text.encode(errors="surrogatepass")
            else:
                self._pending = chunk
            if self._ends_with_cr:
                self._pending = self._pending.replace(b"\r", b"\n")
            if not chunk:
                break
        size = min(len(buffer), len(self._pending))
        buffer[:size], self._pending = self._pending[:size], self._pending[size:]
        return size


class IndependentReader(io.RawIOBase):
    """A reader of an open regular file with a position of its own, which the file's other readers do not share."""

    def __init__(self, file: Any) -> None:
        self._descriptor: int = file.fileno()
        self._position = 0
        os.pread(self._descriptor, 1, 0)  # raises OSError if the file is a pipe

    def fileno(self) -> int:
        return self._descriptor

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = os.preadv(self._descriptor, [buffer], self._position)
        self._position += size
        return size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence)
        self._position = offset + (os.fstat(self._descriptor).st_size if base is None else base)
        return self._position

    def tell(self) -> int:
        return self._position


def read_independently(file: Any) -> IndependentReader | None:
    """Return a second reader of a file, from its beginning, or None if the file is no regular file on a disk."""
    try:
        return IndependentReader(file)
    except (OSError, AttributeError):
        return None


class LineReader:
    """The lines of a file, as bytes in UTF-8.

    If `encoding` is None and the file has no byte order mark, the bytes are those of the file, because a single line
    may be in the wrong encoding.
    """

    def __init__(self, file: BinaryIO, encoding: str | None = None) -> None:
        self._counter = _CountingReader(file)
        # a pipe cannot seek back, so the bytes that `peek` has read must stay in a buffer
        reader: io.BufferedReader[Any] = io.BufferedReader(self._counter, SAMPLE_BYTES)
        if reader.peek(2).startswith(GZIP_MAGIC):
            reader = io.BufferedReader(_BoundedGzipReader(reader, self._counter), SAMPLE_BYTES)
        self.line_number = 0
        """Number of the line that was read last, counted from 1."""
        self._blank_lines = 0
        self._sample: bytes = self._in_line_one(reader)
        mark = next((mark for mark in _MARKS if self._sample.startswith(mark)), b"")
        self.encoding = _MARKS.get(mark) or encoding
        """The encoding by the file's byte order mark or by the option, or None if the file should be in UTF-8."""
        width = {"utf-16": 2, "utf-32": 4}.get(self.encoding or "", 1)
        text = self._sample if width == 1 else self._sample.replace(b"\0", b"")
        is_text = not self._sample.startswith((GZIP_MAGIC, ZIP_MAGIC, *_OTHER_FORMATS))
        first_end = _FIRST_END_PATTERN.match(text) if is_text else None
        self._ends_with_cr = ends_with_cr = first_end is not None and first_end["end"] == b"\r"
        if mark == codecs.BOM_UTF8:
            reader.read(len(mark))
        decoded_as = None if self.encoding == "utf-8" else self.encoding
        if decoded_as is not None or ends_with_cr:
            reader = io.BufferedReader(_Transcoder(reader, decoded_as, ends_with_cr=ends_with_cr), SAMPLE_BYTES)
        self._reader = reader

    def _in_line_one(self, reader: "io.BufferedReader[Any]") -> bytes:
        self.line_number = 1
        with self._explaining_damage():
            sample: bytes = reader.peek(SAMPLE_BYTES)
        self.line_number = 0
        return sample

    @contextmanager
    def _explaining_damage(self) -> Iterator[None]:
        try:
            yield
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise self.error("is the last that can be decompressed: the file is damaged or cut off") from None

    @property
    def first_bytes(self) -> bytes:
        """The bytes at the beginning of the decompressed file."""
        return self._sample

    @property
    def other_format(self) -> str | None:
        """The name of the file's format if it is a common one that cannot be read."""
        mark = next((mark for mark in _MARKS if self._sample.startswith(mark)), b"")
        first = self._sample.removeprefix(mark).lstrip()
        return next((name for magic, name in _OTHER_FORMATS.items() if first.startswith(magic)), None)

    @property
    def bytes_read(self) -> int:
        """Number of bytes that have been read from the file so far. For a gzip file, these are compressed bytes."""
        return self._counter.byte_count

    def lines(self) -> Iterator[bytes]:
        """Yield the lines.

        Raises:
            UnreadableFileError: a line is too long, or the rest of the file cannot be decompressed or decoded.
        """
        with self._explaining_damage():
            while line := self._reader.readline(MAX_LINE_BYTES + 1):
                self.line_number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise self.error("is longer than 1 MiB")
                yield line

    def has_content(self, content: object) -> bool:
        """Return whether the content of a line is not blank, and count the line if it is blank.

        The number of blank lines is limited, because a blank line takes time to read but only about one bit in a gzip
        file.

        Raises:
            UnreadableFileError: the file has more than `MAX_BLANK_LINES` blank lines.
        """
        if not content:
            self._blank_lines += 1
            if self._blank_lines > MAX_BLANK_LINES:
                raise self.error(f"is one of more than {MAX_BLANK_LINES:,} blank lines. Remove them")
        return bool(content)

    def encoding_hint(self, raw: bytes) -> str:
        """Return a sentence about the encoding that the file may have, judging by text that is not in UTF-8."""
        # only old programs for the Mac end lines with CR
        usual = ["mac_roman", *USUAL_ENCODINGS] if self._ends_with_cr else USUAL_ENCODINGS
        return encoding_hint(self._sample + raw, usual)

    def error(self, problem: str) -> UnreadableFileError:
        """Return the error that the line that was read last has a problem."""
        return UnreadableFileError(f"Line {self.line_number} {problem}.")
