"""`patients-api export`: write records into files."""

import argparse
import errno
import gzip
import os
import secrets
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, aclosing, contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from app.audit.trail import Trail, command_row
from app.cli.database import OUT_OF_REACH, on_database
from app.cli.interruption import end_as_on_ctrl_c
from app.cli.progress import progress
from app.cli.wording import noun
from app.cli.writing import LINK, without_links
from app.db.session import Database
from app.http.problems import field_errors
from app.resource.pages import ListParameters
from app.resource.wanted import Wanted
from app.settings import Settings
from app.transfer.exporting import EXPORT, FORMATS, Export
from app.transfer.layout import Layout
from app.transfer.resources import RESOURCES

PERSONAL = ("patients", "profiles")
"""Looks at these are put on record."""


class CannotExportError(Exception):
    """A filter or a file cannot be used; the message tells what to change."""


EXPECTED = (*OUT_OF_REACH, CannotExportError)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--resource", choices=RESOURCES, default="patients", help="what to export (%(default)s)")
    parser.add_argument(
        "--format", choices=FORMATS, help="a document a line, or a table (by the file's name; else ndjson)"
    )
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="only what a filter of the list lets through, as hospital_id=hos123; may be repeated",
    )
    to = parser.add_mutually_exclusive_group()
    to.add_argument("--output", type=_file, metavar="FILE", help="where to (-, standard output); .gz is packed")
    to.add_argument("--directory", type=Path, help="everything, a file for each resource, for `import DIRECTORY`")


def _file(text: str) -> Path | None:
    return None if text == "-" else Path(text)


def run(arguments: argparse.Namespace) -> int:
    """Export as of one moment; 0."""
    settings = Settings.load()
    end_as_on_ctrl_c()  # what is not whole is removed
    form_name: str = arguments.format or _named(arguments.output)
    names = list(RESOURCES) if arguments.directory else [arguments.resource]
    if arguments.directory and arguments.filter:
        raise CannotExportError("A filter is of one resource: it does not go with --directory.")
    wanted = _wanted(RESOURCES[arguments.resource].parameters, arguments.filter, settings.phone_region)
    counts: dict[str, int] = {}
    if arguments.directory:
        _make(arguments.directory)
    with ExitStack() as stack:
        to_terminal = not (arguments.directory or arguments.output) and sys.stdout.isatty()
        bar = stack.enter_context(progress(hidden=to_terminal))
        files = {name: stack.enter_context(_opened(_path(arguments, name, form_name))) for name in names}

        async def work(database: Database) -> None:
            trail = Trail(database)
            async with database.snapshot() as connection:
                for name, file in files.items():
                    export = Export(connection, RESOURCES[name], wanted)
                    form = FORMATS[form_name](Layout(RESOURCES[name].service.repository_class))
                    task = bar.add_task(name, total=await export.count(), records=0)
                    file.write(form.heading.encode())
                    counts[name] = 0
                    async with aclosing(export.batches()) as batches:
                        async for records in batches:
                            if name in PERSONAL:
                                # on record before anybody has it
                                await trail.write(command_row(EXPORT, name, [record.unique_id for record in records]))
                            file.write(form.text(records).encode())
                            counts[name] += len(records)
                            bar.update(task, completed=counts[name], records=counts[name])

        # a second connection puts looks on record, for the snapshot only reads
        on_database(work, connections=2)
    for name, count in counts.items():
        print(f"{_path(arguments, name, form_name) or name}: {count:,} {noun(count, 'record')}", file=sys.stderr)
    return 0


def _wanted(parameters: type[ListParameters], filters: list[str], phone_region: str) -> Wanted:
    given: Mapping[str, list[str]] = defaultdict(list)
    for each in filters:
        name, sign, value = each.partition("=")
        if not sign:
            raise CannotExportError("A filter is NAME=VALUE, as hospital_id=hos123.")
        given[name].append(value)
    others = {"limit", "cursor", "count", "ordering", "search"}
    if unusable := sorted(others & set(given)):
        raise CannotExportError(f"{unusable[0]} is no filter.")
    try:
        return parameters.model_validate(dict(given)).wanted(phone_region)
    except ValidationError as error:
        places = [f"--filter {'.'.join(map(str, item.loc))}: {item.msg}" for item in field_errors(error)]
        raise CannotExportError("\n".join(places)) from None


def _named(output: Path | None) -> str:
    """The format that a file's name tells."""
    return "csv" if output is not None and ".csv" in output.suffixes else "ndjson"


def _path(arguments: argparse.Namespace, name: str, form: str) -> Path | None:
    directory: Path | None = arguments.directory
    output: Path | None = arguments.output
    return directory / f"{name}.{form}" if directory else output


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_written(directory, error) from None


def _cannot_be_written(path: Path | None, error: OSError) -> CannotExportError:
    return CannotExportError(f"{path or 'The output'} cannot be written: {error.strerror}.")


@contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    """A file that only its owner may read, and that has its name only once it is whole."""
    try:
        if path is None:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif path.exists() and not path.is_file():  # a pipe or a device
            with open(path, "wb", opener=without_links) as file:  # Path's has no opener
                yield file
        else:
            with _replacing(path.absolute()) as file:
                yield file
    except BrokenPipeError:
        if path is None:
            # Python flushes once more when it ends (its documentation of SIGPIPE)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise CannotExportError("Whoever was to read it has gone: the export is not whole.") from None
    except OSError as error:
        raise _cannot_be_written(path, error) from None


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    if path.is_symlink():  # one that comes later is replaced, not followed
        raise OSError(errno.ELOOP, LINK)
    # a name of its own, known before there is such a file: however early this is interrupted, it is removed
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(new, "xb", opener=_for_the_owner) as file:
            if path.suffix == ".gz":
                # without a time: the same records are the same bytes
                with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                    yield packed  # type: ignore[misc]  # a file for writing
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
