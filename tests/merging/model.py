"""A plain model of patients that are created, edited, deleted, restored, merged and separated again.

It keeps what the service derives from its journal: each merge of a survivor with what it changed, and what has been
edited since.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

State = dict[str, Any]
"""The values of a patient by field; sets of links are frozensets of ids."""
FIELDS = ("patient_title", "patient_race", "patient_region", "patient_access_medical_care", "patient_profile")
SETS = ("hospital_ids", "doctor_ids", "patient_identifiers")


class Entry(NamedTuple):
    """An entry of a history."""

    action: str
    state: State | None
    merge: dict[str, str] | None = None


@dataclass
class Merge:
    """A merge that was not undone, as the survivor knows it."""

    loser: str
    before: State
    """The former values of the fields that it changed."""
    added: dict[str, frozenset[str]]
    edited: set[str] = field(default_factory=set)
    """The fields that were edited since, and the ids of links that were added or removed since."""


@dataclass
class Patient:
    """A patient, which may be deleted or merged."""

    entries: list[Entry]
    state: State | None
    merged_into: str | None = None
    merges: list[Merge] = field(default_factory=list)
    events: list[tuple[int, str]] = field(default_factory=list)
    """The number and the id of each request that showed or changed the patient."""
    spans: list[tuple[str, int, int | None]] = field(default_factory=list)
    """The survivors that it was merged into, with the numbers of the first and the last request."""

    @property
    def last_state(self) -> State:
        """The last state before a deletion or a merge."""
        return next(entry.state for entry in reversed(self.entries) if entry.state is not None)


class Outcome(NamedTuple):
    """The response that the model expects."""

    status: int
    body: Mapping[str, Any] = {}


NOT_FOUND = Outcome(404)


class Model:
    """All patients, and the queue of pairs. Each operation is on behalf of a principal's hospitals, None for all."""

    def __init__(self) -> None:
        self.patients: dict[str, Patient] = {}
        self.decided: dict[frozenset[str], str] = {}
        """The status of each pair that was dismissed or merged."""
        self.undetermined: set[frozenset[str]] = set()
        """The dismissed pairs of patients whose identifiers have changed since. They return to the queue, but only if
        they were compared while the identifiers were different."""
        self.number = 0
        self.request_id = ""

    def begin(self, request_id: str) -> None:
        """Begin with the next request."""
        self.number += 1
        self.request_id = request_id

    # what a principal sees

    def sees(self, scope: frozenset[str] | None, unique_id: str) -> bool:
        """Return whether a principal sees a patient."""
        state = self.patients[unique_id].state if unique_id in self.patients else None
        return state is not None and (scope is None or not scope.isdisjoint(state["hospital_ids"]))

    def may_know(self, scope: frozenset[str] | None, unique_id: str) -> bool:
        """Return whether a principal may see the history of a patient."""
        if unique_id not in self.patients:
            return False
        last = self.patients[unique_id].last_state
        return scope is None or not scope.isdisjoint(last["hospital_ids"])

    def missing(self, scope: frozenset[str] | None, unique_id: str) -> Outcome:
        """Return the response for a patient that the principal does not see: 404, or 410 if it was merged."""
        merged_into = None
        while self.may_know(scope, unique_id) and self.patients[unique_id].merged_into is not None:
            merged_into = unique_id = self.patients[unique_id].merged_into or ""
        return NOT_FOUND if merged_into is None else Outcome(410, {"merged_into": merged_into})

    def pairs(self, scope: frozenset[str] | None, status: str) -> set[frozenset[str]]:
        """Return the pairs of the queue that a principal sees. All patients resemble each other."""
        seen = {unique_id for unique_id in self.patients if self.sees(scope, unique_id)}
        if status != "open":
            needed = 1 if status == "merged" else 2
            decided = {pair for pair, decision in self.decided.items() if decision == status}
            return {pair for pair in decided if len(pair & seen) >= needed}
        every = {frozenset((one, other)) for one in seen for other in seen if one != other}
        return every - self.decided.keys()

    def report(self, unique_id: str) -> set[str]:
        """Return the ids of the requests in the access report of a patient."""
        return set(self._events_below(unique_id)) | set(self._events_above(unique_id, 0, self.number))

    def _events_below(self, unique_id: str) -> Iterator[str]:
        yield from (request_id for _, request_id in self.patients[unique_id].events)
        for loser, patient in self.patients.items():
            if patient.merged_into == unique_id:
                yield from self._events_below(loser)

    def _events_above(self, unique_id: str, since: int, until: int) -> Iterator[str]:
        for survivor, first, last in self.patients[unique_id].spans:
            begin, end = max(since, first), min(until, self.number if last is None else last)
            if begin <= end:
                events = self.patients[survivor].events
                yield from (request_id for number, request_id in events if begin <= number <= end)
                yield from self._events_above(survivor, begin, end)

    def decide(self, one: str, other: str, status: str | None) -> None:
        """Set the status of a pair, or None for a pair on which nobody has decided."""
        pair = frozenset((one, other))
        self.undetermined.discard(pair)
        self.decided.pop(pair, None)
        if status is not None:
            self.decided[pair] = status

    # what a principal does

    def _shown(self, *ids: str) -> None:
        for unique_id in ids:
            self.patients[unique_id].events.append((self.number, self.request_id))

    def _write(self, unique_id: str, action: str, state: State, merge: dict[str, str] | None = None) -> None:
        patient = self.patients[unique_id]
        if patient.entries and patient.last_state["patient_identifiers"] != state["patient_identifiers"]:
            self.undetermined |= {
                pair for pair, status in self.decided.items() if status == "dismissed" and unique_id in pair
            }
        patient.state = state
        patient.entries.append(Entry(action, state, merge))
        self._shown(unique_id)

    def create(self, unique_id: str, state: State) -> None:
        self.patients[unique_id] = Patient([], None)
        self._write(unique_id, "created", state)

    def get(self, scope: frozenset[str] | None, unique_id: str) -> Outcome:
        if not self.sees(scope, unique_id):
            return self.missing(scope, unique_id)
        self._shown(unique_id)
        return Outcome(200)

    def edit(self, scope: frozenset[str] | None, unique_id: str, changes: State) -> Outcome:
        if not self.sees(scope, unique_id):
            return self.missing(scope, unique_id)
        self._edit(unique_id, {**(self.patients[unique_id].state or {}), **changes}, "updated")
        return Outcome(200)

    def _edit(self, unique_id: str, state: State, action: str) -> None:
        patient = self.patients[unique_id]
        if patient.state == state:
            self._shown(unique_id)
            return
        before = patient.last_state
        for merge in patient.merges:
            merge.edited |= {name for name in FIELDS if before[name] != state[name]}
            merge.edited |= {link for name in SETS for link in before[name] ^ state[name]}
        self._write(unique_id, action, state)

    def delete(self, scope: frozenset[str] | None, unique_id: str) -> Outcome:
        if not self.sees(scope, unique_id):
            return self.missing(scope, unique_id)
        self._remove(unique_id, Entry("deleted", None))
        return Outcome(204)

    def _remove(self, unique_id: str, entry: Entry) -> None:
        patient = self.patients[unique_id]
        patient.entries.append(entry)
        patient.state = None
        self._shown(unique_id)

    def restore(self, unique_id: str, version: int) -> Outcome:
        patient = self.patients[unique_id]
        if patient.merged_into is not None:
            return self.missing(None, unique_id)
        state = patient.entries[version - 1].state if version <= len(patient.entries) else None
        if state is None:
            return Outcome(422)
        self._edit(unique_id, state, "restored")
        return Outcome(200)

    def merge(self, scope: frozenset[str] | None, survivor: str, loser: str, choose: dict[str, str]) -> Outcome:
        if survivor != loser and not self.sees(scope, survivor):
            return self.missing(scope, survivor)
        if survivor == loser or not self.may_know(scope, loser):
            return Outcome(422)
        one, other = self.patients[survivor], self.patients[loser]
        if other.merged_into is not None:
            if other.merged_into != survivor:
                return Outcome(409, {"merged_into": other.merged_into})
            self._shown(survivor, loser)
            return Outcome(200)
        if other.state is None or one.state is None:
            return Outcome(422)
        state = dict(one.state)
        for name in FIELDS:
            side = choose.get(name) or ("loser" if state[name] is None else "survivor")
            state[name] = other.state[name] if side == "loser" else state[name]
        state |= {name: state[name] | other.state[name] for name in SETS}
        changed = {name: one.state[name] for name in FIELDS if one.state[name] != state[name]}
        one.merges.append(Merge(loser, changed, {name: state[name] - one.state[name] for name in SETS}))
        other.merged_into = survivor
        other.spans.append((survivor, self.number, None))
        self._remove(loser, Entry("merged", None, {"merged_into": survivor}))
        self._write(survivor, "updated", state, {"merged_from": loser})
        self.decide(survivor, loser, "merged")
        return Outcome(200)

    def unmerge(self, scope: frozenset[str] | None, loser: str) -> Outcome:
        if not self.may_know(scope, loser):
            return NOT_FOUND
        other = self.patients[loser]
        survivor = other.merged_into
        if survivor is None:
            return Outcome(409)
        one = self.patients[survivor]
        if not self.sees(scope, survivor) or one.state is None:
            is_merged = self.may_know(scope, survivor) and one.merged_into is not None
            return Outcome(409, {"undo_first": survivor} if is_merged else {})
        merge = one.merges[-1]
        if merge.loser != loser:
            return Outcome(409, {"undo_first": merge.loser})
        one.merges.pop()
        state = {**one.state, **{name: value for name, value in merge.before.items() if name not in merge.edited}}
        kept = [name for name in merge.before if name in merge.edited]
        for name, added in merge.added.items():
            edited = merge.edited if name != "patient_identifiers" else set()  # identifiers all go back
            state[name] -= added - edited
            kept += [name] if added & edited else []
        other.merged_into = None
        span = other.spans.pop()
        other.spans.append((span[0], span[1], self.number))
        self._write(survivor, "updated", state, {"unmerged": loser})
        self._write(loser, "unmerged", other.last_state, {"unmerged_from": survivor})
        self.decide(survivor, loser, None)
        return Outcome(200, {"survivor": survivor, "kept": sorted(kept)})
