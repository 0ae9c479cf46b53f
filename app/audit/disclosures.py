"""Lists the accesses to a patient's record in plain English (POPIA section 23; HIPAA, 45 CFR 164.528)."""

from collections.abc import AsyncIterator
from http import HTTPStatus

from app.audit.recorder import COUNT_METHOD
from app.audit.repository import AccessEvent, AuditPosition, list_access_events
from app.audit.schemas import AccessEntry
from app.db.connection import Connection
from app.paths import DUPLICATES_PREFIX, FHIR_PREFIX, MATCH_SUFFIX, SEARCH_SUFFIX, list_path, record_path

_PATIENTS_ROUTE, _PATIENT_ROUTE = list_path("patients"), record_path("patients")
_PROFILES_ROUTE, _PROFILE_ROUTE = list_path("profiles"), record_path("profiles")
_SEARCH_ROUTE, _PROFILE_SEARCH_ROUTE = f"{_PATIENTS_ROUTE}{SEARCH_SUFFIX}", f"{_PROFILES_ROUTE}{SEARCH_SUFFIX}"
_FHIR_ROUTE = f"{FHIR_PREFIX}/Patient"
_READ_BY_COUNT = ("counted", "Saw how many records match a filter or a search, including this one")
_PROFILE_READ_BY_COUNT = ("counted", "Saw how many profiles match a filter, including this one")
READ_DESCRIPTIONS = {
    ("GET", _PATIENTS_ROUTE): ("listed", "Saw the record in a list of patients"),
    ("POST", _SEARCH_ROUTE): ("listed", "Saw the record in the results of a search"),
    (COUNT_METHOD, _PATIENTS_ROUTE): _READ_BY_COUNT,
    (COUNT_METHOD, _SEARCH_ROUTE): _READ_BY_COUNT,
    ("GET", _PATIENT_ROUTE): ("read", "Viewed the record"),
    ("GET", "/changes/"): ("listed", "Saw the record in the feed of changes"),
    ("GET", f"{_PATIENT_ROUTE}history/"): ("read_history", "Viewed the history of the record"),
    ("GET", f"{_PATIENT_ROUTE}history/{{version}}/"): ("read_history", "Viewed an earlier version of the record"),
    ("GET", f"{_PATIENT_ROUTE}access/"): ("read_report", "Checked who has seen or changed the record"),
    ("POST", f"{_PATIENTS_ROUTE}{MATCH_SUFFIX}"): ("listed", "Saw the record among those that may be a given person"),
    ("GET", f"{DUPLICATES_PREFIX}/"): ("listed", "Saw in a list that the record may be of the same person as another"),
    ("POST", f"{DUPLICATES_PREFIX}/{{unique_id}}/dismiss/"): (
        "read",
        "Decided that another record is not this person's",
    ),
    ("RUN", "access-report"): ("read_report", "Printed a report of who has seen or changed the record"),
    ("RUN", "export"): ("exported", "Exported the record to a file"),
    ("GET", _FHIR_ROUTE): ("listed", "Saw the record in a list of patients"),
    ("POST", f"{_FHIR_ROUTE}/_search"): ("listed", "Saw the record in the results of a search"),
    (COUNT_METHOD, _FHIR_ROUTE): _READ_BY_COUNT,
    (COUNT_METHOD, f"{_FHIR_ROUTE}/_search"): _READ_BY_COUNT,
    ("POST", f"{_FHIR_ROUTE}/$match"): ("listed", "Saw the record among those that may be a given person"),
    ("GET", f"{_FHIR_ROUTE}/{{unique_id}}"): ("read", "Viewed the record"),
    ("GET", f"{_FHIR_ROUTE}/{{unique_id}}/_history"): ("read_history", "Viewed the history of the record"),
    ("GET", f"{_FHIR_ROUTE}/{{unique_id}}/_history/{{version}}"): (
        "read_history",
        "Viewed an earlier version of the record",
    ),
    ("GET", _PROFILES_ROUTE): ("listed", "Saw the profile in a list of profiles"),
    ("POST", _PROFILE_SEARCH_ROUTE): ("listed", "Saw the profile in the results of a search"),
    (COUNT_METHOD, _PROFILES_ROUTE): _PROFILE_READ_BY_COUNT,
    (COUNT_METHOD, _PROFILE_SEARCH_ROUTE): _PROFILE_READ_BY_COUNT,
    ("GET", _PROFILE_ROUTE): ("read", "Viewed the profile"),
    ("GET", f"{_PROFILE_ROUTE}history/"): ("read_history", "Viewed the history of the profile"),
    ("GET", f"{_PROFILE_ROUTE}history/{{version}}/"): ("read_history", "Viewed an earlier version of the profile"),
}
"""Action and English description of each kind of read, by method and route.

HEAD requests are described like GET requests, because they reveal as much. A test checks that every route that reads
records has a description.
"""
_READ_BY_WRITE = ("read", "Was shown the record after sending data that changed nothing")
"""Action and description of a request that could have changed a record but did not.

The request contained the values that the record already had, or it repeated an earlier request.
"""
_READ_AS_DUPLICATE = ("listed", "Saw the record among those that may be of a person to register")
"""Action and description of a creation that was refused because the person may be registered already."""
_CHANGE_DESCRIPTIONS = {
    "created": "Created the {noun}",
    "updated": "Changed the {noun}",
    "deleted": "Deleted the {noun}",
    "restored": "Restored the {noun}",
    "erased": "Erased the {noun}",
    "merged": "Merged the {noun} into another one of the same person",
    "unmerged": "Separated the {noun} again from the one that it had been merged into",
}


def access_entry(event: AccessEvent) -> AccessEntry:
    """Return an access event as responses and reports show it, with an English description."""
    if event.action is not None:
        noun = "profile" if event.resource == "profiles" else "record"
        action, description = event.action, _CHANGE_DESCRIPTIONS[event.action].format(noun=noun)
    elif event.status == HTTPStatus.CONFLICT:
        action, description = _READ_AS_DUPLICATE
    elif event.reason is not None:
        action, description = "read", "Viewed the record in an emergency"
    else:
        method = "GET" if event.method == "HEAD" else event.method or ""
        action, description = READ_DESCRIPTIONS.get((method, event.route or ""), _READ_BY_WRITE)
    shared_fields = {name: value for name, value in event._asdict().items() if name in AccessEntry.model_fields}
    return AccessEntry.model_validate({**shared_fields, "action": action, "description": description})


async def iter_disclosures(
    connection: Connection, patient_id: str, batch_size: int = 1000
) -> AsyncIterator[AccessEntry]:
    """Yield all accesses to a patient's record and profile, newest first.

    The accesses are read from the database in batches of `batch_size`.
    """
    before = AuditPosition()
    while events := await list_access_events(connection, patient_id, before, batch_size):
        for event in events:
            yield access_entry(event)
        before = events[-1].position
