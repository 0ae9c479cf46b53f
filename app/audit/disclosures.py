"""Who has seen or changed a patient's record, in plain words (POPIA section 23; HIPAA, 45 CFR 164.528)."""

from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncConnection

from app.audit.recorder import COUNT_METHOD
from app.audit.repository import AccessEvent, AuditPosition, list_access_events
from app.audit.schemas import AccessEntry

_PATIENT_ROUTE = "/patients/patients/{unique_id}/"
_PROFILE_ROUTE = "/profiles/profiles/{unique_id}/"
_READ_BY_COUNT = ("counted", "Was counted among the records that a filter or a search found")
READ_DESCRIPTIONS = {
    ("GET", "/patients/patients/"): ("listed", "Saw the record in a list of patients"),
    ("POST", "/patients/patients/search/"): ("listed", "Saw the record among those that a search found"),
    (COUNT_METHOD, "/patients/patients/"): _READ_BY_COUNT,
    (COUNT_METHOD, "/patients/patients/search/"): _READ_BY_COUNT,
    ("GET", _PATIENT_ROUTE): ("read", "Looked at the record"),
    ("GET", f"{_PATIENT_ROUTE}history/"): ("read_history", "Looked at the history of the record"),
    ("GET", f"{_PATIENT_ROUTE}history/{{version}}/"): ("read_history", "Looked at an earlier version of the record"),
    ("GET", f"{_PATIENT_ROUTE}access/"): ("read_report", "Looked up who has seen the record"),
    ("RUN", "access-report"): ("read_report", "Printed a report of who has seen the record"),
    ("RUN", "export"): ("exported", "Exported the record into a file"),
    ("GET", "/profiles/profiles/"): ("listed", "Saw the profile in a list of profiles"),
    ("GET", _PROFILE_ROUTE): ("read", "Looked at the profile"),
    ("GET", f"{_PROFILE_ROUTE}history/"): ("read_history", "Looked at the history of the profile"),
    ("GET", f"{_PROFILE_ROUTE}history/{{version}}/"): ("read_history", "Looked at an earlier version of the profile"),
}
"""By method and route; HEAD tells what GET does. A test walks the routes."""
_READ_BY_WRITE = ("read", "Was shown the record in answer to data that were sent")
"""What a request comes to that could change a record, and does not: it says what is there, or is a repeat."""
_CHANGE_VERBS = {
    "created": "Created",
    "updated": "Changed",
    "deleted": "Deleted",
    "restored": "Restored",
    "erased": "Erased",
}


def access_entry(event: AccessEvent) -> AccessEntry:
    """One access as it is answered."""
    if event.action is not None:
        noun = "profile" if event.resource == "profiles" else "record"
        action, description = event.action, f"{_CHANGE_VERBS[event.action]} the {noun}"
    elif event.reason is not None:
        action, description = "read", "Looked at the record in an emergency"
    else:
        method = "GET" if event.method == "HEAD" else event.method or ""
        action, description = READ_DESCRIPTIONS.get((method, event.route or ""), _READ_BY_WRITE)
    shared_fields = {name: value for name, value in event._asdict().items() if name in AccessEntry.model_fields}
    return AccessEntry.model_validate({**shared_fields, "action": action, "description": description})


async def iter_disclosures(
    connection: AsyncConnection, patient_id: str, batch_size: int = 1000
) -> AsyncIterator[AccessEntry]:
    """All accesses of a patient, newest first."""
    before = AuditPosition()
    while events := await list_access_events(connection, patient_id, before, batch_size):
        for event in events:
            yield access_entry(event)
        before = events[-1].position
