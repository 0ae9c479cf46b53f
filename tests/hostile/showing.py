"""What an answer shows, compared with the versions of records that the journal has."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from app.resource.preconditions import entity_tag
from tests.hostile.asking import Asked
from tests.hostile.ledger import Ledger, Version, record_of

SHOWN = frozenset({"get", "create", "update", "restore"})
"""Kinds of requests that are answered with one record."""


class Tags:
    """The documents that tags were answered with."""

    def __init__(self, asked: Iterable[Asked]) -> None:
        self._documents: dict[str, Mapping[str, Any]] = {}
        for one in asked:
            if one.heard.content and one.accepted and one.kind in SHOWN and "etag" in one.heard.headers:
                self._documents[one.heard.headers["etag"]] = one.heard.document

    def document(self, tag: str) -> Mapping[str, Any] | None:
        return self._documents.get(tag)


def flaws(asked: Asked, ledger: Ledger, tags: Tags) -> Iterator[str]:
    """What is wrong with what a request was shown."""
    heard = asked.heard
    yield from _on_record(asked, ledger)
    if heard.status == 404 and asked.kind == "get":
        yield from _hidden(asked, ledger)
    if heard.complete and asked.accepted:
        if heard.status == 304:
            yield from _unchanged(asked, ledger, tags)
        elif asked.call.method == "HEAD" or heard.status == 204:
            if heard.content:
                yield "its answer has a body"
        else:
            yield from _shown(asked, ledger, tags)


def _shown(asked: Asked, ledger: Ledger, tags: Tags) -> Iterator[str]:
    """What is wrong with the body of an answer."""
    shown = asked.heard.document
    if asked.kind in SHOWN:
        if asked.heard.headers.get("etag") != entity_tag(asked.heard.text):
            yield "its ETag is not that of its document"
        yield from _document(asked, shown, ledger)
        yield from _made(asked, ledger, tags)
    elif asked.kind == "list":
        for document in shown:
            yield from _document(asked, document, ledger)
        if not asked.filtered:
            yield from _missing(asked, ledger)
    elif asked.kind in {"history", "version"}:
        yield from _history(asked, shown if asked.kind == "history" else [shown], ledger)


def _walled(asked: Asked) -> bool:
    return asked.caller.hospitals is not None and "X-Break-Glass" not in asked.call.headers


def _visible(asked: Asked, resource: str, version: Version, ledger: Ledger) -> bool:
    """Whether a request may show a version of a record, walls being where they are."""
    if not _walled(asked) or resource not in {"patients", "profiles"}:
        return True
    if resource == "profiles":
        return ledger.may_see_profile(version.unique_id, asked.caller, asked)
    return version.seen_by(asked.caller)


def _document(asked: Asked, document: Mapping[str, Any], ledger: Ledger) -> Iterator[str]:
    """Whether a document is a version of its record that was there, whole, and to be seen, while it was asked for."""
    name = document["unique_id"]
    version = ledger.version_of(asked.resource, document)
    if version is None:
        yield f"it shows what no version of {name} was"
        return
    if "idempotency-replayed" in asked.heard.headers:
        versions = ledger.possible_versions(asked.resource, name, asked)
        if not any(_visible(asked, asked.resource, one, ledger) for one in versions):
            yield f"it shows {name} again, which its caller does not see"
        return
    if not ledger.possible(version, asked):
        yield f"it shows version {version.version} of {name}, which was not current"
    if not _visible(asked, asked.resource, version, ledger):
        yield f"it shows {name}, which its caller does not see"
    for resource, nested in _nested(document):
        versions = ledger.possible_versions(resource, nested["unique_id"], asked)
        if not any(nested.items() <= {"unique_id": one.unique_id, **_padded(nested, one)}.items() for one in versions):
            yield f"it shows {nested['unique_id']} inside {name} as it was not"


def _nested(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if document.get("patient_profile"):
        yield "profiles", document["patient_profile"]
    for hospital in document.get("patient_hospital", ()):
        yield "hospitals", hospital


def _padded(nested: Mapping[str, Any], version: Version) -> Mapping[str, Any]:
    """A version's record with the nulls that a document has."""
    return {**dict.fromkeys(nested), **(version.record or {}), "unique_id": version.unique_id}


def _made(asked: Asked, ledger: Ledger, tags: Tags) -> Iterator[str]:
    """Whether the answer to a change is the version that it made, of one that was what If-Match said."""
    entries = ledger.entries.get(asked.request_id, [])
    made = [entry for entry in entries if entry.unique_id == asked.heard.document["unique_id"]]
    made = [entry for entry in made if entry.resource == asked.resource]
    if made and made[0].record != record_of(asked.heard.document):
        yield "its answer is not the version that it made"
    before = made and ledger.before(made[0])
    known = tags.document(asked.call.headers.get("If-Match", ""))
    # what a deleted record's tag was is nothing that a condition could be held against
    if before and known is not None and before.version == made[0].version - 1 and before.record != record_of(known):
        yield "it changed what was not the version of its If-Match"


def _unchanged(asked: Asked, ledger: Ledger, tags: Tags) -> Iterator[str]:
    """Whether a record was what a 304 says that it still is."""
    known = tags.document(asked.call.headers["If-None-Match"])
    if known is None or known["unique_id"] != asked.about:
        yield "its 304 is about a tag that this record never had"
        return
    yield from _document(asked, known, ledger)


def _hidden(asked: Asked, ledger: Ledger) -> Iterator[str]:
    """Whether a record that was not found was certainly there to be seen."""
    there = ledger.certain(asked.resource, str(asked.about), asked)
    if there is None or there.record is None or asked.resource == "profiles":
        return
    if not _walled(asked) or there.seen_by(asked.caller):
        yield "the record was there, and was not found"


def _missing(asked: Asked, ledger: Ledger) -> Iterator[str]:
    """Whether an unfiltered list, or a page of one, lacks a record that was certainly there to be seen."""
    shown = [document["unique_id"] for document in asked.heard.document]
    if shown != sorted(set(shown)):
        yield "it is not in the order of the ids, each once"
    if asked.resource != "patients" or not shown:
        return
    ends = 'rel="next"' not in asked.heard.headers.get("link", "")
    for unique_id in ledger.between(asked.resource, asked.after or "", None if ends else shown[-1]):
        there = ledger.certain(asked.resource, unique_id, asked)
        if there is not None and there.seen_by(asked.caller) and unique_id not in shown:
            yield f"it lacks {unique_id} between {asked.after} and {shown[-1]}"


def _history(asked: Asked, entries: Iterable[Mapping[str, Any]], ledger: Ledger) -> Iterator[str]:
    """Whether entries are the journal's, of a record of which the caller may know."""
    of_record = ledger.versions.get((asked.resource, str(asked.about)), [])
    for entry in entries:
        version = of_record[entry["version"] - 1]
        told = (entry["action"], entry["actor"], entry["request_id"], entry["record"])
        if told != (version.action, version.actor, version.request_id, version.record):
            yield f"it shows version {version.version} otherwise than the journal has it"
        if abs(datetime.fromisoformat(entry["time"]).timestamp() - version.since) > 0.001:
            yield f"it shows another time of version {version.version}"
    possible = list(ledger.possible_versions(asked.resource, str(asked.about), asked))
    # of a deleted record, who saw it until then knows
    states = [one if one.record is not None else ledger.before(one) for one in possible]
    if _walled(asked) and not any(state is not None and state.seen_by(asked.caller) for state in states):
        yield "it shows the history of a record that its caller does not know"


def _on_record(asked: Asked, ledger: Ledger) -> Iterator[str]:
    """Whether the audit says of a look, be its client still there or not, that it showed what was hidden."""
    if asked.caller.hospitals is None or asked.changes or asked.resource != "patients" or asked.kind == "audit":
        return
    for row in ledger.rows.get(asked.request_id, []):
        if row.status >= 400 or row.reason is not None or asked.kind in {"history", "version"}:
            continue
        for unique_id in row.ids:
            versions = ledger.possible_versions("patients", unique_id, asked)
            if not any(one.seen_by(asked.caller) for one in versions):
                yield f"the audit says that it was shown {unique_id}, which its caller does not see"
