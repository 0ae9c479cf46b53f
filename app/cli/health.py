"""`patients-api health`: check whether a service is ready, for the health check of a container.

The command imports only a few modules, because it runs every few seconds. It uses no proxy, because the service is on
this machine.
"""

import argparse
import http.client
import sys
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 3
"""Seconds after which the connection attempt or a read of the response fails."""

USER_ERRORS = ()


def run(arguments: argparse.Namespace) -> int:
    """Request `/readyz`, and return 0 if the service is ready, or print the reason to stderr and return 1."""
    try:
        connection = http.client.HTTPConnection(urlsplit(arguments.url).netloc, timeout=TIMEOUT_SECONDS)
        connection.request("GET", "/readyz")
        response = connection.getresponse()
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"{arguments.url}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return 1
    if response.status != http.client.NO_CONTENT:
        print(f"{response.status} {response.reason}", file=sys.stderr)
        return 1
    return 0
