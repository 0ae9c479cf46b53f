"""Values in the form in which COPY takes them, and the columns of a staging table that they are copied to.

COPY has a binary format, for which there is no codec for JSON. JSON is therefore copied as text.
"""

from collections.abc import Iterator
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Column, Computed, Text
from sqlalchemy.dialects.postgresql import JSONB


def columns_to_copy(column: Column[Any]) -> Iterator[Column[Any]]:
    """Yield the columns of a staging table for a column: the one to copy to and, if it is JSON, its value."""
    if isinstance(column.type, JSONB):
        yield Column(f"{column.name}_text", Text)
        yield Column(column.name, JSONB, Computed(f"CAST({column.name}_text AS jsonb)", persisted=True))
    else:
        yield Column(column.name, column.type)


def copied_value(value: Any) -> Any:
    """Return a value as `copy` takes it: objects in a list as JSON text, and other values unchanged."""
    return to_json(value).decode() if isinstance(value, list) and value and isinstance(value[0], dict) else value
