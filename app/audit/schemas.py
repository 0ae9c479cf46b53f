from typing import Annotated, Literal

from pydantic import Field

from app.fields.schemas import Representation
from app.fields.types import Timestamp, TimestampParameter
from app.identifiers import IDENTIFIER_PATTERN
from app.listing.pagination import PageParameters


class AuditParameters(PageParameters):
    """Filters for audit entries; an entry has to match all of them."""

    patient: Annotated[str | None, Field(pattern=IDENTIFIER_PATTERN)] = None
    """Entries about the patient with this `unique_id`."""
    principal: Annotated[str | None, Field(pattern=r"^[ -~]{1,400}$")] = None
    """Entries of the principal with this name, such as `key:front-desk`."""
    time__gte: TimestampParameter | None = None
    """Entries at or after this timestamp."""
    time__lt: TimestampParameter | None = None
    """Entries before this timestamp."""


class AuditEntry(Representation):
    """One request for patients or profiles, or one batch of a streamed list."""

    time: Timestamp
    principal: str
    """The principal that made the request."""
    method: str
    """The HTTP method, `COUNT` for the records that a count in the response depends on, or `RUN` for a command."""
    route: str
    """The path template; for a command, its name."""
    status: int
    """The outcome: the HTTP status of the response."""
    resource: str
    """The resource that the `ids` belong to: `patients` or `profiles`."""
    ids: list[str]
    """The ids of the records that were shown or changed, or that a denied request asked for."""
    request_id: str | None
    """The id of the request, as in its `X-Request-ID` header, the log, and the history."""
    reason: str | None
    """The reason given for emergency access to a patient outside the principal's hospital scope."""


class AccessEntry(Representation):
    """One read or change of a patient's record or profile."""

    time: Timestamp
    principal: str
    """The principal that read or changed the record."""
    action: Literal[
        "listed",
        "counted",
        "exported",
        "read",
        "read_history",
        "read_report",
        "created",
        "updated",
        "deleted",
        "restored",
        "erased",
    ]
    description: str
    """A description of the access in plain English."""
    reason: str | None
    """The reason given for emergency access."""
    request_id: str | None
    """The id of the request, as in the audit, the log, and the history."""
