"""The operations on records that every resource has.

Each call runs in a transaction that `Database.transaction` commits.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

from sqlalchemy import Row

from app.auth.principal import Principal
from app.db.connection import Connection
from app.db.transaction_batching import BatchableWrite
from app.error_types import ErrorType
from app.errors import FieldError, IdentifierTakenError, MergedError, NotFoundError, ValidationFailedError
from app.fields.history import RestoreRequest
from app.fields.schemas import CreateBody, UpdateBody
from app.records.history import History
from app.records.missing import missing_error
from app.records.preconditions import NO_PRECONDITION, Precondition, entity_tag
from app.records.repository import Repository
from app.records.results import Record, WriteResult
from app.statements.journal_entries import RESTORED
from app.statements.links import LinkResult

LINKS_PER_UNIT_COST = 20
"""Number of links that take about as much work to write as one record."""

C = TypeVar("C", bound=CreateBody)
U = TypeVar("U", bound=UpdateBody)


class ErasureResult(NamedTuple):
    """What an erasure removed, and what it kept."""

    records: list[tuple[str, int]]
    """The singular name of the resource and the number of removed journal entries, for each erased record."""
    kept_former_profiles: int = 0
    """Number of former profiles that were not erased. A former profile is a profile that the patient once had and that
    no patient has now."""


class FormerProfilePolicy(StrEnum):
    """Whether an erasure keeps or erases the profiles that the patient once had and that no patient has now.

    The operator must choose, because only a person can tell whose data these profiles contain.
    """

    KEEP = "keep"
    ERASE = "erase"


class Service(Generic[C, U]):
    """Creates, updates, deletes, restores and erases records of one resource, on behalf of one principal."""

    repository_class: ClassVar[type[Repository]]
    entity_tag = staticmethod(entity_tag)
    """Returns the entity tag of a document, with which preconditions are compared."""

    def __init__(self, connection: Connection, principal: Principal) -> None:
        self.connection = connection
        self.principal = principal
        self.repository = self.repository_class(connection, principal)
        self.history = History(self.repository)

    @classmethod
    def conflict_keys(cls, body: C | U) -> frozenset[str]:
        """Return the ids of the records that a request may change. Only ids in the request's body are returned.

        Requests that have an id in common never run in the same batch.
        """
        return frozenset() if not body.unique_id else frozenset({str(body.unique_id)})

    @classmethod
    def batch_cost(cls, body: C | U) -> int:
        """Return the cost of a request in a batch: 1, plus 1 for every `LINKS_PER_UNIT_COST` links in its body."""
        return 1 + sum(len(getattr(body, name)) for name in cls.repository_class.link_relations) // LINKS_PER_UNIT_COST

    @classmethod
    def batchable_create(cls, body: C, principal: Principal) -> BatchableWrite | None:  # noqa: ARG003  # see below
        """Return the creation of a record as a single statement, or None if it needs a transaction.

        It needs a transaction if the principal is restricted, or if its scopes have to be compared with stored data. By
        default, it always does.
        """
        return None

    @classmethod
    def batchable_update(cls, unique_id: str, body: U, principal: Principal) -> BatchableWrite | None:  # noqa: ARG003
        """Return the update of a record as a single statement, or None if it needs a transaction, as above."""
        return None

    @classmethod
    def batched_record(cls, row: Row[Any]) -> Record:
        """Return the record in the result row of a batchable write."""
        return Record(row.unique_id, row.document)

    async def create(
        self, body: C, precondition: Precondition = NO_PRECONDITION, timestamps: Mapping[str, Any] | None = None
    ) -> Record:
        """Create a record. Its id is the `unique_id` in the body, or a new id if the body has none.

        `timestamps` contains the timestamps that the record has in another system, keyed by column name.

        Raises:
            IdentifierTakenError: another record has the id.
            IdentifierRetiredError: a deleted record had the id.
            PreconditionFailedError: a record has the id and does not meet the precondition.
        """
        return await self._ensure_journaled(
            await self._create({**body.sent_fields(), **(timestamps or {})}, {}, precondition), "created"
        )

    async def update(self, unique_id: str, body: U, precondition: Precondition = NO_PRECONDITION) -> Record:
        """Update a record with the fields that the body contains. If no value differs, nothing is written.

        Raises:
            NotFoundError: no visible record has this id.
            PreconditionFailedError, PreconditionRequiredError: see `Precondition.check`.
            ValidationFailedError: the body contains a `unique_id` other than the id of the record.
        """
        locked = await self.repository.lock(unique_id)
        await self._check_precondition(unique_id, precondition)
        raise_if_any(id_change_errors(unique_id, body))
        return await self._ensure_journaled(await self.repository.update(locked, body.sent_fields(), {}), "updated")

    async def delete(self, unique_id: str, precondition: Precondition = NO_PRECONDITION) -> None:
        """Delete a record. The journal keeps its last state, and its id can never be used for another record.

        Raises:
            NotFoundError: no visible record has this id.
            PreconditionFailedError, PreconditionRequiredError: see `Precondition.check`.
            InUseError: patients are linked to the record.
        """
        await self.repository.lock_for_deletion(unique_id)
        await self._check_precondition(unique_id, precondition)
        await self.repository.ensure_not_in_use(unique_id)
        await self.repository.delete(unique_id)

    async def restore(
        self, unique_id: str, body: RestoreRequest, precondition: Precondition = NO_PRECONDITION
    ) -> Record:
        """Restore a deleted record, or an earlier state of an existing record, as a new version.

        Raises:
            NotFoundError: there never was a record with this id, or the principal may not see its history.
            MergedError: the record is merged into another one, which only undoing the merge can change.
            PreconditionFailedError: see `Precondition.check`.
            PreconditionRequiredError: the record exists, and the request lacks the required If-Match.
            ValidationFailedError: the version does not exist or is a deletion, or the version has a link to a record
                that no longer exists and the body does not set `skip_missing`.
            PatientIdentifierTakenError: another patient has one of the identifiers of the version.
        """
        # before the lock, so that no request waits for a record that its principal may not see
        await self.history.newest_version(unique_id)
        await self.repository.advisory_lock(unique_id)
        locked = await self.repository.lock_or_none(unique_id)
        newest_version = await self.history.newest_version(unique_id)
        if locked is None and self.repository.mergeable:
            await self._refuse_merged(unique_id)
        if locked is not None:
            await self._check_precondition(unique_id, precondition)
        else:
            replace(precondition, required=False).check(None)  # there is nothing to overwrite
        past_state = await self.history.past_state(unique_id, body.version)
        latest_snapshot = None if locked is not None else await self.history.latest_snapshot(unique_id)
        values = past_state.columns
        self._check_past_values(values)
        dangling_errors = await self._drop_dangling_references(
            unique_id, values, latest_snapshot or {} if locked is None else dict(locked)
        )
        repository, links = self._links_to_restore(past_state.links, latest_snapshot)
        if locked is None:
            result = await repository.create(unique_id, {**values, "version": newest_version + 1}, links, RESTORED)
        else:
            result = await repository.update(locked, values, links, RESTORED)
        self._ensure_still_visible(result.link_result)
        if not body.skip_missing:
            unlinkable = result.link_result.unlinkable_ids()
            raise_if_any(
                [
                    *dangling_errors,
                    *(dangling_link_error(name.removesuffix("_ids"), target) for name, _, target in unlinkable),
                ]
            )
        return await self._ensure_journaled(result, "restored")

    async def erase(self, unique_id: str, reason: str, _: FormerProfilePolicy | None = None) -> ErasureResult:
        """Remove the data of a record everywhere, including its history. The record may already be deleted.

        Only patients can have former profiles, so the last parameter has no effect on other resources.

        Raises:
            NotFoundError: there never was a record with this id.
            InUseError: patients are linked to the record.
        """
        await self._lock_for_erasure(unique_id)
        return ErasureResult([(self.repository.name, await self.repository.erase(unique_id, reason))])

    async def _lock_for_erasure(self, unique_id: str) -> dict[str, Any]:
        """Lock a record, or the id of a deleted record, and return the record's latest snapshot.

        Raises:
            NotFoundError: there never was a record with this id.
            InUseError: patients are linked to the record.
        """
        await self.repository.advisory_lock(unique_id)
        with suppress(NotFoundError):
            await self.repository.lock_for_deletion(unique_id)
        await self.repository.ensure_not_in_use(unique_id)
        latest_snapshot = await self.history.latest_snapshot(unique_id)
        if latest_snapshot is None:
            raise NotFoundError(self.repository.name)
        return latest_snapshot

    async def _refuse_merged(self, unique_id: str) -> None:
        """Raise an error if a record is merged into another one.

        Raises:
            MergedError: it is.
        """
        if isinstance(error := await missing_error(self.repository, unique_id), MergedError):
            raise error

    async def _create(
        self, values: dict[str, Any], links: Mapping[str, list[str]], precondition: Precondition
    ) -> WriteResult:
        unique_id = values.pop("unique_id", None)
        try:
            return await self.repository.create(unique_id, values, links)
        except IdentifierTakenError:
            await self.check_creation_precondition(unique_id, precondition)
            raise

    async def _ensure_journaled(self, result: WriteResult, action: str) -> Record:
        await self.repository.ensure_journaled(result, action)
        return result.record

    async def check_creation_precondition(self, unique_id: str | None, precondition: Precondition) -> None:
        """Check the precondition of a creation against the visible record with this id, if there is one.

        Raises:
            PreconditionFailedError: the record does not meet the precondition.
        """
        if unique_id is not None and precondition.needs_current_etag:
            with suppress(NotFoundError):
                await self._check_precondition(unique_id, replace(precondition, required=False))

    async def _check_precondition(self, unique_id: str, precondition: Precondition) -> None:
        """Check a precondition against the current representation of a record.

        The representation is read only if the precondition needs its entity tag.
        """
        tag = None
        if precondition.needs_current_etag:
            tag = self.entity_tag((await self.repository.get(unique_id)).document)
        precondition.check(tag)

    async def _drop_dangling_references(self, _: str, __: dict[str, Any], ___: Mapping[str, Any]) -> list[FieldError]:
        """Remove references to missing records from the values of an earlier version.

        Return an error for each removed reference. The first parameter is the id of the record. The second contains the
        values and is changed. The third is the current record or, for a deleted record, its last snapshot. Sets of
        links are checked later, when they are written.

        Raises:
            PatientIdentifierTakenError: another patient has one of the identifiers of the earlier version.
        """
        return []

    def _check_past_values(self, _: Mapping[str, Any]) -> None:
        """Raise an error if no record can have these values, because an erasure has removed some. By default, none."""

    def _links_to_restore(
        self, links: Mapping[str, list[str]], _: Mapping[str, Any] | None
    ) -> tuple[Repository, Mapping[str, list[str]]]:
        """Return the repository that writes the links of an earlier version, and the links to write.

        `links` contains the links of that version. The last parameter is the last snapshot of a deleted record, or None
        if the record exists.
        """
        return self.repository, links

    def _ensure_still_visible(self, _: LinkResult) -> None:
        """Raise an error if a write makes the record invisible to the principal that writes it.

        The parameter contains the links that the write requests, and those of them that can be made. By default, do
        nothing.
        """


def raise_if_any(errors: Iterable[FieldError]) -> None:
    """Raise one error that contains all `errors`. Do nothing if there are none.

    Raises:
        ValidationFailedError: there is at least one error.
    """
    if listed := list(errors):
        raise ValidationFailedError(listed)


def id_change_errors(unique_id: str, body: UpdateBody) -> Iterator[FieldError]:
    """Yield an error if the body contains a `unique_id` that differs from the one in the path."""
    if "unique_id" in body.model_fields_set and body.unique_id != unique_id:
        message = "Must be the unique_id in the path or omitted: a unique_id never changes"
        yield FieldError(("body", "unique_id"), message, "unique_id_change")


def dangling_link_error(target: str, unique_id: str) -> FieldError:
    """Return the error for restoring a version that has a link to a record that no longer exists.

    `target` is the singular name of the missing record's resource, such as `hospital`.
    """
    message = (
        f"The {target} {unique_id} that this version links to no longer exists: "
        'restore it first, or send "skip_missing": true'
    )
    return FieldError(("body", "version"), message, cast("ErrorType", f"missing_{target}"))
