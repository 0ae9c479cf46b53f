from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from app.fields.schemas import Representation, RequestBody
from app.fields.types import Timestamp

MAX_VERSION = 2**53 - 1
"""The largest integer that every JSON reader represents exactly (RFC 8259, section 6)."""


def _integral_float_as_int(value: object) -> object:
    """Convert an integral float to an integer, because 1.0 is an integer in JSON too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Change(Representation):
    """The value of a field before and after a change; `null` if it had no value."""

    before: Any = Field(alias="from")
    after: Any = Field(alias="to")


class Entry(Representation):
    """One version of a record: the change, its time and author, and the record after the change."""

    version: int
    """The number of the change, counted from the creation of the record; its deletion is counted too."""
    action: Literal["created", "updated", "deleted", "restored", "erased"]
    time: Timestamp
    actor: str
    """The name of the principal that made the change."""
    request_id: str | None
    """The id of the request that made the change, as in its `X-Request-ID` header and in the log."""
    changes: dict[str, Change]
    """The fields whose values changed, each with `from` and `to`."""
    record: dict[str, Any] | None
    """The record's fields and the ids of its links after the change. Fields that are `null` are omitted. The whole
    value is `null` if the record was deleted."""


class Restore(RequestBody):
    """The version to restore."""

    version: Annotated[int, Field(ge=1, le=MAX_VERSION, strict=True), BeforeValidator(_integral_float_as_int)]
    """A version number from the history of the record."""
    skip_missing: bool = Field(default=False, strict=True)
    """Whether to omit links to records that no longer exist; otherwise they are an error."""
