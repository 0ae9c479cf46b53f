"""The operations that merge two records into one and undo this.

The journal entries of both records name the merge. Nothing else is stored about it: what it changed, and what has been
changed since, follows from the journal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, TypeVar

from sqlalchemy import select
from sqlalchemy.engine import RowMapping

from app.audit.merged_patients import SHOWN_IN
from app.errors import (
    AlreadyMergedError,
    FieldError,
    NotFoundError,
    NotMergedError,
    PreconditionFailedError,
    PreconditionRequiredError,
    SurvivorMissingError,
    UndoFirstError,
    ValidationFailedError,
)
from app.fields.schemas import CreateBody, UpdateBody
from app.matching.decisions import delete_merged_pair, store_merged_pair
from app.merging.schemas import Choices, MergeRequest, UnmergeRequest
from app.merging.undoing import MergeToUndo, merge_to_undo
from app.patient_identifiers.resolving import IDENTIFIERS, difference, union
from app.records.history import History
from app.records.missing import NewestEntry, missing_error, newest_entry
from app.records.preconditions import Precondition
from app.records.repository import Repository
from app.records.results import Record
from app.records.service import Service, dangling_link_error, raise_if_any
from app.statements.documents import ToOne
from app.statements.journal_entries import EntryKind
from app.statements.write_statements import client_columns

C = TypeVar("C", bound=CreateBody)
U = TypeVar("U", bound=UpdateBody)


_SELECT_LOSERS = select(SHOWN_IN.c.unique_id).where(SHOWN_IN.c.way == "loser").order_by(SHOWN_IN.c.unique_id)


def choosable_columns(repository_class: type[Repository]) -> Mapping[str, str]:
    """Return the columns whose values a merge can choose, by the name of the field in the document."""
    relations = repository_class.document.relations.items()
    fields = {relation.foreign_key_name: field for field, relation in relations if isinstance(relation, ToOne)}
    names = (name for name in client_columns(repository_class.table) if name != IDENTIFIERS)
    return {fields.get(name, name): name for name in names}


class UnmergeResult(NamedTuple):
    """The record after its merge was undone, and the part of the merge that remains in the survivor."""

    record: Record
    survivor_id: str
    kept: list[str]
    """The names of the survivor's fields that the merge had changed and that stay, because they have changed since."""


class MergingService(Service[C, U]):
    """The operations on records that can be merged. Each call runs in a transaction."""

    alternative_columns: ClassVar[tuple[str, ...]] = ()
    """The columns at least one of which must have a value."""
    alternatives_error: ClassVar[FieldError]
    """The error for a choice that leaves all `alternative_columns` without a value."""

    async def merge(self, unique_id: str, body: MergeRequest, precondition: Precondition) -> Record:
        """Merge a record into the one with the id `unique_id`, and return the latter.

        The survivor gets the chosen values and the links of both. The loser leaves the table, and its newest journal
        entry names the survivor. If the records are merged already, nothing is written.

        Raises:
            NotFoundError: no visible record has the id `unique_id`.
            MergedError: this record was merged into another one.
            ValidationFailedError: no visible record has the id of the loser; both ids are the same; or the choice
                leaves the survivor without values that it needs.
            AlreadyMergedError: the loser was merged into another record.
            PreconditionFailedError, PreconditionRequiredError: see `Precondition.check`; also for the loser.
        """
        loser_id = body.loser_id
        if loser_id == unique_id:
            message = f"Must be another {self.repository.name} than the one in the path"
            raise ValidationFailedError([FieldError(("body", "from"), message, "same_record")])
        # before the locks, so that no request waits for a record that its principal may not see
        if not await self.repository.is_visible(unique_id):
            raise await missing_error(self.repository, unique_id)
        if precondition.required and None in {precondition.if_match, body.from_etag}:
            raise PreconditionRequiredError(", and from_etag with that of the other one")
        if await newest_entry(self.repository, loser_id) is None:
            raise self._unknown_loser_error()
        await self._lock_ids(unique_id, loser_id)
        if await self._is_merged_into(loser_id, unique_id):
            return await self.repository.get(unique_id)
        survivor, loser = await self._lock_both(unique_id, loser_id)
        await self._check_locked(survivor, precondition)
        await self._check_loser(loser, replace(precondition, if_match=body.from_etag, if_none_match=None))
        values = self._chosen_values(survivor, loser, body.choose)
        links = await self._united_links(unique_id, loser_id)
        await store_merged_pair(self.connection, unique_id, loser_id)
        repository = self.repository.unrestricted  # the survivor gets all links, whatever the principal may link
        await repository.delete(loser_id, EntryKind("merged", {"merged_into": unique_id}))
        result = await repository.update(survivor, values, links, EntryKind("updated", {"merged_from": loser_id}))
        return await self._ensure_journaled(result, "updated")

    async def unmerge(self, unique_id: str, body: UnmergeRequest, precondition: Precondition) -> UnmergeResult:
        """Undo the merge of the record with the id `unique_id`.

        The record is as it was before. The survivor loses what the merge gave to it, except for fields and links that
        have changed since.

        Raises:
            NotFoundError: there never was a record with this id, or the principal may not see its history.
            NotMergedError: the record is not merged into another one.
            SurvivorMissingError: the record that it was merged into is not there, or is not visible.
            UndoFirstError: a later merge has to be undone first.
            PreconditionFailedError: the request has an If-Match, but a merged record has no representation.
            PatientIdentifierTakenError: another patient has got one of its identifiers.
            ValidationFailedError: the record had a link to a record that no longer exists, and the body does not set
                `skip_missing`.
        """
        survivor_id = self._survivor_id(await self._known_entry(unique_id))
        await self._lock_ids(unique_id, survivor_id)
        entry = await self._known_entry(unique_id)
        if self._survivor_id(entry) != survivor_id:
            raise self.repository.conflict_error()
        replace(precondition, required=False).check(None)
        survivor = await self._lock_survivor(survivor_id)
        history = History(self.repository.unrestricted)
        merge = await merge_to_undo(history, survivor_id, unique_id)
        kept, errors = await self._take_back(survivor, merge, history, unique_id)
        state = await history.past_state(unique_id, entry.version - 1)
        columns = state.columns
        errors += await self._drop_dangling_references(unique_id, columns, dict(columns))
        kind = EntryKind("unmerged", {"unmerged_from": survivor_id})
        result = await history.repository.create(
            unique_id, {**columns, "version": entry.version + 1}, state.links, kind
        )
        errors += [
            dangling_link_error(name.removesuffix("_ids"), target)
            for name, _, target in result.link_result.unlinkable_ids()
        ]
        if not body.skip_missing:
            raise_if_any(errors)
        await delete_merged_pair(self.connection, unique_id, survivor_id)
        return UnmergeResult(await self._ensure_journaled(result, "unmerged"), survivor_id, kept)

    def _lacks_alternatives(self, values: Mapping[str, Any]) -> bool:
        """Return whether all `alternative_columns`, at least one of which must have a value, are empty in `values`."""
        return bool(self.alternative_columns) and all(values[name] is None for name in self.alternative_columns)

    def _check_past_values(self, values: Mapping[str, Any]) -> None:
        if self._lacks_alternatives(values):
            raise ValidationFailedError([self.alternatives_error._replace(loc=("body", "version"))])

    async def _take_back(
        self, survivor: RowMapping, merge: MergeToUndo, history: History, loser_id: str
    ) -> tuple[list[str], list[FieldError]]:
        """Take from the survivor what the merge gave to it, except for what has changed since.

        Return the names of the fields that stay, and an error for each reference to a missing record.
        """
        survivor_id: str = survivor["unique_id"]
        before = (await history.past_state(survivor_id, merge.version - 1)).columns
        current = await history.latest_snapshot(survivor_id) or {}
        link_names = history.repository.link_relations.keys()
        changed = merge.changes.keys() - link_names
        values = {name: before[name] for name in changed - merge.edited_fields - {IDENTIFIERS}}
        if self._lacks_alternatives({**survivor, **values}):
            values = {name: value for name, value in values.items() if name not in self.alternative_columns}
        kept = changed - values.keys() - {IDENTIFIERS}
        if IDENTIFIERS in changed:  # all go back, even if edited since, because two records cannot have the same
            added_identifiers = difference(merge.changes[IDENTIFIERS]["to"], merge.changes[IDENTIFIERS]["from"])
            values[IDENTIFIERS] = difference(survivor[IDENTIFIERS], added_identifiers)
        links: dict[str, list[str]] = {}
        for name in merge.changes.keys() & link_names:
            added = {*merge.changes[name]["to"]} - {*merge.changes[name]["from"]}
            edited = merge.edited_links.get(name, frozenset())
            links[name] = sorted({*current[name]} - (added - edited))
            kept |= {name} if added & edited else set()
        errors = await self._drop_dangling_references(survivor_id, values, dict(values))
        kind = EntryKind("updated", {"unmerged": loser_id})
        await self._ensure_journaled(await history.repository.update(survivor, values, links, kind), "updated")
        fields = {column: field for field, column in choosable_columns(type(self.repository)).items()}
        return sorted(fields.get(name, name) for name in kept), errors

    async def _lock_ids(self, *ids: str) -> None:
        """Lock the ids of the records of a merge, in an order that all merges have, so that they do not deadlock."""
        for each in sorted(ids):
            await self.repository.advisory_lock(each)

    async def _lock_losers(self, unique_id: str) -> Sequence[str]:
        """Lock the ids of the records that are merged into this one, and return them."""
        losers: Sequence[str] = (await self.connection.execute(_SELECT_LOSERS, {"id": unique_id})).scalars().all()
        await self._lock_ids(*losers)
        return losers

    async def _lock_both(self, survivor_id: str, loser_id: str) -> tuple[RowMapping, RowMapping]:
        """Lock both records, the loser for its deletion, and return their columns."""
        locked = {}
        for each in sorted((survivor_id, loser_id)):
            try:
                if each == loser_id:
                    await self.repository.lock_for_deletion(each)
                locked[each] = await self.repository.lock(each)
            except NotFoundError:
                if each == loser_id:
                    raise self._unknown_loser_error() from None
                raise
        return locked[survivor_id], locked[loser_id]

    async def _lock_survivor(self, unique_id: str) -> RowMapping:
        survivor = await self.repository.lock_or_none(unique_id)
        if survivor is not None:
            return survivor
        entry = await newest_entry(self.repository, unique_id)
        if entry is not None and entry.merged_into is not None:
            raise UndoFirstError(self.repository.name, unique_id)
        raise SurvivorMissingError(self.repository.name)

    async def _is_merged_into(self, loser_id: str, survivor_id: str) -> bool:
        """Return whether a record is merged into another one.

        Raises:
            AlreadyMergedError: it is merged into a third one.
        """
        entry = await newest_entry(self.repository, loser_id)
        if entry is None or entry.merged_into is None:
            return False
        if entry.merged_into != survivor_id:
            raise AlreadyMergedError(self.repository.name, entry.merged_into)
        return True

    async def _known_entry(self, unique_id: str) -> NewestEntry:
        entry = await newest_entry(self.repository, unique_id)
        if entry is None:
            raise NotFoundError(self.repository.name)
        return entry

    def _survivor_id(self, entry: NewestEntry) -> str:
        if entry.merged_into is None:
            raise NotMergedError(self.repository.name)
        return entry.merged_into

    def _unknown_loser_error(self) -> ValidationFailedError:
        message = f"Must be the unique_id of a {self.repository.name}"
        return ValidationFailedError([FieldError(("body", "from"), message, "unknown_patient")])

    async def _check_locked(self, locked: RowMapping, precondition: Precondition) -> None:
        """Check a precondition against the current representation of a locked record."""
        await self._check_precondition(locked["unique_id"], precondition)

    async def _check_loser(self, locked: RowMapping, precondition: Precondition) -> None:
        try:
            await self._check_locked(locked, precondition)
        except PreconditionFailedError:
            detail = (
                f"The {self.repository.name} in from does not match, or no longer matches, the ETag in from_etag. "
                "Nothing was stored: read it again."
            )
            raise PreconditionFailedError(None, detail) from None

    def _chosen_values(self, survivor: RowMapping, loser: RowMapping, choices: Choices) -> Mapping[str, Any]:
        """Return the values that the survivor takes from the loser, and the identifiers of both."""
        values: dict[str, Any] = {}
        for field, column in choosable_columns(type(self.repository)).items():
            side = choices.side(field) or ("loser" if survivor[column] is None else "survivor")
            if side == "loser":
                values[column] = loser[column]
        if IDENTIFIERS in survivor:
            values[IDENTIFIERS] = union(survivor[IDENTIFIERS], loser[IDENTIFIERS])
        if self._lacks_alternatives({**survivor, **values}):
            raise ValidationFailedError([self.alternatives_error])
        return values

    async def _united_links(self, *ids: str) -> dict[str, list[str]]:
        """Return the ids that at least one of the records is linked to, by set of links."""
        snapshots = [await self.history.latest_snapshot(each) or {} for each in ids]
        return {
            name: sorted({target for snapshot in snapshots for target in snapshot[name]})
            for name in self.repository.link_relations
        }
