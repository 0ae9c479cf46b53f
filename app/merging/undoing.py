"""Finds what has to be undone of a merge, in the history of the survivor."""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from app.errors import UndoFirstError
from app.fields.history import MAX_VERSION
from app.records.history import History

ENTRIES_PER_READ = 100
"""Number of journal entries that one statement reads. They may take a few hundred kilobytes."""


class MergeToUndo(NamedTuple):
    """A merge that can be undone."""

    version: int
    """The version of the survivor after the merge."""
    changes: Mapping[str, Mapping[str, Any]]
    """What the merge changed, by field or set of links, each with the values before (`from`) and after (`to`)."""
    edited_fields: frozenset[str]
    """The fields that have changed since, apart from later merges and their undoing."""
    edited_links: Mapping[str, frozenset[str]]
    """The ids that have been linked or unlinked since, by set of links."""


async def merge_to_undo(history: History, survivor_id: str, loser_id: str) -> MergeToUndo:
    """Return what the merge of `loser_id` into `survivor_id` changed, and what has changed since.

    The caller must have locked both records.

    Raises:
        UndoFirstError: another record was merged into the survivor later.
    """
    undone: set[str] = set()
    edits = _Edits(frozenset(history.repository.link_relations))
    before = MAX_VERSION
    while entries := await history.list_entries(survivor_id, before, ENTRIES_PER_READ):
        for entry in (json.loads(record.document) for record in entries):
            before, step = entry["version"], entry.get("merge") or {}
            merged_id = step.get("merged_from")
            edits.note_earlier(entry["record"], is_edit=step.keys().isdisjoint({"merged_from", "unmerged"}))
            if merged_id == loser_id and loser_id not in undone:
                links = {name: frozenset(ids) for name, ids in edits.links.items()}
                return MergeToUndo(before, entry["changes"], frozenset(edits.fields), links)
            if merged_id is not None and merged_id not in undone:
                raise UndoFirstError(history.repository.name, merged_id)
            undone.discard(merged_id or "")
            undone.add(step.get("unmerged", ""))
    raise AssertionError("the newest entry of the loser names the survivor, whose history names the loser")


class _Edits:
    """The changes that people have made to a record, found by comparing its snapshots from the newest to the oldest.

    Each snapshot is compared with the next later one, so that a deletion that was undone changes nothing.
    """

    def __init__(self, link_names: frozenset[str]) -> None:
        self._link_names = link_names
        self._later: dict[str, Any] | None = None
        self._is_edit = False
        self.fields: set[str] = set()
        self.links: dict[str, set[str]] = defaultdict(set)

    def note_earlier(self, snapshot: dict[str, Any] | None, *, is_edit: bool) -> None:
        """Compare a snapshot with the later one. `is_edit` says whether the change to `snapshot` was an edit."""
        if snapshot is None:
            return
        if self._is_edit and self._later is not None:
            for name in (snapshot.keys() | self._later.keys()) - {"last_updated"}:
                earlier_value, later_value = snapshot.get(name), self._later.get(name)
                if name in self._link_names:
                    self.links[name] |= {*(earlier_value or ())} ^ {*(later_value or ())}
                elif earlier_value != later_value:
                    self.fields.add(name)
        self._later, self._is_edit = snapshot, is_edit
