from typing import Annotated, Any, Literal

from pydantic import Field

from app.fields.schemas import Representation, RequestBody
from app.fields.types import ACCEPT_INTEGRAL_FLOAT, Timestamp

MAX_VERSION = 2**53 - 1
"""Maximum version number in a request: every JSON parser represents integers up to this one exactly (RFC 8259, section
6)."""


class FieldChange(Representation):
    """The values of a field before and after a change. A value is `null` if the field had none."""

    before: Any = Field(alias="from")
    after: Any = Field(alias="to")


class HistoryEntry(Representation):
    """One version in the history of a record: the change, its time and author, and the record after the change."""

    version: int
    """The number of the version. The creation of the record is version 1. Each later change, including a deletion,
    increases the number by 1."""
    action: Literal["created", "updated", "deleted", "restored", "erased"]
    time: Timestamp
    actor: str
    """The name of the principal that made the change."""
    request_id: str | None
    """The id of the request that made the change. It is the same id as in the header `X-Request-ID` and in the log."""
    changes: dict[str, FieldChange]
    """The fields that changed, each with its value before (`from`) and after (`to`) the change."""
    record: dict[str, Any] | None
    """The record after the change: its fields, and the ids of the records that it is linked to. Fields that are `null`
    are omitted. If the change is a deletion, `record` is `null`."""


class RestoreRequest(RequestBody):
    """A request to restore an earlier version of a record."""

    version: Annotated[int, Field(ge=1, le=MAX_VERSION, strict=True), ACCEPT_INTEGRAL_FLOAT]
    """The number of the version to restore, from the history of the record."""
    skip_missing: bool = Field(default=False, strict=True)
    """Whether to leave out links to records that no longer exist. If `false`, such links are an error, and nothing is
    restored."""
