"""What journal and audit say, read in one snapshot, and which versions of a record a request may have met."""

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import asyncpg

from tests.hostile.asking import Asked, Caller

UNANSWERED_SECONDS = 10.0
"""How long after its entry was written a change may take to be visible, where nobody heard its answer."""
_NESTED = frozenset({"unique_id", "patient_profile", "patient_hospital", "patient_doctor"})

_JOURNAL = """
SELECT resource, unique_id, version, action, extract(epoch FROM time)::float8, actor, request_id, record
FROM journal ORDER BY resource, unique_id, version
"""
_AUDIT = """
SELECT extract(epoch FROM time)::float8, principal, method, route, status, resource, ids, request_id, reason, version
FROM audit ORDER BY id
"""


class Version(NamedTuple):
    """An entry of the journal."""

    resource: str
    unique_id: str
    version: int
    action: str
    since: float
    """When it was written, in seconds since 1970; it was visible to others only later."""
    actor: str
    request_id: str
    record: Mapping[str, Any] | None

    def seen_by(self, caller: Caller) -> bool:
        """Whether a patient's state is one that the caller may see, from behind its walls."""
        return self.record is not None and (
            caller.hospitals is None or not caller.hospitals.isdisjoint(self.record["hospital_ids"])
        )


class Row(NamedTuple):
    """A row of the audit."""

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


def record_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document as the journal keeps it: ids in the place of what is nested, and nothing that is null."""
    record = {name: value for name, value in document.items() if value is not None and name not in _NESTED}
    if "patient_hospital" in document:
        if document["patient_profile"] is not None:
            record["profile_id"] = document["patient_profile"]["unique_id"]
        record["hospital_ids"] = [hospital["unique_id"] for hospital in document["patient_hospital"]]
        record["doctor_ids"] = [doctor["unique_id"] for doctor in document["patient_doctor"]]
    return record


@dataclass
class Ledger:
    """All entries and rows, by the requests that made them."""

    asked: Mapping[str, Asked]
    """All requests by their ids."""
    versions: dict[tuple[str, str], list[Version]] = field(default_factory=lambda: defaultdict(list))
    """Those of each record, in their order."""
    entries: dict[str, list[Version]] = field(default_factory=lambda: defaultdict(list))
    rows: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    linked: dict[str, list[Version]] = field(default_factory=lambda: defaultdict(list))
    """The versions of patients that were linked to each profile."""
    ids: dict[str, list[str]] = field(default_factory=dict)
    """All ids of each resource, sorted."""

    @classmethod
    async def read(cls, connection: asyncpg.Connection, asked: Iterable[Asked]) -> Self:
        ledger = cls({one.request_id: one for one in asked})
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            journal, audit = await connection.fetch(_JOURNAL), await connection.fetch(_AUDIT)
        for *values, record in journal:
            version = Version._make([*values, record and json.loads(record)])
            ledger.versions[version.resource, version.unique_id].append(version)
            ledger.entries[version.request_id].append(version)
            if version.resource == "patients" and version.record and "profile_id" in version.record:
                ledger.linked[version.record["profile_id"]].append(version)
        for values in audit:
            row = Row._make(values)
            ledger.rows[row.request_id].append(row)
            one = ledger.asked.get(row.request_id)
            if one is not None and one.hang_up is not None:  # the service was at work after nobody listened any more
                one.heard.ended = max(one.heard.ended, row.time)
        for resource in {resource for resource, _ in ledger.versions}:
            ledger.ids[resource] = sorted(unique_id for kind, unique_id in ledger.versions if kind == resource)
        return ledger

    def after(self, version: Version) -> Version | None:
        """The version that follows one, if there is one."""
        of_record = self.versions[version.resource, version.unique_id]
        place = version.version - of_record[0].version + 1
        return of_record[place] if place < len(of_record) else None

    def before(self, version: Version) -> Version | None:
        """The last version before one that was no deletion."""
        earlier = self.versions[version.resource, version.unique_id][: version.version - 1]
        return next((one for one in reversed(earlier) if one.record is not None), None)

    def _visible_at_latest(self, version: Version) -> float:
        """The moment from which everybody sees a version: its commit came before its answer."""
        asked = self.asked.get(version.request_id)
        if asked is not None and asked.accepted and asked.heard.complete:
            return asked.heard.ended
        return version.since + UNANSWERED_SECONDS

    def possible(self, version: Version, asked: Asked) -> bool:
        """Whether a version may have been the current one at some moment of a request."""
        following = self.after(version)
        gone = following is not None and self._visible_at_latest(following) < asked.heard.began
        return version.since <= asked.heard.ended and not gone

    def possible_versions(self, resource: str, unique_id: str, asked: Asked) -> Iterator[Version]:
        """The versions of a record that a request may have met."""
        return (one for one in self.versions.get((resource, unique_id), ()) if self.possible(one, asked))

    def certain(self, resource: str, unique_id: str, asked: Asked) -> Version | None:
        """The version of a record that was the current one during all of a request, if one certainly was."""
        of_record = self.versions.get((resource, unique_id), [])
        place = bisect_right(of_record, asked.heard.began, key=lambda one: one.since)
        if place == 0 or (place < len(of_record) and of_record[place].since < asked.heard.ended):
            return None
        found = of_record[place - 1]
        return found if self._visible_at_latest(found) <= asked.heard.began else None

    def between(self, resource: str, after: str, last: str | None) -> list[str]:
        """The ids of a resource beyond one, up to another; None is the end."""
        ids = self.ids.get(resource, [])
        return ids[bisect_right(ids, after) : len(ids) if last is None else bisect_right(ids, last)]

    def version_of(self, resource: str, document: Mapping[str, Any]) -> Version | None:
        """The version that a document is of, in all of its fields."""
        record = record_of(document)
        of_record = self.versions.get((resource, document["unique_id"]), [])
        return next((one for one in of_record if one.record == record), None)

    def may_see_profile(self, unique_id: str, caller: Caller, asked: Asked) -> bool:
        """Whether the caller may have seen a profile, through a patient that it sees, at some moment of a request."""
        return caller.hospitals is None or any(
            one.seen_by(caller) and self.possible(one, asked) for one in self.linked.get(unique_id, ())
        )

    def had_begun(self, resource: str, unique_id: str, moment: float) -> bool | None:
        """Whether a record was known at a moment; None where it was becoming so just then."""
        of_record = self.versions.get((resource, unique_id))
        if not of_record or of_record[0].since > moment:
            return False
        return True if self._visible_at_latest(of_record[0]) < moment else None
