"""A parser for strict JSON (RFC 8259): UTF-8 only, without NaN, Infinity and repeated keys.

Repeated keys are rejected because programs interpret them differently. `json.loads` would accept them, as well as
UTF-16, UTF-32 and NaN. It also has no limits. A mebibyte of small arrays or unknown keys becomes objects that take ten
times as much memory, and producing a validation error for each of them takes seconds. This parser rejects such a text
before it creates the objects. Its limits are far above the needs of any valid body.
"""

import json
from typing import Any, NoReturn

MAX_BODY_SIZE_BYTES = 1024 * 1024
"""Maximum size of a request body in bytes. A patient with a thousand links needs a twentieth of this size."""
MAX_SEPARATORS = 50_000
"""Maximum number of commas, opening brackets and opening braces in a JSON text. Every nested value needs one of them,
so this also limits the number of values. A patient with a thousand hospitals and a thousand doctors has about ten
thousand of them."""
MAX_MEMBERS = 1000
"""Maximum number of members in one JSON object. This is many times the number of fields of the largest schema, and more
than the number of claims of any token."""


class InvalidJSONError(Exception):
    """The text is not strict JSON. The message is a predicate, such as "is not in UTF-8".

    Callers put a subject in front of it, such as "The body".
    """


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

    With `one_line`, error messages contain only a column and no line number, for texts that consist of one line.

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
