"""The content of responses, compared with the versions of records in the journal."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from app.records.preconditions import entity_tag
from tests.hostile.ledger import Ledger, Version, record_from_document
from tests.hostile.random_requests import SentRequest

SINGLE_RECORD_KINDS = frozenset({"get", "create", "update", "restore"})
"""Kinds of requests that return one record."""


class TaggedDocuments:
    """The documents that were sent with each ETag."""

    def __init__(self, requests: Iterable[SentRequest]) -> None:
        self._documents: dict[str, Mapping[str, Any]] = {}
        for one in requests:
            if (
                one.heard.content
                and one.is_accepted
                and one.kind in SINGLE_RECORD_KINDS
                and "etag" in one.heard.headers
            ):
                self._documents[one.heard.headers["etag"]] = one.heard.document

    def document(self, tag: str) -> Mapping[str, Any] | None:
        return self._documents.get(tag)


def find_discrepancies(request: SentRequest, ledger: Ledger, tags: TaggedDocuments) -> Iterator[str]:
    """Yield the defects in the content of a response."""
    response = request.heard
    yield from _check_audited_ids(request, ledger)
    if response.status == 404 and request.kind == "get":
        yield from _check_not_found(request, ledger)
    if response.is_complete and request.is_accepted:
        if response.status == 304:
            yield from _check_not_modified(request, ledger, tags)
        elif request.call.method == "HEAD" or response.status == 204:
            if response.content:
                yield "its response has a body"
        else:
            yield from _check_body(request, ledger, tags)


def _check_body(request: SentRequest, ledger: Ledger, tags: TaggedDocuments) -> Iterator[str]:
    """Yield the defects in the body of a response."""
    shown = request.heard.document
    if request.kind in SINGLE_RECORD_KINDS:
        if request.heard.headers.get("etag") != entity_tag(request.heard.text):
            yield "its ETag is not that of its document"
        yield from _check_document(request, shown, ledger)
        yield from _check_change_response(request, ledger, tags)
    elif request.kind == "list":
        for document in shown:
            yield from _check_document(request, document, ledger)
        if not request.filtered:
            yield from _check_list_is_complete(request, ledger)
    elif request.kind in {"history", "version"}:
        yield from _check_history(request, shown if request.kind == "history" else [shown], ledger)


def _is_restricted(request: SentRequest) -> bool:
    return request.caller.hospitals is not None and "X-Break-Glass" not in request.call.headers


def _may_be_shown(request: SentRequest, resource: str, version: Version, ledger: Ledger) -> bool:
    """Return whether a request may show a version of a record in the caller's hospital scope."""
    if not _is_restricted(request) or resource not in {"patients", "profiles"}:
        return True
    if resource == "profiles":
        return ledger.may_have_seen_profile(version.unique_id, request.caller, request)
    return version.is_visible_to(request.caller)


def _check_document(request: SentRequest, document: Mapping[str, Any], ledger: Ledger) -> Iterator[str]:
    """Check that a document is a complete version of its record that was current and visible during the request."""
    name = document["unique_id"]
    version = ledger.matching_version(request.resource, document)
    if version is None:
        yield f"it shows {name} in a state that no version has"
        return
    if "idempotency-replayed" in request.heard.headers:
        versions = ledger.possible_versions(request.resource, name, request)
        if not any(_may_be_shown(request, request.resource, one, ledger) for one in versions):
            yield f"it replays {name}, which is outside its caller's hospital scope"
        return
    if not ledger.may_have_been_current(version, request):
        yield f"it shows version {version.version} of {name}, which was not current"
    if not _may_be_shown(request, request.resource, version, ledger):
        yield f"it shows {name}, which is outside its caller's hospital scope"
    for resource, nested in _nested_records(document):
        versions = ledger.possible_versions(resource, nested["unique_id"], request)
        if not any(
            nested.items() <= {"unique_id": one.unique_id, **_with_nulls(nested, one)}.items() for one in versions
        ):
            yield f"it shows {nested['unique_id']} in {name} in a state that no version has"


def _nested_records(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if document.get("patient_profile"):
        yield "profiles", document["patient_profile"]
    for hospital in document.get("patient_hospital", ()):
        yield "hospitals", hospital


def _with_nulls(nested: Mapping[str, Any], version: Version) -> Mapping[str, Any]:
    """Return a version's record with the nulls that a document has."""
    return {**dict.fromkeys(nested), **(version.record or {}), "unique_id": version.unique_id}


def _check_change_response(request: SentRequest, ledger: Ledger, tags: TaggedDocuments) -> Iterator[str]:
    """Check that the response to a change is the new version, and that the version before it satisfied If-Match."""
    entries = ledger.entries.get(request.request_id, [])
    made = [entry for entry in entries if entry.unique_id == request.heard.document["unique_id"]]
    made = [entry for entry in made if entry.resource == request.resource]
    if made and made[0].record != record_from_document(request.heard.document):
        yield "its response is not the version that it made"
    before = made and ledger.previous_version(made[0])
    tagged_document = tags.document(request.call.headers.get("If-Match", ""))
    # a precondition cannot be checked against the version before a deletion
    if (
        before
        and tagged_document is not None
        and before.version == made[0].version - 1
        and before.record != record_from_document(tagged_document)
    ):
        yield "it changed a version that does not match its If-Match"


def _check_not_modified(request: SentRequest, ledger: Ledger, tags: TaggedDocuments) -> Iterator[str]:
    """Check that a record was still what a 304 says."""
    tagged_document = tags.document(request.call.headers["If-None-Match"])
    if tagged_document is None or tagged_document["unique_id"] != request.about:
        yield "its 304 is for a tag that this record never had"
        return
    yield from _check_document(request, tagged_document, ledger)


def _check_not_found(request: SentRequest, ledger: Ledger) -> Iterator[str]:
    """Check that a record that was not found was not certainly there and visible."""
    version = ledger.certain_version(request.resource, str(request.about), request)
    if version is None or version.record is None or request.resource == "profiles":
        return
    if not _is_restricted(request) or version.is_visible_to(request.caller):
        yield "the record was there but was not found"


def _check_list_is_complete(request: SentRequest, ledger: Ledger) -> Iterator[str]:
    """Check that an unfiltered list or page lacks no record that was certainly there and visible."""
    shown = [document["unique_id"] for document in request.heard.document]
    if shown != sorted(set(shown)):
        yield "the ids are not sorted or not unique"
    if request.resource != "patients" or not shown:
        return
    ends = 'rel="next"' not in request.heard.headers.get("link", "")
    for unique_id in ledger.ids_between(request.resource, request.after or "", None if ends else shown[-1]):
        version = ledger.certain_version(request.resource, unique_id, request)
        if version is not None and version.is_visible_to(request.caller) and unique_id not in shown:
            yield f"it lacks {unique_id} between {request.after} and {shown[-1]}"


def _check_history(request: SentRequest, entries: Iterable[Mapping[str, Any]], ledger: Ledger) -> Iterator[str]:
    """Check that entries are those of the journal, and of a record that the caller may know."""
    of_record = ledger.versions.get((request.resource, str(request.about)), [])
    for entry in entries:
        version = of_record[entry["version"] - 1]
        shown_entry = (entry["action"], entry["actor"], entry["request_id"], entry["record"])
        if shown_entry != (version.action, version.actor, version.request_id, version.record):
            yield f"it shows version {version.version} differently from the journal"
        if abs(datetime.fromisoformat(entry["time"]).timestamp() - version.written_at) > 0.001:
            yield f"it shows another time of version {version.version}"
    possible = list(ledger.possible_versions(request.resource, str(request.about), request))
    # a caller who could see a record before its deletion may know its history
    states = [one if one.record is not None else ledger.previous_version(one) for one in possible]
    if _is_restricted(request) and not any(
        state is not None and state.is_visible_to(request.caller) for state in states
    ):
        yield "it shows the history of a record outside its caller's hospital scope"


def _check_audited_ids(request: SentRequest, ledger: Ledger) -> Iterator[str]:
    """Check that the audit rows of a read, even after a disconnect, name no record that was hidden from its caller."""
    if (
        request.caller.hospitals is None
        or request.is_change
        or request.resource != "patients"
        or request.kind == "audit"
    ):
        return
    for row in ledger.audit_rows.get(request.request_id, []):
        if row.status >= 400 or row.reason is not None or request.kind in {"history", "version"}:
            continue
        for unique_id in row.ids:
            versions = ledger.possible_versions("patients", unique_id, request)
            if not any(one.is_visible_to(request.caller) for one in versions):
                yield f"the audit says it showed {unique_id}, which is outside its caller's hospital scope"
