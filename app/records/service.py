"""What can be done to a record of any resource. Each call runs in a transaction that `Database.transaction` commits."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.errors import FieldError, IdentifierTakenError, NotFoundError, ValidationFailedError
from app.fields.schemas import CreateBody, UpdateBody
from app.records.history import History
from app.records.history_schemas import Restore
from app.records.links import LinkResult
from app.records.preconditions import NO_PRECONDITION, Precondition, entity_tag
from app.records.repository import Record, Repository, WriteResult

LINKS_PER_UNIT_COST = 20
"""That are about as much work as another record."""

C = TypeVar("C", bound=CreateBody)
U = TypeVar("U", bound=UpdateBody)


class ErasureResult(NamedTuple):
    """What was erased."""

    records: list[tuple[str, int]]
    """Each by what it is called, and how many entries of the journal it had."""
    kept_former_profiles: int = 0
    """How many profiles stay that the patient had earlier and nobody has now."""


class FormerProfilePolicy(StrEnum):
    """What becomes of profiles that a patient had earlier and nobody has now: whose they are, only people can tell."""

    KEEP = "keep"
    ERASE = "erase"


class Service(Generic[C, U]):
    """Create, update, delete and restore records of one resource, on behalf of one principal."""

    repository_class: ClassVar[type[Repository]]

    def __init__(self, connection: AsyncConnection, principal: Principal) -> None:
        self.connection = connection
        self.principal = principal
        self.repository = self.repository_class(connection, principal)
        self.history = History(self.repository)

    @classmethod
    def conflict_keys(cls, body: C | U) -> frozenset[str]:
        """The ids of records that a request may change, as its body names them."""
        return frozenset() if not body.unique_id else frozenset({str(body.unique_id)})

    @classmethod
    def batch_cost(cls, body: C | U) -> int:
        """How many ordinary requests one is like, by the links it names."""
        return 1 + sum(len(getattr(body, name)) for name in cls.repository_class.link_relations) // LINKS_PER_UNIT_COST

    async def create(
        self, body: C, precondition: Precondition = NO_PRECONDITION, timestamps: Mapping[str, Any] | None = None
    ) -> Record:
        """Create a record, under the client's id if there is one; `moments` are dates that it brings from elsewhere.

        Raises:
            IdentifierTakenError: a record has the id.
            IdentifierRetiredError: a deleted record had it.
            PreconditionFailedError: a record has the id, and the precondition is that there is none.
        """
        return await self._ensure_journaled(
            await self._create({**body.sent_fields(), **(timestamps or {})}, {}, precondition), "created"
        )

    async def update(self, unique_id: str, body: U, precondition: Precondition = NO_PRECONDITION) -> Record:
        """Change what is given of a record. Where nothing differs nothing is written.

        Raises:
            NotFoundError: there is none of this id.
            PreconditionFailedError, PreconditionRequiredError: as the precondition says.
            InvalidError: the body has another `unique_id`.
        """
        locked = await self.repository.lock(unique_id)
        await self._check_precondition(unique_id, precondition)
        raise_if_any(id_change_errors(unique_id, body))
        return await self._ensure_journaled(await self.repository.update(locked, body.sent_fields(), {}), "updated")

    async def delete(self, unique_id: str, precondition: Precondition = NO_PRECONDITION) -> None:
        """Delete a record; the journal keeps what it was, and its id is never used for another.

        Raises:
            NotFoundError: there is none of this id.
            PreconditionFailedError, PreconditionRequiredError: as the precondition says.
            InUseError: patients are linked to it.
        """
        await self.repository.lock_for_deletion(unique_id)
        await self._check_precondition(unique_id, precondition)
        await self.repository.ensure_not_in_use(unique_id)
        await self.repository.delete(unique_id)

    async def restore(self, unique_id: str, body: Restore, precondition: Precondition = NO_PRECONDITION) -> Record:
        """Bring back a deleted record, or an earlier state of one that is there, as a new version.

        Raises:
            NotFoundError: there never was one of this id.
            PreconditionFailedError, PreconditionRequiredError: as the precondition says, of a record that is there.
            InvalidError: there is no such version, or what the record was linked to then is gone.
        """
        await self.history.newest_version(unique_id)  # before the lock: nobody waits for what is hidden
        await self.repository.advisory_lock(unique_id)
        locked = await self.repository.lock_or_none(unique_id)
        newest_version = await self.history.newest_version(unique_id)
        if locked is not None:
            await self._check_precondition(unique_id, precondition)
        else:
            replace(precondition, required=False).check(None)  # there is nothing to overwrite
        past_state = await self.history.past_state(unique_id, body.version)
        latest_snapshot = None if locked is not None else await self.history.latest_snapshot(unique_id)
        values = past_state.columns
        dangling_errors = await self._drop_dangling_references(
            values, latest_snapshot or {} if locked is None else dict(locked)
        )
        repository, links = self._links_to_restore(past_state.links, latest_snapshot)
        if locked is None:
            result = await repository.create(unique_id, {**values, "version": newest_version + 1}, links, "restored")
        else:
            result = await repository.update(locked, values, links, "restored")
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
        """Remove the data of a record everywhere, its history included; it may have been deleted before.

        Only patients have `former` profiles, the last.

        Raises:
            NotFoundError: there never was one of this id.
            InUseError: patients are linked to it.
        """
        await self._lock_for_erasure(unique_id)
        return ErasureResult([(self.repository.name, await self.repository.erase(unique_id, reason))])

    async def _lock_for_erasure(self, unique_id: str) -> dict[str, Any]:
        """Lock a record, or the id of a deleted one; what it is, or was at last."""
        await self.repository.advisory_lock(unique_id)
        with suppress(NotFoundError):
            await self.repository.lock_for_deletion(unique_id)
        await self.repository.ensure_not_in_use(unique_id)
        latest_snapshot = await self.history.latest_snapshot(unique_id)
        if latest_snapshot is None:
            raise NotFoundError(self.repository.name)
        return latest_snapshot

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
        """Refuse to go on where there is a record of this id, and the precondition is that there is none."""
        if unique_id is not None and precondition.needs_current_etag:
            with suppress(NotFoundError):
                await self._check_precondition(unique_id, replace(precondition, required=False))

    async def _check_precondition(self, unique_id: str, precondition: Precondition) -> None:
        """Compare a record, which is locked, with what the client has read."""
        tag = entity_tag((await self.repository.get(unique_id)).document) if precondition.needs_current_etag else None
        precondition.check(tag)

    async def _drop_dangling_references(self, _: dict[str, Any], __: Mapping[str, Any]) -> list[FieldError]:
        """Take out of a former state's values the references to what is gone, and say which; links come later.

        The second is what the record is, or was before it was deleted.
        """
        return []

    def _links_to_restore(
        self, links: Mapping[str, list[str]], _: Mapping[str, Any] | None
    ) -> tuple[Repository, Mapping[str, list[str]]]:
        """Who gives a record the links of a former state, and which; the last is what it was before its deletion."""
        return self.repository, links

    def _ensure_still_visible(self, _: LinkResult) -> None:
        """Refuse to have the principal lose sight of a record."""


def raise_if_any(errors: Iterable[FieldError]) -> None:
    """Go on only where there are none.

    Raises:
        InvalidError: with all of them.
    """
    if listed := list(errors):
        raise ValidationFailedError(listed)


def id_change_errors(unique_id: str, body: UpdateBody) -> Iterator[FieldError]:
    """The error of a body whose `unique_id` is not that of the path."""
    if "unique_id" in body.model_fields_set and body.unique_id != unique_id:
        message = "Must be the unique_id of the path or left out: it never changes"
        yield FieldError(("body", "unique_id"), message, "unique_id_change")


def dangling_link_error(target: str, unique_id: str) -> FieldError:
    """The error of restoring a version whose link leads nowhere."""
    message = f'The {target} {unique_id}, linked to it then, is gone: restore that first, or send "skip_missing": true'
    return FieldError(("body", "version"), message, f"missing_{target}")
