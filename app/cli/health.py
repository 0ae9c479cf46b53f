"""`patients-api health`: whether a service answers; for the container's health check."""

import argparse
import sys
import urllib.error
import urllib.request

from app.settings import Settings

TIMEOUT = 3


EXPECTED = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where it listens (%(default)s)")


def run(arguments: argparse.Namespace, _: Settings) -> int:
    """Ask `/readyz`; 0 if it is ready, or 1 with the reason on stderr."""
    try:
        with urllib.request.urlopen(f"{arguments.url}/readyz", timeout=TIMEOUT):  # noqa: S310  # the operator's own URL
            return 0
    except (urllib.error.URLError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
