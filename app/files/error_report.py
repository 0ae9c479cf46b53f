"""The report of the errors in imported files: the first ones for the terminal, and all in a CSV file."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from app.counts import counted
from app.files.input_files import STANDARD_INPUT
from app.files.output_files import no_symlink_opener
from app.staging.results import RowError
from app.table_files.errors import UnreadableFileError

MAX_SHOWN_ERRORS = 20
"""Maximum number of errors that are printed. With `--errors`, all errors are also written to a file."""


def open_errors_file(path: Path, input_paths: Sequence[str]) -> TextIO:
    """Open the file to which all errors are written. The file must not be one of the input files."""
    if path.exists() and any(path.samefile(file) for file in input_paths if file != STANDARD_INPUT):
        raise UnreadableFileError(f"{path} is a file to be imported: write the errors to another file.")
    try:
        return open(path, "w", newline="", encoding="utf-8", opener=no_symlink_opener)  # Path.open has no opener
    except OSError as error:
        raise _unwritable_error(str(path), error) from None


def _unwritable_error(name: str, error: OSError) -> UnreadableFileError:
    return UnreadableFileError(f"{name} cannot be written: {error.strerror}. Nothing was stored.")


class ErrorReport:
    """Keeps the first errors of an import for the terminal. Writes all errors to a CSV file if there is one."""

    def __init__(self, file: TextIO | None) -> None:
        """Report errors. `file` is an open file for all errors, or None."""
        self._count = 0
        self._first_messages: list[str] = []
        self._file = file
        self._write_rows([["file", "line", "field", "message", "type"]])

    def add(self, path: str, errors: Sequence[RowError]) -> None:
        """Add errors in the lines of the input file at `path`."""
        rows: list[list[object]] = [
            [path, line, ".".join(map(str, loc)), message, kind] for line, (loc, message, kind), _ in errors
        ]
        for _, line, field, message, _ in rows[: MAX_SHOWN_ERRORS - len(self._first_messages)]:
            self._first_messages.append(f"{path}: line {line}: {f'{field}: ' if field else ''}{message}")
        self._write_rows(rows)
        self._count += len(errors)

    def close(self) -> None:
        """Write the errors that are still buffered, and close the file if there is one."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                raise _unwritable_error(self._file.name, error) from None

    def first_messages(self) -> Iterator[str]:
        """Yield the messages of the first errors, and the number of further errors."""
        yield from self._first_messages
        if self._count > len(self._first_messages):
            hint = "" if self._file is not None else "; --errors FILE lists them all"
            more = self._count - len(self._first_messages)
            yield f"… and {counted(more, 'more error')}{hint}."

    def _write_rows(self, rows: list[list[object]]) -> None:
        if self._file is not None:
            try:
                csv.writer(self._file).writerows(rows)
            except OSError as error:
                raise _unwritable_error(self._file.name, error) from None
