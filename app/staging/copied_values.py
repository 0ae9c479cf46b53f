"""Values in the text format of COPY, in which rows are sent to PostgreSQL as they are."""

from typing import Any

from pydantic_core import to_json

_NULL = r"\N"
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
_ARRAY_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\""})


def copied_value(value: Any) -> str:
    """Return a value as COPY reads it: objects in a list as JSON, and texts in a list as an array."""
    if value is None:
        return _NULL
    if isinstance(value, list):
        if value and isinstance(value[0], dict):
            text = to_json(value).decode()
        else:
            text = "{" + ",".join([f'"{item.translate(_ARRAY_ESCAPES)}"' for item in value]) + "}"
    else:
        text = str(value)
    return text.translate(_ESCAPES)
