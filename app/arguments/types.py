"""Types of command-line arguments: functions that parse a text, or say what it must be."""

import argparse
import ipaddress
import re
from contextlib import suppress
from datetime import UTC, date, datetime
from urllib.parse import urlsplit

_KEY_NAME = re.compile(r"(?=.{1,64}$)[A-Za-z0-9](?: ?[A-Za-z0-9._@-])*")
"""Names of API keys have no leading, trailing or repeated spaces, because people overlook them."""
_HOST_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
"""Host names contain a letter: what has digits and dots only is a wrong IP address."""


def port_number(text: str) -> int:
    """Return the number of a port.

    Raises:
        argparse.ArgumentTypeError: the text is something else.
    """
    port = int(text) if text.isdecimal() else 0
    if not 0 < port < 2**16:
        raise argparse.ArgumentTypeError("must be a number from 1 to 65535")
    return port


def worker_count(text: str) -> int:
    """Return a number of processes.

    Raises:
        argparse.ArgumentTypeError: the text is something else.
    """
    workers = int(text) if text.isdecimal() else 0
    if workers < 1:
        raise argparse.ArgumentTypeError("must be a number, 1 or more")
    return workers


def host(text: str) -> str:
    """Return an IP address or a host name.

    Raises:
        argparse.ArgumentTypeError: the text is something else.
    """
    with suppress(ValueError):
        return str(ipaddress.ip_address(text))
    if not _HOST_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            "must be an IP address of this machine, such as 127.0.0.1 or 0.0.0.0 (all addresses), or its name"
        )
    return text


def last_day(text: str) -> date:
    """Return a date.

    Raises:
        argparse.ArgumentTypeError: the text is something else.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be a date as YYYY-MM-DD, such as 2030-12-31") from None
    if day < datetime.now(UTC).date():
        raise argparse.ArgumentTypeError("must not be in the past, or the key would never work")
    return day


def service_url(text: str) -> str:
    """Return the URL of a service.

    Raises:
        argparse.ArgumentTypeError: the text is something else.
    """
    if not text.startswith("http://") or not urlsplit(text).netloc:
        raise argparse.ArgumentTypeError("must be the http:// URL of a service, such as http://127.0.0.1:8000")
    return text


def key_name(text: str) -> str:
    """Return the name of an API key.

    Raises:
        argparse.ArgumentTypeError: the text is something else.
    """
    if _KEY_NAME.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(
            "must be 1 to 64 letters, digits, single spaces or . _ @ -; must begin with a letter or digit, "
            "and must not end with a space"
        )
    return text
