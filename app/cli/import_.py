"""`patients-api import`: bring records in from files."""

import argparse
import csv
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Self, TextIO

from rich.progress import Progress
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.database import OUT_OF_REACH, on_database
from app.cli.interruption import end_as_on_ctrl_c
from app.cli.progress import progress
from app.cli.wording import noun
from app.cli.writing import without_links
from app.db.session import Database
from app.errors import ConflictError
from app.models import journal
from app.transfer.exporting import FORMATS
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


class _Left(StrEnum):
    """What there is of an import that was interrupted."""

    NOTHING = "nothing was stored."
    UNKNOWN = "it was just being stored. Look whether it is there: all of it is, or nothing."
    EVERYTHING = "all that is right was stored before."


class _Interruption:
    """Says what is left where an import is interrupted."""

    left = _Left.NOTHING

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            print(f"Interrupted: {self.left}", file=sys.stderr)


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
    end_as_on_ctrl_c()
    files = list(_files(arguments.file, arguments.resource))
    with ExitStack() as stack:
        interruption = stack.enter_context(_Interruption())
        errors = _Errors(_written(arguments.errors, [path for _, path in files]) if arguments.errors else None)
        stack.callback(errors.show)
        shown = _Import(errors, stack.enter_context(progress()))

        async def store(connection: AsyncConnection) -> None:
            for resource, path in files:
                await shown.load(connection, resource, path, update=arguments.update)
            errors.close()  # before anything is stored: where it cannot be written nothing is
            if arguments.dry_run or (shown.wrong and arguments.on_error == "stop"):
                raise _UndoneError
            interruption.left = _Left.UNKNOWN

        async def work(database: Database) -> None:
            # once: what was read from a pipe cannot be read again
            await database.transaction(store, attempts=1)
            interruption.left = _Left.EVERYTHING
            # what others have planned was for tables without these records; PostgreSQL ignores it of who may not
            await database.write(text(f"ANALYZE {', '.join(_tables(files))}"), {})

        try:
            on_database(work)
            stored = True
        except _UndoneError:
            stored = False
    shown.conclude(stored=stored)
    return 1 if shown.wrong else 0


def _tables(files: Iterable[tuple[str, str]]) -> set[str]:
    """The tables that are written."""
    repositories = [RESOURCES[resource].service.repository_class for resource, _ in files]
    links = {relation.link.name for repository in repositories for relation in repository.links.values()}
    return {repository.table.name for repository in repositories} | links | {journal.name}


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
            print(f"{path}: {tally.lines:,} {noun(tally.lines, 'record')}: {fates}, {tally.wrong:,} wrong")
        if stored:
            print("Stored, but for what is wrong." if self.wrong else "Stored.")
        else:
            print("Nothing was stored." + (" Mend what is wrong, or skip it by --on-error skip." if self.wrong else ""))


def _files(given: str, resource: str | None) -> Iterator[tuple[str, str]]:
    """The files to import, each with what it holds, in the order in which they refer to each other."""
    directory = Path(given)
    if given != STANDARD_INPUT and not directory.exists():
        raise UnreadableFileError(f"{given} cannot be read: there is no such file.")
    if given == STANDARD_INPUT or not directory.is_dir():
        name = directory.name.partition(".")[0]
        yield resource or (name if name in RESOURCES else "patients"), given
        return
    # nothing else that may lie about: what a killed export has left, or an editor
    names = {name: [f"{name}.{form}{packed}" for form in FORMATS for packed in ("", ".gz")] for name in RESOURCES}
    found = [(name, str(directory / file)) for name in names for file in names[name] if (directory / file).is_file()]
    if not found:
        raise UnreadableFileError(
            f"{given} has none of: {', '.join(f'{name}.csv' for name in RESOURCES)} (or .ndjson)."
        )
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
        file = Path(path).open("rb", buffering=0)  # noqa: SIM115  # closed below, where errors are not of opening it
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be read: {error.strerror}.") from None
    with file:
        yield file, os.fstat(file.fileno()).st_size


def _written(path: Path, files: Sequence[str]) -> TextIO:
    """The file for errors; none of those that are imported."""
    if path.exists() and any(path.samefile(file) for file in files if file != STANDARD_INPUT):
        raise UnreadableFileError(f"{path} is to be imported: write the errors into another file.")
    try:
        return open(path, "w", newline="", encoding="utf-8", opener=without_links)  # Path's has no opener
    except OSError as error:
        raise _cannot_be_written(str(path), error) from None


def _cannot_be_written(name: str, error: OSError) -> UnreadableFileError:
    return UnreadableFileError(f"{name} cannot be written: {error.strerror}. Nothing was stored.")


class _Errors:
    """Keeps the first errors for the terminal, and writes all of them where that is wanted."""

    def __init__(self, file: TextIO | None) -> None:
        self._count = 0
        self._first: list[str] = []
        self._file = file
        self._write([["file", "line", "field", "message", "type"]])

    def add(self, path: str, faults: Sequence[Fault]) -> None:
        """Take the errors of a file."""
        rows: list[list[object]] = [
            [path, line, ".".join(map(str, loc)), message, kind] for line, (loc, message, kind) in faults
        ]
        for _, line, place, message, _ in rows[: MOST_SHOWN - len(self._first)]:
            self._first.append(f"{path}: line {line}: {f'{place}: ' if place else ''}{message}")
        self._write(rows)
        self._count += len(faults)

    def close(self) -> None:
        """Write what is not written yet."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                raise _cannot_be_written(self._file.name, error) from None

    def show(self) -> None:
        """Show the first ones, when no progress is shown any more."""
        for line in self._first:
            print(line, file=sys.stderr)
        if self._count > len(self._first):
            rest = "" if self._file is not None else "; --errors FILE lists them all"
            more = self._count - len(self._first)
            print(f"… and {more:,} more {noun(more, 'error')}{rest}.", file=sys.stderr)

    def _write(self, rows: list[list[object]]) -> None:
        if self._file is not None:
            try:
                csv.writer(self._file).writerows(rows)
            except OSError as error:
                raise _cannot_be_written(self._file.name, error) from None
