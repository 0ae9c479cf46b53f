"""The contents of journal and audit in one snapshot, and the versions of a record that a request may have seen."""

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import asyncpg

from tests.hostile.random_requests import Caller, SentRequest

MAX_COMMIT_DELAY_SECONDS = 10.0
"""The longest delay between writing an entry and its visibility, for changes without a received response."""
_NESTED_FIELDS = frozenset({"unique_id", "patient_profile", "patient_hospital", "patient_doctor"})

_SELECT_JOURNAL = """
SELECT resource, unique_id, version, action, extract(epoch FROM time)::float8, actor, request_id, record
FROM journal ORDER BY resource, unique_id, version
"""
_SELECT_AUDIT = """
SELECT extract(epoch FROM time)::float8, principal, method, route, status, resource, ids, request_id, reason, version
FROM audit ORDER BY id
"""


class Version(NamedTuple):
    """A journal entry."""

    resource: str
    unique_id: str
    version: int
    action: str
    written_at: float
    """When it was written, in seconds since 1970; others see it only later."""
    actor: str
    request_id: str
    record: Mapping[str, Any] | None

    def is_visible_to(self, caller: Caller) -> bool:
        """Return whether the patient's state is within the caller's hospital scope."""
        return self.record is not None and (
            caller.hospitals is None or not caller.hospitals.isdisjoint(self.record["hospital_ids"])
        )


class AuditRow(NamedTuple):
    """An audit row."""

    time: float
    principal: str
    method: str
    route: str
    status: int
    resource: str
    ids: list[str]
    request_id: str
    reason: str | None
    version: int | None


def record_from_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a document to its form in the journal: ids instead of nested records, and no nulls."""
    record = {name: value for name, value in document.items() if value is not None and name not in _NESTED_FIELDS}
    if "patient_hospital" in document:
        if document["patient_profile"] is not None:
            record["profile_id"] = document["patient_profile"]["unique_id"]
        record["hospital_ids"] = [hospital["unique_id"] for hospital in document["patient_hospital"]]
        record["doctor_ids"] = [doctor["unique_id"] for doctor in document["patient_doctor"]]
    return record


@dataclass
class Ledger:
    """All journal entries and audit rows, by the requests that made them."""

    requests: Mapping[str, SentRequest]
    """All requests by their ids."""
    versions: dict[tuple[str, str], list[Version]] = field(default_factory=lambda: defaultdict(list))
    """The versions of each record in order."""
    entries: dict[str, list[Version]] = field(default_factory=lambda: defaultdict(list))
    audit_rows: dict[str, list[AuditRow]] = field(default_factory=lambda: defaultdict(list))
    versions_by_profile: dict[str, list[Version]] = field(default_factory=lambda: defaultdict(list))
    """The versions of patients that were linked to each profile."""
    sorted_ids: dict[str, list[str]] = field(default_factory=dict)
    """All ids of each resource, sorted."""

    @classmethod
    async def read(cls, connection: asyncpg.Connection, requests: Iterable[SentRequest]) -> Self:
        ledger = cls({one.request_id: one for one in requests})
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            journal, audit = await connection.fetch(_SELECT_JOURNAL), await connection.fetch(_SELECT_AUDIT)
        for *values, record in journal:
            version = Version._make([*values, record and json.loads(record)])
            ledger.versions[version.resource, version.unique_id].append(version)
            ledger.entries[version.request_id].append(version)
            if version.resource == "patients" and version.record and "profile_id" in version.record:
                ledger.versions_by_profile[version.record["profile_id"]].append(version)
        for values in audit:
            row = AuditRow._make(values)
            ledger.audit_rows[row.request_id].append(row)
            one = ledger.requests.get(row.request_id)
            if one is not None and one.hang_up is not None:  # the service went on after the client disconnected
                one.heard.ended_at = max(one.heard.ended_at, row.time)
        for resource in {resource for resource, _ in ledger.versions}:
            ledger.sorted_ids[resource] = sorted(unique_id for kind, unique_id in ledger.versions if kind == resource)
        return ledger

    def next_version(self, version: Version) -> Version | None:
        """Return the version that follows this one, if any."""
        of_record = self.versions[version.resource, version.unique_id]
        index = version.version - of_record[0].version + 1
        return of_record[index] if index < len(of_record) else None

    def previous_version(self, version: Version) -> Version | None:
        """Return the last version before this one that is not a deletion."""
        earlier = self.versions[version.resource, version.unique_id][: version.version - 1]
        return next((one for one in reversed(earlier) if one.record is not None), None)

    def _latest_visibility(self, version: Version) -> float:
        """Return the time from which every reader sees a version: its commit precedes its response."""
        request = self.requests.get(version.request_id)
        if request is not None and request.is_accepted and request.heard.is_complete:
            return request.heard.ended_at
        return version.written_at + MAX_COMMIT_DELAY_SECONDS

    def may_have_been_current(self, version: Version, request: SentRequest) -> bool:
        """Return whether a version may have been current at some time during a request."""
        following = self.next_version(version)
        gone = following is not None and self._latest_visibility(following) < request.heard.started_at
        return version.written_at <= request.heard.ended_at and not gone

    def possible_versions(self, resource: str, unique_id: str, request: SentRequest) -> Iterator[Version]:
        """Return the versions of a record that a request may have seen."""
        return (one for one in self.versions.get((resource, unique_id), ()) if self.may_have_been_current(one, request))

    def certain_version(self, resource: str, unique_id: str, request: SentRequest) -> Version | None:
        """Return the version of a record that was certainly current during a whole request, if any."""
        of_record = self.versions.get((resource, unique_id), [])
        index = bisect_right(of_record, request.heard.started_at, key=lambda one: one.written_at)
        if index == 0 or (index < len(of_record) and of_record[index].written_at < request.heard.ended_at):
            return None
        candidate = of_record[index - 1]
        return candidate if self._latest_visibility(candidate) <= request.heard.started_at else None

    def ids_between(self, resource: str, after: str, last: str | None) -> list[str]:
        """Return the ids of a resource after one id and up to another; None is the end."""
        ids = self.sorted_ids.get(resource, [])
        return ids[bisect_right(ids, after) : len(ids) if last is None else bisect_right(ids, last)]

    def matching_version(self, resource: str, document: Mapping[str, Any]) -> Version | None:
        """Return the version with the same fields as the document, if any."""
        record = record_from_document(document)
        of_record = self.versions.get((resource, document["unique_id"]), [])
        return next((one for one in of_record if one.record == record), None)

    def may_have_seen_profile(self, unique_id: str, caller: Caller, request: SentRequest) -> bool:
        """Return whether a caller may have seen a profile through a visible patient at some time during a request."""
        return caller.hospitals is None or any(
            one.is_visible_to(caller) and self.may_have_been_current(one, request)
            for one in self.versions_by_profile.get(unique_id, ())
        )

    def existed_at(self, resource: str, unique_id: str, timestamp: float) -> bool | None:
        """Return whether a record existed at a time, or None if it was being created then."""
        of_record = self.versions.get((resource, unique_id))
        if not of_record or of_record[0].written_at > timestamp:
            return False
        return True if self._latest_visibility(of_record[0]) < timestamp else None
