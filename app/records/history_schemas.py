from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from app.fields.schemas import Representation, RequestBody
from app.fields.types import Timestamp

MAX_VERSION = 2**53 - 1
"""The largest number that every reader of JSON takes exactly (RFC 8259, section 6)."""


def _integral_float_as_int(value: object) -> object:
    """In JSON 1.0 is an integer too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Change(Representation):
    """What a field was, and what it became; `null` where it had no value."""

    before: Any = Field(alias="from")
    after: Any = Field(alias="to")


class Entry(Representation):
    """One version of a record: what was done to it, when, by whom, and what it was afterwards."""

    version: int
    """Counts the changes of the record, its deletion included."""
    action: Literal["created", "updated", "deleted", "restored", "erased"]
    time: Timestamp
    actor: str
    """Who did it."""
    request_id: str | None
    """The request that did it, as in its `X-Request-ID` and the log."""
    changes: dict[str, Change]
    """The fields that became another value, each with `from` and `to`."""
    record: dict[str, Any] | None
    """The record's fields and the ids of its links as they were afterwards; a field that was `null` is left out, and
    `null` stands for a record that was deleted."""


class Restore(RequestBody):
    """Which version to bring back."""

    version: Annotated[int, Field(ge=1, le=MAX_VERSION, strict=True), BeforeValidator(_integral_float_as_int)]
    """From the history."""
    skip_missing: bool = Field(default=False, strict=True)
    """Whether to leave out links to what is gone; without it they are an error."""
