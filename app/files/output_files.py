"""The files that commands write.

A symbolic link to a regular file is rejected, because another user may have created it.
"""

import errno
import gzip
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

SYMBOLIC_LINK_MESSAGE = "It is a symbolic link. Specify the file that it points to"


def no_symlink_opener(path: str, flags: int) -> int:
    """Open a file for writing, and return its file descriptor. Pass this function as the `opener` of `open`.

    The file may be a pipe or a device. A regular file is created, or truncated if it exists. A symbolic link is
    followed only if it does not point to a regular file. For example, `/dev/stdout` may be such a link.

    Raises:
        OSError: the file cannot be opened, or the path is a symbolic link to a regular file.
    """
    base_flags = flags & ~(os.O_CREAT | os.O_TRUNC)
    try:
        descriptor = os.open(path, base_flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        is_link = False
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        descriptor = os.open(path, base_flags)
        is_link = True
    # checks the file that was opened, because the name may refer to a different file by now
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        if is_link:
            os.close(descriptor)
            raise OSError(errno.ELOOP, SYMBOLIC_LINK_MESSAGE)
        os.ftruncate(descriptor, 0)
    return descriptor


class UnwritableFileError(Exception):
    """A file or directory cannot be written. The message says why."""


def make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable_error(directory, error) from None


def _unwritable_error(path: Path | None, error: OSError) -> UnwritableFileError:
    return UnwritableFileError(f"{path or 'The output'} cannot be written: {error.strerror}.")


@contextmanager
def open_output(path: Path | None) -> Iterator[BinaryIO]:
    """Open an output file, or standard output if `path` is None.

    A regular file is readable only by its owner. It gets its final name only when it is complete.
    """
    try:
        if path is None:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif path.exists() and not path.is_file():  # a pipe or a device
            with open(path, "wb", opener=no_symlink_opener) as file:  # Path.open has no opener
                yield file
        else:
            with _replace_atomically(path.absolute()) as file:
                yield file
    except BrokenPipeError:
        if path is None:
            # otherwise the flush at exit would fail, too (see the note on SIGPIPE in the Python documentation)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UnwritableFileError("The reader has closed the output: the export is incomplete.") from None
    except OSError as error:
        raise _unwritable_error(path, error) from None


@contextmanager
def _replace_atomically(path: Path) -> Iterator[BinaryIO]:
    if path.is_symlink():  # a link that is created after this check is replaced, not followed
        raise OSError(errno.ELOOP, SYMBOLIC_LINK_MESSAGE)
    # the name is chosen before the file is created, so that the file is removed even if `open` is interrupted
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb", opener=_owner_only_opener) as file:
            if path.suffix == ".gz":
                # no timestamp, so that exports of the same records are identical
                with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as gzip_file:
                    yield gzip_file  # type: ignore[misc]  # a file opened for writing
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _owner_only_opener(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
