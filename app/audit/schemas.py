from typing import Annotated, Literal

from pydantic import Field

from app.api.pages import PageParameters
from app.fields.schemas import Representation
from app.fields.types import Timestamp, TimestampParameter
from app.identifiers import IDENTIFIER_PATTERN


class AuditParameters(PageParameters):
    """Which entries are wanted; all conditions have to hold."""

    patient: Annotated[str | None, Field(pattern=IDENTIFIER_PATTERN)] = None
    """Entries about the patient of this `unique_id`."""
    principal: Annotated[str | None, Field(pattern=r"^[ -~]{1,400}$")] = None
    """Entries of the principal of this name, as `key:front-desk`."""
    time__gte: TimestampParameter | None = None
    """Entries of this moment or later."""
    time__lt: TimestampParameter | None = None
    """Entries from before this moment."""


class AuditEntry(Representation):
    """One request for patients or profiles, or one part of a list."""

    time: Timestamp
    principal: str
    """Who asked."""
    method: str
    """`GET` for reading; `COUNT` for whom a number in the answer tells of; `RUN` for a command."""
    route: str
    """The template of the path."""
    status: int
    """The outcome: what the request was answered with."""
    resource: str
    """Of what the `ids` are: `patients`, `profiles`."""
    ids: list[str]
    """Of the records that were shown or changed, or that a refused request asked for."""
    request_id: str | None
    """The request, as in its `X-Request-ID`, the log, and the history."""
    reason: str | None
    """Why somebody looked across the walls between hospitals."""


class AccessEntry(Representation):
    """One look at a patient's record or profile, or one change of them."""

    time: Timestamp
    principal: str
    """Who it was."""
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
    """What was done, in plain words."""
    reason: str | None
    """Why somebody looked in an emergency."""
    request_id: str | None
    """The request, as in the audit, the log, and the history."""
