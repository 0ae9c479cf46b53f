"""JSON as RFC 8259 has it: UTF-8 only, no NaN or Infinity, and no key twice, of which two programs see another each.

`json.loads` alone takes UTF-16, UTF-32, NaN and repeated keys. It also builds whatever it is given: a mebibyte of small
arrays or unknown keys costs ten times its size in memory, and seconds where each of them becomes a validation error.
Bounds that no valid body comes near refuse such a text before it is built.
"""

import json
from typing import Any, NoReturn

MAX_SEPARATORS = 50_000
"""Commas and opening brackets in a text: each value but the first follows one. A patient with a thousand hospitals and
a thousand doctors has some ten thousand."""
MAX_MEMBERS = 1000
"""Members of an object: many times the fields of the largest schema, and more than claims of a token have."""


class InvalidJSONError(Exception):
    """The text is not what it should be; the message goes on after its name: "The body" + " is not in UTF-8"."""


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_MEMBERS:
        raise InvalidJSONError(f"has an object of more than {MAX_MEMBERS} members")
    members = dict(pairs)
    if len(members) < len(pairs):
        raise InvalidJSONError("has an object that names one key twice")
    return members


def parse_json(raw: bytes, *, one_line: bool = False) -> Any:
    """Parse a text. Of one line, what is wrong is told with its column alone: the line has a number of its own.

    Raises:
        NotJSONError: it is no JSON, not in UTF-8, nested too deeply, has a number of thousands of digits, or exceeds
            `MAX_SEPARATORS` or `MAX_MEMBERS`.
    """
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_SEPARATORS:
        raise InvalidJSONError(f"has more than {MAX_SEPARATORS:,} commas and brackets: send less at once")
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
        raise InvalidJSONError("is not valid JSON: it has a number that JSON does not have") from None
