"""The files that a command imports: one file, standard input, or a directory with a file for each resource."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from app.table_files.errors import UnreadableFileError
from app.transfer.exporting import FORMATS
from app.transfer.resources import RESOURCES

STANDARD_INPUT = "-"


def input_files(path: str, resource: str | None) -> Iterator[tuple[str, str]]:
    """Yield the resource and the path of each file to import. `path` is a file, a directory or `-`.

    Files from a directory are ordered so that records are imported after the records that they refer to.
    """
    directory = Path(path)
    if path != STANDARD_INPUT and not directory.exists():
        raise UnreadableFileError(f"{path} cannot be read: there is no such file.")
    if path == STANDARD_INPUT or not directory.is_dir():
        name = directory.name.partition(".")[0]
        yield resource or (name if name in RESOURCES else "patients"), path
        return
    # files with other names are ignored, because a killed export or an editor may have left them
    names = {
        name: [f"{name}.{format_name}{suffix}" for format_name in FORMATS for suffix in ("", ".gz")]
        for name in RESOURCES
    }
    existing_files = [
        (name, str(directory / file)) for name in names for file in names[name] if (directory / file).is_file()
    ]
    if not existing_files:
        raise UnreadableFileError(
            f"{path} contains none of: {', '.join(f'{name}.csv' for name in RESOURCES)} (or .ndjson)."
        )
    if len(existing_files) > len(dict(existing_files)):
        raise UnreadableFileError(f"{path} has several files of one resource: import them one at a time.")
    yield from existing_files


@contextmanager
def open_input(path: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open an input file, and yield it with its size in bytes. The size of standard input is None."""
    if path == STANDARD_INPUT:
        yield FileIO(0, closefd=False), None
        return
    try:
        file = Path(path).open("rb", buffering=0)  # noqa: SIM115  # closed below, outside of the handler for errors in opening it
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be read: {error.strerror}.") from None
    with file:
        yield file, os.fstat(file.fileno()).st_size


@contextmanager
def naming_file(path: str) -> Iterator[None]:
    """Put the path of a file in front of the message if the file cannot be read."""
    try:
        yield
    except UnreadableFileError as error:
        raise UnreadableFileError(f"{path}: {error} Nothing was stored.") from None
