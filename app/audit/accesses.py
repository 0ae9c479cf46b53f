"""Who has seen or changed a patient's record, in plain words (POPIA section 23; HIPAA, 45 CFR 164.528)."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from app.audit.repository import LAST, AccessRow, Place, accesses
from app.audit.schemas import AccessEntry
from app.errors import FieldError, InvalidError

_ONE = "/patients/patients/{unique_id}/"
_WORDS = {
    ("GET", "/patients/patients/"): ("listed", "Saw the record in a list of patients"),
    ("GET", _ONE): ("read", "Looked at the record"),
    ("GET", f"{_ONE}history/"): ("read_history", "Looked at the history of the record"),
    ("GET", f"{_ONE}history/{{version}}/"): ("read_history", "Looked at an earlier version of the record"),
    ("GET", f"{_ONE}access/"): ("read_report", "Looked up who has seen the record"),
    ("RUN", "access-report"): ("read_report", "Printed a report of who has seen the record"),
    ("POST", "/patients/patients/"): ("created", "Created the record"),
    ("PUT", _ONE): ("updated", "Changed the record, or saved it as it was"),
    ("PATCH", _ONE): ("updated", "Changed the record, or saved it as it was"),
    ("DELETE", _ONE): ("deleted", "Deleted the record"),
    ("POST", f"{_ONE}restore/"): ("restored", "Restored the record, or an earlier version of it"),
    ("created", None): ("created", "Created the record"),
    ("updated", None): ("updated", "Changed the record"),
    ("deleted", None): ("deleted", "Deleted the record"),
    ("restored", None): ("restored", "Restored the record, or an earlier version of it"),
}
"""The action and its description, by method and route, or by the journal's action. A test walks the routes."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def entry(row: AccessRow) -> AccessEntry:
    """One access as it is answered."""
    action, description = _WORDS[row.method, row.route]
    if row.reason is not None:
        description = "Looked at the record in an emergency, across the walls between hospitals"
    return AccessEntry.model_validate(
        {
            "time": row.time,
            "principal": row.principal,
            "action": action,
            "description": description,
            "reason": row.reason,
            "request_id": row.request_id,
        }
    )


def cursor(place: Place) -> str:
    """A place as a text."""
    return f"{(place.time - _EPOCH) // _MICROSECOND}.{place.source}.{place.number}"


def place(after: str) -> Place:
    """The place that a text stands for; `""` is before all others.

    Raises:
        InvalidError: it stands for none.
    """
    if not after:
        return LAST
    try:
        time, source, number = (int(part) for part in after.split("."))
        return Place(_EPOCH + time * _MICROSECOND, source, number)
    except (ValueError, OverflowError):
        raise InvalidError([FieldError(("query", "cursor"), "Must be a cursor of this list", "cursor")]) from None


async def every(connection: AsyncConnection, patient_id: str, portion: int = 1000) -> AsyncIterator[AccessEntry]:
    """All accesses of a patient, newest first."""
    before = LAST
    while rows := await accesses(connection, patient_id, before, portion):
        for row in rows:
            yield entry(row)
        before = rows[-1].place
