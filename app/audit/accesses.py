"""Who has seen or changed a patient's record, in plain words (POPIA section 23; HIPAA, 45 CFR 164.528)."""

from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncConnection

from app.audit.repository import Access, Place, accesses
from app.audit.schemas import AccessEntry
from app.audit.trail import COUNT

_ONE = "/patients/patients/{unique_id}/"
_PROFILE = "/profiles/profiles/{unique_id}/"
_COUNTED = ("counted", "Was counted among the records that a filter or a search found")
LOOKS = {
    ("GET", "/patients/patients/"): ("listed", "Saw the record in a list of patients"),
    ("POST", "/patients/patients/search/"): ("listed", "Saw the record among those that a search found"),
    (COUNT, "/patients/patients/"): _COUNTED,
    (COUNT, "/patients/patients/search/"): _COUNTED,
    ("GET", _ONE): ("read", "Looked at the record"),
    ("GET", f"{_ONE}history/"): ("read_history", "Looked at the history of the record"),
    ("GET", f"{_ONE}history/{{version}}/"): ("read_history", "Looked at an earlier version of the record"),
    ("GET", f"{_ONE}access/"): ("read_report", "Looked up who has seen the record"),
    ("RUN", "access-report"): ("read_report", "Printed a report of who has seen the record"),
    ("RUN", "export"): ("exported", "Exported the record into a file"),
    ("GET", "/profiles/profiles/"): ("listed", "Saw the profile in a list of profiles"),
    ("GET", _PROFILE): ("read", "Looked at the profile"),
    ("GET", f"{_PROFILE}history/"): ("read_history", "Looked at the history of the profile"),
    ("GET", f"{_PROFILE}history/{{version}}/"): ("read_history", "Looked at an earlier version of the profile"),
}
"""By method and route; HEAD tells what GET does. A test walks the routes."""
_ANSWERED = ("read", "Was shown the record in answer to data that were sent")
"""What a request comes to that could change a record, and does not: it says what is there, or is a repeat."""
_CHANGES = {
    "created": "Created",
    "updated": "Changed",
    "deleted": "Deleted",
    "restored": "Restored",
    "erased": "Erased",
}


def entry(access: Access) -> AccessEntry:
    """One access as it is answered."""
    if access.action is not None:
        what = "profile" if access.resource == "profiles" else "record"
        action, description = access.action, f"{_CHANGES[access.action]} the {what}"
    elif access.reason is not None:
        action, description = "read", "Looked at the record in an emergency"
    else:
        method = "GET" if access.method == "HEAD" else access.method or ""
        action, description = LOOKS.get((method, access.route or ""), _ANSWERED)
    shown = {name: value for name, value in access._asdict().items() if name in AccessEntry.model_fields}
    return AccessEntry.model_validate({**shown, "action": action, "description": description})


async def every(connection: AsyncConnection, patient_id: str, portion: int = 1000) -> AsyncIterator[AccessEntry]:
    """All accesses of a patient, newest first."""
    before = Place()
    while found := await accesses(connection, patient_id, before, portion):
        for access in found:
            yield entry(access)
        before = found[-1].place
