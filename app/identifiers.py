"""Ids of records: the form that they must have, and a function that generates new ids."""

import re
import secrets
import time

IDENTIFIER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._~:@-]{0,63}$"
"""Pattern of a `unique_id`: 1 to 64 characters that need no escaping in a URL path."""

_IDENTIFIER_REGEX = re.compile(IDENTIFIER_PATTERN[1:-1])
_BASE32_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base32 alphabet in lowercase. Encoded values sort in the order of their bytes, and no letter can be
mistaken for a digit."""
_BASE32_PAIRS = [first + second for first in _BASE32_ALPHABET for second in _BASE32_ALPHABET]
"""The two base32 characters for each ten-bit value. The index in this list is the value."""
_BYTE_TO_BASE32_TABLE = "".join(_BASE32_ALPHABET[byte & 31] for byte in range(256)).encode()
"""Table for `bytes.translate` that maps each byte to the base32 character of its low five bits."""


def is_identifier(value: str) -> bool:
    """Return whether `value` has the form of a `unique_id`. No record has an id of a different form."""
    return _IDENTIFIER_REGEX.fullmatch(value) is not None


def new_identifier(prefix: str) -> str:
    """Return a new id: `prefix`, an underscore and the 26 characters of a ULID.

    A ULID consists of 48 bits for the milliseconds since 1970 and of 80 random bits. Newer ids sort after older ones,
    so that new rows go to the end of the primary key's index.
    """
    milliseconds = time.time_ns() // 1_000_000
    # shifting a 128-bit integer would take a tenth of the time of a request, and every request generates an id
    timestamp = (
        _BASE32_PAIRS[milliseconds >> 40]
        + _BASE32_PAIRS[milliseconds >> 30 & 1023]
        + _BASE32_PAIRS[milliseconds >> 20 & 1023]
        + _BASE32_PAIRS[milliseconds >> 10 & 1023]
    )
    random_part = secrets.token_bytes(16).translate(_BYTE_TO_BASE32_TABLE).decode()
    return f"{prefix}_{timestamp}{_BASE32_PAIRS[milliseconds & 1023]}{random_part}"
