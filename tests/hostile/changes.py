"""What journal and audit have to say of one request: whether it changed what it said, once, and who is told of it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.hostile.asking import REASON, Asked
from tests.hostile.ledger import Ledger, Row, Version
from tests.hostile.wire import HangUp

AUDITED = frozenset({"patients", "profiles", "audit"})
NOT_ON_RECORD = frozenset({401, 429})
ACTIONS = {"create": "created", "update": "updated", "delete": "deleted", "restore": "restored"}


def flaws(asked: Asked, ledger: Ledger) -> Iterator[str]:
    """What is wrong with a request, as far as changes and the audit are concerned."""
    status, entries = asked.status, ledger.entries.get(asked.request_id, [])
    if asked.hang_up is None and not asked.heard.complete:
        yield "the connection broke without an answer"
    if status is not None and status >= 500 and status != 503:
        yield "the service failed"
    if status is not None and not asked.caller.may(asked.scope) and status != 403:
        yield f"it lacks {asked.scope}, and was not refused"
    if any(entry.actor != asked.caller.actor for entry in entries):
        yield "its journal entry is by somebody else"
    main = [entry for entry in entries if entry.resource == asked.resource and is_target(asked, entry)]
    side = [entry for entry in entries if entry.resource == "profiles" and asked.resource == "patients"]
    yield from _numbers(asked, entries, main, side)
    if main:
        yield from _content(asked, main[0], side, ledger)
    yield from _audit(asked, main, ledger)


def is_target(asked: Asked, entry: Version) -> bool:
    return asked.about is None or asked.about == entry.unique_id


def _profile(asked: Asked) -> str | None:
    """The id of the profile that a body names."""
    named = asked.body.get("patient_profile")
    return named["unique_id"] if named else None


def _numbers(asked: Asked, entries: list[Version], main: list[Version], side: list[Version]) -> Iterator[str]:
    """Whether there are as many entries as there have to be."""
    if len(entries) != len(main) + len(side) or any(entry.unique_id != _profile(asked) for entry in side):
        yield "it changed what it was not about"
    if len(main) > 1 or len(side) > 1:
        yield "it made several versions of one record"
    replayed = "idempotency-replayed" in asked.heard.headers
    refused = asked.status is not None and 400 <= asked.status < 500
    if entries and (not asked.changes or refused or replayed or asked.hang_up is HangUp.CUT):
        yield "it changed something, and should not have"
    if not asked.changes or replayed or not (asked.accepted or entries):
        return
    # what no other request writes makes a version; nothing at all, or a former state that is also the present, may not
    unique = asked.kind in {"create", "delete"} or (asked.kind == "update" and bool(asked.body))
    if unique and not main:
        yield "it was done, in full or in part, and its entry is missing"
    if asked.kind == "update" and not asked.body and main:
        yield "it changed nothing, and made a version"
    named = asked.body.get("patient_profile") or {}
    if "first_name" in named and not side:
        yield "the entry of its profile is missing"


def _content(asked: Asked, entry: Version, side: list[Version], ledger: Ledger) -> Iterator[str]:
    """Whether an entry says what was asked for."""
    if entry.action != ACTIONS.get(asked.kind):
        yield f"its entry says {entry.action}"
    before = ledger.before(entry)
    if entry.resource == "patients" and before is not None and not before.seen_by(asked.caller):
        yield "it changed a patient that its caller does not see"
    if asked.kind == "restore":
        restored = ledger.versions[entry.resource, entry.unique_id][asked.body["version"] - 1]
        if _own_values(entry) != _own_values(restored):
            yield "it was not restored to the version that was asked for"
    elif entry.record is not None:
        yield from _sent(asked, entry.record)
    if side and side[0].record is not None:
        sent = {name: value for name, value in asked.body["patient_profile"].items() if name != "unique_id"}
        if not sent.items() <= side[0].record.items():
            yield "the entry of its profile has other values"


def _own_values(version: Version) -> dict[str, Any]:
    """What restoring brings back in any case: links to what is gone, and to others' hospitals, it may not."""
    loose = {"last_updated", "profile_id", "hospital_ids", "doctor_ids"}
    return {name: value for name, value in (version.record or {}).items() if name not in loose}


def _sent(asked: Asked, record: Mapping[str, Any]) -> Iterator[str]:
    """Whether a record has the values that were sent."""
    for name, value in asked.body.items():
        if name == "patient_profile":
            same = record.get("profile_id") == _profile(asked)
        elif name in {"hospital_ids", "doctor_ids"}:
            different = set(record[name]) ^ set(value)
            walls = asked.caller.hospitals if name == "hospital_ids" else None
            same = not (different if walls is None else different & walls)
        else:
            same = name == "unique_id" or record.get(name) == value
        if not same:
            yield f"its entry has another {name}"


def _audit(asked: Asked, main: list[Version], ledger: Ledger) -> Iterator[str]:
    """Whether the audit has the rows that it has to have of a request, and no others."""
    rows = ledger.rows.get(asked.request_id, [])
    # of what was not sent in full nothing is read but the head, which may be refused
    unread = asked.hang_up is HangUp.CUT and any(row.status < 400 for row in rows)
    misplaced = asked.resource not in AUDITED or asked.status in NOT_ON_RECORD
    if unread or misplaced:
        if rows:
            yield "it is in the audit, where it does not belong"
        return
    for row in rows:
        told = (row.principal, row.method, row.route, row.resource)
        if told != (asked.caller.actor, asked.call.method, asked.route, asked.resource):
            yield f"its audit row says {told}"
        if row.reason != (REASON if _breaks_glass(asked) and row.status != 403 else None):
            yield "its audit row has another reason"
    yield from _of_version(rows, main)
    if asked.status is None or asked.status >= 500:
        return
    if not rows or {row.status for row in rows} != {asked.status}:
        yield f"its audit rows have the statuses {[row.status for row in rows]}"
        return
    yield from _moments(asked, rows)
    if asked.heard.complete:
        yield from _ids(asked, rows, ledger)


def _of_version(rows: Sequence[Row], main: Sequence[Version]) -> Iterator[str]:
    """Whether a version that was made has a row of its own, and no row has a version that was not."""
    made = [row for row in rows if row.status < 400]
    if main and (len(made) != 1 or made[0].version != main[0].version or made[0].ids != [main[0].unique_id]):
        yield "its entry has no audit row of its version"
    if not main and any(row.version is not None for row in rows):
        yield "its audit row has a version, and the journal has no entry"


def _moments(asked: Asked, rows: Sequence[Row]) -> Iterator[str]:
    """Whether the rows were written while the request was under way, the first before the answer began."""
    heard = asked.heard
    if rows[0].time < heard.began:
        yield "its audit row is older than it"
    if heard.head_at is not None and rows[0].time > heard.head_at:
        yield "its audit row is younger than its answer"
    if heard.complete and rows[-1].time > heard.ended:
        yield "its last audit row is younger than its answer's end"
    if asked.rows_at_head == 0:
        yield "its answer began before its audit row was there"


def _breaks_glass(asked: Asked) -> bool:
    return "X-Break-Glass" in asked.call.headers


def _ids(asked: Asked, rows: Sequence[Row], ledger: Ledger) -> Iterator[str]:
    """Whether the audit has exactly the ids that an answer showed."""
    on_record = [unique_id for row in rows for unique_id in row.ids]
    if asked.accepted and asked.kind == "list":
        if not _exactly_shown(asked, on_record):
            yield f"it showed other records than the audit says: {on_record}"
        return
    if len(rows) != 1:
        yield f"it has {len(rows)} audit rows"
    if asked.accepted and asked.about is None:
        expected = [] if asked.resource == "audit" else [asked.heard.document["unique_id"]]
    else:
        # of a refused request the id is kept only if a record has or had it
        began, ended = (
            asked.about is not None and ledger.had_begun(asked.resource, asked.about, moment)
            for moment in (asked.heard.began, asked.heard.ended)
        )
        if not asked.accepted and (began is not True) and (ended is not False):
            return
        expected = [str(asked.about)] if asked.accepted or began else []
    if on_record != expected:
        yield f"the audit has the ids {on_record} of it"


def _exactly_shown(asked: Asked, on_record: list[str]) -> bool:
    """Whether the ids on record are those that a list showed.

    This is the one place where the audit may say more than was shown. Of a filtered page the record after it may be on
    record too: it is read to know whether there is a next page, and its presence is told. HEAD shows no record, and may
    be on record as a look at those that GET would have shown.
    """
    if asked.call.method == "HEAD":
        return True
    shown = [document["unique_id"] for document in asked.heard.document]
    if asked.filtered and len(on_record) == len(shown) + 1 and _has_next(asked):
        on_record = on_record[:-1]
    return on_record == shown


def _has_next(asked: Asked) -> bool:
    return "next-cursor" in asked.heard.headers or 'rel="next"' in asked.heard.headers.get("link", "")


def repeats(group: Sequence[Asked], ledger: Ledger) -> Iterator[str]:
    """What is wrong with requests that had one Idempotency-Key: the work was to be done once, and answered alike."""
    entries = [
        entry
        for asked in group
        for entry in ledger.entries.get(asked.request_id, [])
        if entry.resource == asked.resource and is_target(asked, entry)
    ]
    accepted = [asked for asked in group if asked.accepted]
    if len(entries) > 1 or (accepted and group[0].kind == "create" and not entries):
        yield f"{len(entries)} entries were made for one Idempotency-Key"
    if len({asked.heard.content for asked in accepted if asked.heard.complete}) > 1:
        yield "repeats were answered otherwise"
    if len({asked.status for asked in accepted}) > 1:
        yield "repeats were answered with another status"
    if sum("idempotency-replayed" not in asked.heard.headers for asked in accepted) > 1:
        yield "it was done twice, by what the answers say"
