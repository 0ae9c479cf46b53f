"""Where several processes keep their metrics, so that each can tell of all: known before `metrics` is imported."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

MULTIPROCESS_DIRECTORY_ENV = "PROMETHEUS_MULTIPROC_DIR"
"""Where it names a directory, values are kept in files there. The library's own name for it."""


@contextmanager
def multiprocess_directory() -> Iterator[None]:
    """Have this process and those that it starts share their values, in a directory that is new and removed after.

    Raises:
        OSError: there is no place for temporary files.
    """
    with TemporaryDirectory(prefix="patients-api-metrics-") as directory:
        os.environ[MULTIPROCESS_DIRECTORY_ENV] = directory
        try:
            yield
        finally:
            del os.environ[MULTIPROCESS_DIRECTORY_ENV]
