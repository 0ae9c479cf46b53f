"""What journal and audit must contain about a request: its change exactly once, and the accessed records."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.hostile.client_connection import Disconnect
from tests.hostile.ledger import AuditRow, Ledger, Version
from tests.hostile.random_requests import BREAK_GLASS_REASON, SentRequest

AUDITED_RESOURCES = frozenset({"patients", "profiles", "audit"})
UNAUDITED_STATUSES = frozenset({401, 429})
JOURNAL_ACTIONS = {"create": "created", "update": "updated", "delete": "deleted", "restore": "restored"}


def find_discrepancies(request: SentRequest, ledger: Ledger) -> Iterator[str]:
    """Yield the defects in a request's changes and audit rows."""
    status, entries = request.status, ledger.entries.get(request.request_id, [])
    if request.hang_up is None and not request.heard.is_complete:
        yield "the connection broke before the end of the response"
    if status is not None and status >= 500 and status != 503:
        yield "the service failed"
    if status is not None and not request.caller.has_scope(request.scope) and status != 403:
        yield f"its caller lacks {request.scope}, but it was not refused"
    if any(entry.actor != request.caller.actor for entry in entries):
        yield "its journal entry names another actor"
    target_entries = [entry for entry in entries if entry.resource == request.resource and is_target(request, entry)]
    profile_entries = [entry for entry in entries if entry.resource == "profiles" and request.resource == "patients"]
    yield from _check_entry_count(request, entries, target_entries, profile_entries)
    if target_entries:
        yield from _check_entry_content(request, target_entries[0], profile_entries, ledger)
    yield from _check_audit(request, target_entries, ledger)


def is_target(request: SentRequest, entry: Version) -> bool:
    return request.about is None or request.about == entry.unique_id


def _named_profile_id(request: SentRequest) -> str | None:
    """Return the id of the profile that a body names."""
    named = request.body.get("patient_profile")
    return named["unique_id"] if named else None


def _check_entry_count(
    request: SentRequest, entries: list[Version], target_entries: list[Version], profile_entries: list[Version]
) -> Iterator[str]:
    """Check that a request has the required number of entries."""
    if len(entries) != len(target_entries) + len(profile_entries) or any(
        entry.unique_id != _named_profile_id(request) for entry in profile_entries
    ):
        yield "it changed a record other than its target"
    if len(target_entries) > 1 or len(profile_entries) > 1:
        yield "it made several versions of one record"
    replayed = "idempotency-replayed" in request.heard.headers
    refused = request.status is not None and 400 <= request.status < 500
    if entries and (not request.is_change or refused or replayed or request.hang_up is Disconnect.DURING_REQUEST):
        yield "it changed something but must not"
    if not request.is_change or replayed or not (request.is_accepted or entries):
        return
    # a write with unique values always makes a version; an empty update, or a restore of the current values, may not
    unique = request.kind in {"create", "delete"} or (request.kind == "update" and bool(request.body))
    if unique and not target_entries:
        yield "it was executed, at least in part, but its entry is missing"
    if request.kind == "update" and not request.body and target_entries:
        yield "it changed nothing but made a version"
    named = request.body.get("patient_profile") or {}
    if "first_name" in named and not profile_entries:
        yield "the entry of its profile is missing"


def _check_entry_content(
    request: SentRequest, entry: Version, profile_entries: list[Version], ledger: Ledger
) -> Iterator[str]:
    """Check that an entry has the requested action and values."""
    if entry.action != JOURNAL_ACTIONS.get(request.kind):
        yield f"its entry says {entry.action}"
    before = ledger.previous_version(entry)
    if entry.resource == "patients" and before is not None and not before.is_visible_to(request.caller):
        yield "it changed a patient outside its caller's hospital scope"
    if request.kind == "restore":
        restored = ledger.versions[entry.resource, entry.unique_id][request.body["version"] - 1]
        if _restorable_values(entry) != _restorable_values(restored):
            yield "the record was not restored to the requested version"
    elif entry.record is not None:
        yield from _check_sent_values(request, entry.record)
    if profile_entries and profile_entries[0].record is not None:
        sent = {name: value for name, value in request.body["patient_profile"].items() if name != "unique_id"}
        if not sent.items() <= profile_entries[0].record.items():
            yield "the entry of its profile has other values"


def _restorable_values(version: Version) -> dict[str, Any]:
    """Return the values that a restore always brings back, without the links that it may have to skip."""
    loose = {"last_updated", "profile_id", "hospital_ids", "doctor_ids"}
    return {name: value for name, value in (version.record or {}).items() if name not in loose}


def _check_sent_values(request: SentRequest, record: Mapping[str, Any]) -> Iterator[str]:
    """Check that a record has the values that were sent."""
    for name, value in request.body.items():
        if name == "patient_profile":
            same = record.get("profile_id") == _named_profile_id(request)
        elif name in {"hospital_ids", "doctor_ids"}:
            different = set(record[name]) ^ set(value)
            hospitals = request.caller.hospitals if name == "hospital_ids" else None
            same = not (different if hospitals is None else different & hospitals)
        else:
            same = name == "unique_id" or record.get(name) == value
        if not same:
            yield f"its entry has another {name}"


def _check_audit(request: SentRequest, target_entries: list[Version], ledger: Ledger) -> Iterator[str]:
    """Check that the audit has exactly the required rows for a request."""
    rows = ledger.audit_rows.get(request.request_id, [])
    # of a request that was not sent in full only the head is read, which may be refused
    unread = request.hang_up is Disconnect.DURING_REQUEST and any(row.status < 400 for row in rows)
    misplaced = request.resource not in AUDITED_RESOURCES or request.status in UNAUDITED_STATUSES
    if unread or misplaced:
        if rows:
            yield "it has audit rows but must not"
        return
    for row in rows:
        recorded = (row.principal, row.method, row.route, row.resource)
        if recorded != (request.caller.actor, request.call.method, request.route, request.resource):
            yield f"its audit row says {recorded}"
        if row.reason != (BREAK_GLASS_REASON if _breaks_glass(request) and row.status != 403 else None):
            yield "its audit row has another reason"
    yield from _check_version_row(rows, target_entries)
    if request.status is None or request.status >= 500:
        return
    if not rows or {row.status for row in rows} != {request.status}:
        yield f"its audit rows have the statuses {[row.status for row in rows]}"
        return
    yield from _check_timestamps(request, rows)
    if request.heard.is_complete:
        yield from _check_audited_ids(request, rows, ledger)


def _check_version_row(rows: Sequence[AuditRow], target_entries: Sequence[Version]) -> Iterator[str]:
    """Check that each new version has an audit row of its own, and no row has another version."""
    made = [row for row in rows if row.status < 400]
    if target_entries and (
        len(made) != 1 or made[0].version != target_entries[0].version or made[0].ids != [target_entries[0].unique_id]
    ):
        yield "its entry has no audit row of its version"
    if not target_entries and any(row.version is not None for row in rows):
        yield "its audit row has a version, but the journal has no entry"


def _check_timestamps(request: SentRequest, rows: Sequence[AuditRow]) -> Iterator[str]:
    """Check that the rows were written during the request, the first one before the response began."""
    response = request.heard
    if rows[0].time < response.started_at:
        yield "its audit row is older than the request"
    if response.head_at is not None and rows[0].time > response.head_at:
        yield "its audit row is newer than the start of its response"
    if response.is_complete and rows[-1].time > response.ended_at:
        yield "its last audit row is newer than the end of its response"
    if request.rows_at_head == 0:
        yield "its response began before its audit row was visible"


def _breaks_glass(request: SentRequest) -> bool:
    return "X-Break-Glass" in request.call.headers


def _check_audited_ids(request: SentRequest, rows: Sequence[AuditRow], ledger: Ledger) -> Iterator[str]:
    """Check that the audit has exactly the ids that a response showed."""
    audited_ids = [unique_id for row in rows for unique_id in row.ids]
    if request.is_accepted and request.kind == "list":
        if not _are_exactly_shown(request, audited_ids):
            yield f"the audited ids differ from those shown: {audited_ids}"
        return
    if len(rows) != 1:
        yield f"it has {len(rows)} audit rows"
    if request.is_accepted and request.about is None:
        expected = [] if request.resource == "audit" else [request.heard.document["unique_id"]]
    else:
        # the id in a refused request is kept only if it is or was that of a record
        began, ended = (
            request.about is not None and ledger.existed_at(request.resource, request.about, time)
            for time in (request.heard.started_at, request.heard.ended_at)
        )
        if not request.is_accepted and (began is not True) and (ended is not False):
            return
        expected = [str(request.about)] if request.is_accepted or began else []
    if audited_ids != expected:
        yield f"its audit row has the ids {audited_ids}"


def _are_exactly_shown(request: SentRequest, audited_ids: list[str]) -> bool:
    """Return whether the audited ids are exactly those that a list showed.

    Only here may the audit contain more than was shown. The record after a filtered page may be audited, because it is
    read to find out whether there is a next page, which the response reveals. A HEAD response shows no record but may
    be audited like the GET.
    """
    if request.call.method == "HEAD":
        return True
    shown = [document["unique_id"] for document in request.heard.document]
    if request.filtered and len(audited_ids) == len(shown) + 1 and _has_next(request):
        audited_ids = audited_ids[:-1]
    return audited_ids == shown


def _has_next(request: SentRequest) -> bool:
    return "next-cursor" in request.heard.headers or 'rel="next"' in request.heard.headers.get("link", "")


def find_repeat_discrepancies(group: Sequence[SentRequest], ledger: Ledger) -> Iterator[str]:
    """Yield the defects of requests that share an Idempotency-Key: they must run once and get one response."""
    entries = [
        entry
        for asked in group
        for entry in ledger.entries.get(asked.request_id, [])
        if entry.resource == asked.resource and is_target(asked, entry)
    ]
    accepted = [asked for asked in group if asked.is_accepted]
    if len(entries) > 1 or (accepted and group[0].kind == "create" and not entries):
        yield f"{len(entries)} entries were made for one Idempotency-Key"
    if len({asked.heard.content for asked in accepted if asked.heard.is_complete}) > 1:
        yield "repeats got different responses"
    if len({asked.status for asked in accepted}) > 1:
        yield "repeats got different statuses"
    if sum("idempotency-replayed" not in asked.heard.headers for asked in accepted) > 1:
        yield "according to the responses it was executed twice"
