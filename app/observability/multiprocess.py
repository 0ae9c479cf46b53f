"""The directory in which several processes share their metrics. It must be set before `metrics` is imported."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

MULTIPROCESS_DIRECTORY_ENV = "PROMETHEUS_MULTIPROC_DIR"
"""The variable with the directory, as prometheus_client names it; if set, values are stored in files there."""


@contextmanager
def multiprocess_directory() -> Iterator[None]:
    """Make this process and its children share their metrics in a new directory, which is removed afterwards.

    Raises:
        OSError: there is no directory for temporary files.
    """
    with TemporaryDirectory(prefix="patients-api-metrics-") as directory:
        os.environ[MULTIPROCESS_DIRECTORY_ENV] = directory
        try:
            yield
        finally:
            del os.environ[MULTIPROCESS_DIRECTORY_ENV]
