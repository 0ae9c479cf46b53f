from typing import Annotated, ClassVar, Literal

from pydantic import Field

from app.fields.schemas import Representation
from app.fields.types import Identifier, Timestamp, TimestampParameter
from app.listing.pagination import PageParameters


class AuditParameters(PageParameters):
    """Filters for audit entries. An entry has to match all filters."""

    patient: Identifier | None = None
    """Return only entries about the patient with this `unique_id`."""
    principal: Annotated[str | None, Field(pattern=r"^[ -~]{1,400}$")] = None
    """Return only entries about requests of the principal with this name, such as `key:front-desk`."""
    time__gte: TimestampParameter | None = None
    """Return only entries at or after this timestamp."""
    time__lt: TimestampParameter | None = None
    """Return only entries before this timestamp."""


class AuditEntry(Representation):
    """An audit entry about one request for patients or profiles, one batch of a streamed list, or one command."""

    example: ClassVar = {
        "time": "2026-11-30T08:30:00.123456Z",
        "principal": "key:front-desk",
        "method": "GET",
        "route": "/patients/patients/{unique_id}/",
        "status": 200,
        "resource": "patients",
        "ids": ["pat123"],
        "request_id": "req_01m82ajx1ew0r14nzv08mnkrmd",
        "reason": None,
    }

    time: Timestamp
    principal: str
    """The name of the principal that made the request."""
    method: str
    """The HTTP method of the request. `COUNT` means that the entry lists the records on which a count in the
    response depends, and `RUN` means that a command was run."""
    route: str
    """The path template of the request, or the name of the command."""
    status: int
    """The HTTP status of the response. It is 200 for a command."""
    resource: str
    """The resource that the `ids` belong to: `patients` or `profiles`."""
    ids: list[str]
    """The ids of the records that were shown, counted or changed, or that a denied request asked for."""
    request_id: str | None
    """The id of the request. The `X-Request-ID` header, the log and the history contain the same id."""
    reason: str | None
    """The reason that the principal gave for emergency access to a patient outside its hospital scope; `null` for
    other requests."""


class AccessEntry(Representation):
    """One read of, or change to, a patient's record or profile."""

    example: ClassVar = {
        "time": "2026-11-30T08:30:00.123456Z",
        "principal": "key:front-desk",
        "action": "read",
        "description": "Viewed the record",
        "reason": None,
        "request_id": "req_01m82ajx1ew0r14nzv08mnkrmd",
    }

    time: Timestamp
    principal: str
    """The name of the principal that read or changed the record."""
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
        "merged",
        "unmerged",
    ]
    description: str
    """A description of the access in plain English."""
    reason: str | None
    """The reason that the principal gave for emergency access; `null` for other accesses."""
    request_id: str | None
    """The id of the request. The audit, the log and the history contain the same id."""
