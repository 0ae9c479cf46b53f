"""`patients-api health`: whether a service answers; for the container's health check.

It imports little, as it runs every few seconds, and asks no proxy for what is on this machine.
"""

import argparse
import http.client
import sys
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 3
"""Seconds."""

USER_ERRORS = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where it listens (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Ask `/readyz`; 0 if it is ready, or 1 with the reason on stderr."""
    try:
        connection = http.client.HTTPConnection(urlsplit(arguments.url).netloc, timeout=TIMEOUT_SECONDS)
        connection.request("GET", "/readyz")
        response = connection.getresponse()
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"{arguments.url}: {error}", file=sys.stderr)
        return 1
    if response.status != http.client.NO_CONTENT:
        print(f"{response.status} {response.reason}", file=sys.stderr)
        return 1
    return 0
