"""The directory in which the processes of one service share their metrics, and files of locks.

The environment variable with the directory's path must be set before `app.observability.metrics` is imported.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

MULTIPROCESS_DIRECTORY_ENV = "PROMETHEUS_MULTIPROC_DIR"
"""Name of the environment variable with the path of the directory. prometheus_client defines the name. If the variable
is set, prometheus_client stores the values of metrics in files in the directory."""


def shared_directory() -> Path | None:
    """Return the directory that the workers of this service share, or None if there is only one."""
    directory = os.environ.get(MULTIPROCESS_DIRECTORY_ENV)
    return Path(directory) if directory else None


@contextmanager
def multiprocess_directory() -> Iterator[None]:
    """Create a directory in which this process and its children share their metrics, and remove it at the end.

    Raises:
        OSError: no directory for temporary files is available.
    """
    with TemporaryDirectory(prefix="patients-api-metrics-") as directory:
        os.environ[MULTIPROCESS_DIRECTORY_ENV] = directory
        try:
            yield
        finally:
            del os.environ[MULTIPROCESS_DIRECTORY_ENV]
