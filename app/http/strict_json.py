"""Strict JSON (RFC 8259): UTF-8 only, no NaN or Infinity, and no repeated keys, which programs interpret differently.

`json.loads` accepts UTF-16, UTF-32, NaN and repeated keys. It also builds whatever it receives: a mebibyte of small
arrays or unknown keys takes ten times its size in memory, and seconds if each of them becomes a validation error.
Limits far above what any valid body needs reject such a text before it is built.
"""

import json
from typing import Any, NoReturn

MAX_SEPARATORS = 50_000
"""Maximum number of commas and opening brackets in a text: each value except the first follows one of them. A patient
with a thousand hospitals and a thousand doctors has about ten thousand."""
MAX_MEMBERS = 1000
"""Maximum number of members of an object: many times the number of fields of the largest schema, and more than the
claims of any token."""


class InvalidJSONError(Exception):
    """The text is not strict JSON. The message is a predicate without its subject: "The body" + " is not in UTF-8"."""


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_MEMBERS:
        raise InvalidJSONError(f"has an object with more than {MAX_MEMBERS} members")
    members = dict(pairs)
    if len(members) < len(pairs):
        raise InvalidJSONError("has an object with a repeated key")
    return members


def parse_json(raw: bytes, *, one_line: bool = False) -> Any:
    """Parse a JSON text in UTF-8 and return its value.

    With `one_line`, error messages give only the column, because the caller knows the number of the line.

    Raises:
        InvalidJSONError: the text is not valid JSON, is not in UTF-8, is nested too deeply, contains a number with
            thousands of digits, or exceeds `MAX_SEPARATORS` or `MAX_MEMBERS`.
    """
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_SEPARATORS:
        raise InvalidJSONError(f"has more than {MAX_SEPARATORS:,} commas and brackets: send less data at once")
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_reject_constant, object_pairs_hook=_build_object)
    except UnicodeDecodeError:
        raise InvalidJSONError("is not in UTF-8") from None
    except json.JSONDecodeError as error:
        location = f"column {error.colno}" if one_line else f"line {error.lineno}, column {error.colno}"
        raise InvalidJSONError(f"is not valid JSON: {error.msg} at {location}") from None
    except RecursionError:
        raise InvalidJSONError("is nested too deeply") from None
    except ValueError:
        raise InvalidJSONError("is not valid JSON: it contains NaN, Infinity or a number that is too long") from None
