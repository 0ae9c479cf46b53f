"""`patients-api import`: bring records in from files."""

import argparse
import csv
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from rich.progress import Progress
from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.database import OUT_OF_REACH, in_transaction
from app.cli.progress import progress
from app.errors import ConflictError
from app.transfer.importing import Tally, load
from app.transfer.layout import Layout
from app.transfer.reading import Source, UnreadableFileError
from app.transfer.resources import RESOURCES
from app.transfer.staging import Fate, Fault

EXPECTED = (*OUT_OF_REACH, ConflictError, UnreadableFileError)
MOST_SHOWN = 20
"""Errors on the terminal; `--errors` writes all."""
STANDARD_INPUT = "-"


class _UndoneError(Exception):
    """The transaction is to be undone; all that is to be said of it is known."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="CSV or NDJSON, plain or gzip; - for standard input; or a directory that `export --directory` has made",
    )
    parser.add_argument(
        "--resource", choices=RESOURCES, help="what it holds (by the file's name, as doctors.csv; else patients)"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, store nothing")
    parser.add_argument("--errors", type=Path, metavar="CSV", help="write all errors into this file")
    parser.add_argument(
        "--on-error",
        choices=["stop", "skip"],
        default="stop",
        help="where lines are wrong, store nothing, or the others (%(default)s)",
    )
    parser.add_argument(
        "--update", action="store_true", help="change records that are there already; a blank cell clears its field"
    )


def run(arguments: argparse.Namespace) -> int:
    """Import all files in one transaction; 0, or 1 where lines are wrong."""
    files = list(_files(arguments.file, arguments.resource))
    with ExitStack() as stack:
        errors = _Errors(stack.enter_context(_written(arguments.errors)) if arguments.errors else None)
        shown = _Import(errors, stack.enter_context(progress()))

        async def work(connection: AsyncConnection) -> None:
            for resource, path in files:
                await shown.load(connection, resource, path, update=arguments.update)
            if arguments.dry_run or (shown.wrong and arguments.on_error == "stop"):
                raise _UndoneError

        try:
            in_transaction(work)
            stored = True
        except _UndoneError:
            stored = False
    errors.end()
    shown.conclude(stored=stored)
    return 1 if shown.wrong else 0


class _Import:
    """An import, as a person sees it."""

    def __init__(self, errors: "_Errors", bar: Progress) -> None:
        self._errors = errors
        self._bar = bar
        self._tallies: dict[str, Tally] = {}

    @property
    def wrong(self) -> int:
        """How many lines are wrong."""
        return sum(tally.wrong for tally in self._tallies.values())

    async def load(self, connection: AsyncConnection, resource: str, path: str, *, update: bool) -> None:
        """Import one file."""
        layout = Layout(RESOURCES[resource].service.repository_class)
        with _opened(path) as (file, size):
            task = self._bar.add_task(resource, total=size, records=0)

            def report(tally: Tally, faults: Sequence[Fault], position: int) -> None:
                self._bar.update(task, completed=position, records=tally.lines)
                self._errors.add(path, faults)

            try:
                self._tallies[path] = await load(connection, resource, Source(file, layout), report, update=update)
            except UnreadableFileError as error:
                raise UnreadableFileError(f"{path}: {error} Nothing was stored.") from None

    def conclude(self, *, stored: bool) -> None:
        """Say what has become of it."""
        for path, tally in self._tallies.items():
            fates = ", ".join(f"{tally.fates[fate]:,} {'' if stored else 'to be '}{fate}" for fate in Fate)
            print(f"{path}: {tally.lines:,} records: {fates}, {tally.wrong:,} wrong")
        if stored:
            print("Stored, but for what is wrong." if self.wrong else "Stored.")
        else:
            print("Nothing was stored." + (" Mend what is wrong, or skip it by --on-error skip." if self.wrong else ""))


def _files(given: str, resource: str | None) -> Iterator[tuple[str, str]]:
    """The files to import, each with what it holds, in the order in which they refer to each other."""
    directory = Path(given)
    if given == STANDARD_INPUT or not directory.is_dir():
        name = directory.name.partition(".")[0]
        yield resource or (name if name in RESOURCES else "patients"), given
        return
    found = [(name, str(path)) for name in RESOURCES for path in sorted(directory.glob(f"{name}.*"))]
    if not found:
        raise UnreadableFileError(f"{given} has none of: {', '.join(f'{name}.…' for name in RESOURCES)}")
    if len(found) > len(dict(found)):
        raise UnreadableFileError(f"{given} has several files of one resource: import them one by one.")
    yield from found


@contextmanager
def _opened(path: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """A file, and how many bytes it has, if that is known."""
    if path == STANDARD_INPUT:
        yield FileIO(0, closefd=False), None
        return
    try:
        with Path(path).open("rb", buffering=0) as file:
            yield file, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be read: {error.strerror}.") from None


@contextmanager
def _written(path: Path) -> Iterator[TextIO]:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be written: {error.strerror}.") from None


class _Errors:
    """Shows the first errors, and writes all of them where that is wanted."""

    def __init__(self, file: TextIO | None) -> None:
        self._count = 0
        self._writer: Any = csv.writer(file) if file is not None else None
        if self._writer is not None:
            self._writer.writerow(["file", "line", "field", "message", "type"])

    def add(self, path: str, faults: Sequence[Fault]) -> None:
        for line, (loc, message, kind) in faults:
            place = ".".join(map(str, loc))
            if self._count < MOST_SHOWN:
                print(f"{path}: line {line}: {f'{place}: ' if place else ''}{message}", file=sys.stderr)
            if self._writer is not None:
                self._writer.writerow([path, line, place, message, kind])
            self._count += 1

    def end(self) -> None:
        if self._count > MOST_SHOWN:
            rest = "" if self._writer is not None else "; --errors FILE lists them all"
            print(f"… and {self._count - MOST_SHOWN:,} more errors{rest}.", file=sys.stderr)
