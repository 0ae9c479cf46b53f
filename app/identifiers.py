"""Identifiers: their form, and how the service generates new ones."""

import re
import secrets
import time

IDENTIFIER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._~:@-]{0,63}$"
"""A `unique_id`: 1 to 64 characters that need no escaping in a URL path."""

_IDENTIFIER_REGEX = re.compile(IDENTIFIER_PATTERN[1:-1])
_BASE32_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base32 in lowercase: it sorts in the order of the bytes, and no letter is mistaken for a digit."""
_BASE32_PAIRS = [first + second for first in _BASE32_ALPHABET for second in _BASE32_ALPHABET]
"""The two characters for every ten-bit value."""
_BYTE_TO_BASE32_TABLE = "".join(_BASE32_ALPHABET[byte & 31] for byte in range(256)).encode()
"""The character for the low five bits of every byte, for `bytes.translate`."""


def is_identifier(value: str) -> bool:
    """Return whether `value` has the form of a `unique_id`; no record has an id of another form."""
    return _IDENTIFIER_REGEX.fullmatch(value) is not None


def new_identifier(prefix: str) -> str:
    """Return `{prefix}_` and 26 characters: a ULID, 48 bits of milliseconds since 1970 and 80 random bits.

    Ids made later sort later, so new rows go to the end of the primary key's index.
    """
    milliseconds = time.time_ns() // 1_000_000
    # every request generates one: shifting 128 bits would be a tenth of the time of a request
    timestamp = (
        _BASE32_PAIRS[milliseconds >> 40]
        + _BASE32_PAIRS[milliseconds >> 30 & 1023]
        + _BASE32_PAIRS[milliseconds >> 20 & 1023]
        + _BASE32_PAIRS[milliseconds >> 10 & 1023]
    )
    random_part = secrets.token_bytes(16).translate(_BYTE_TO_BASE32_TABLE).decode()
    return f"{prefix}_{timestamp}{_BASE32_PAIRS[milliseconds & 1023]}{random_part}"
