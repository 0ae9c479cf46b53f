from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.json_schema import WithJsonSchema

from app.resource.identifiers import PATTERN
from app.resource.pages import PageParameters
from app.resource.schemas import Representation
from app.resource.values import Timestamp, refuse

_FIRST_YEAR, _LAST_YEAR = 1900, 9000


def _moment(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        moment = datetime.min.replace(tzinfo=UTC)
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise refuse("moment", "Must be a date or a moment such as 2026-11-30 or 2026-11-30T12:00:00Z")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A moment in a query, ISO 8601; without an offset it is in UTC, and a date is its first moment."""


class AuditParameters(PageParameters):
    """Which entries are wanted; all conditions have to hold."""

    patient: Annotated[str | None, Field(pattern=PATTERN)] = None
    """Entries about the patient of this `unique_id`."""
    principal: Annotated[str | None, Field(pattern=r"^[ -~]{1,400}$")] = None
    """Entries of the principal of this name, as `key:front-desk`."""
    time__gte: Moment | None = None
    """Entries of this moment or later."""
    time__lt: Moment | None = None
    """Entries from before this moment."""


class AuditEntry(Representation):
    """One request for patients or profiles, or one part of a list."""

    time: Timestamp
    principal: str
    """Who asked."""
    method: str
    """`GET` for reading; `RUN` for a command."""
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
        "listed", "read", "read_history", "read_report", "created", "updated", "deleted", "restored", "erased"
    ]
    description: str
    """What was done, in plain words."""
    reason: str | None
    """Why somebody looked in an emergency."""
    request_id: str | None
    """The request, as in the audit, the log, and the history."""
