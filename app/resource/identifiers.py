"""Identifiers: their form, and how the service makes new ones."""

import re
import secrets
import time

PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._~:@-]{0,63}$"
"""A `unique_id`: 1 to 64 characters that need no escaping in a URL path."""

_IDENTIFIER = re.compile(PATTERN[1:-1])
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base32 in lowercase: its order is that of the bytes, and no letter is mistaken for a digit."""


def is_identifier(value: str) -> bool:
    """Whether `value` has the form of a `unique_id`; what has not cannot name a record."""
    return _IDENTIFIER.fullmatch(value) is not None


def new_identifier(prefix: str) -> str:
    """Make `{prefix}_` and 26 characters: a ULID, 48 bits of milliseconds since 1970 and 80 random bits.

    Ids made later sort later, so new rows go to the end of the primary key's index.
    """
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return f"{prefix}_{''.join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))}"
