"""What can be done to a record of any resource. Each call runs in a transaction that `Database.transaction` commits."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.errors import FieldError, IdentifierTakenError, InvalidError, NotFoundError
from app.journal.repository import JournalRepository
from app.journal.schemas import Restore
from app.resource.links import Linking
from app.resource.preconditions import UNCONDITIONAL, Precondition, entity_tag
from app.resource.repository import Record, Repository, Written
from app.resource.schemas import CreateBody, UpdateBody

LINKS = 20
"""That are about as much work as another record."""

C = TypeVar("C", bound=CreateBody)
U = TypeVar("U", bound=UpdateBody)


class Erased(NamedTuple):
    """What was erased."""

    records: list[tuple[str, int]]
    """Each by what it is called, and how many entries of the journal it had."""
    kept: int = 0
    """How many profiles stay that the patient had earlier and nobody has now."""


class Former(StrEnum):
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
        self.journal = JournalRepository(self.repository)

    @classmethod
    def touched(cls, body: C | U) -> frozenset[str]:
        """The ids of records that a request may change, as its body names them."""
        return frozenset() if not body.unique_id else frozenset({str(body.unique_id)})

    @classmethod
    def weight(cls, body: C | U) -> int:
        """How many ordinary requests one is like, by the links it names."""
        return 1 + sum(len(getattr(body, name)) for name in cls.repository_class.links) // LINKS

    async def create(
        self, body: C, precondition: Precondition = UNCONDITIONAL, moments: Mapping[str, Any] | None = None
    ) -> Record:
        """Create a record, under the client's id if there is one; `moments` are dates that it brings from elsewhere.

        Raises:
            IdentifierTakenError: a record has the id.
            IdentifierRetiredError: a deleted record had it.
            PreconditionFailedError: a record has the id, and the precondition is that there is none.
        """
        return await self._finish(await self._create({**body.given(), **(moments or {})}, {}, precondition), "created")

    async def update(self, unique_id: str, body: U, precondition: Precondition = UNCONDITIONAL) -> Record:
        """Change what is given of a record. Where nothing differs nothing is written.

        Raises:
            NotFoundError: there is none of this id.
            PreconditionFailedError, PreconditionRequiredError: as the precondition says.
            InvalidError: the body has another `unique_id`.
        """
        locked = await self.repository.lock(unique_id)
        await self._check(unique_id, precondition)
        refuse(renaming(unique_id, body))
        return await self._finish(await self.repository.change(locked, body.given(), {}), "updated")

    async def delete(self, unique_id: str, precondition: Precondition = UNCONDITIONAL) -> None:
        """Delete a record; the journal keeps what it was, and its id is never used for another.

        Raises:
            NotFoundError: there is none of this id.
            PreconditionFailedError, PreconditionRequiredError: as the precondition says.
            InUseError: patients are linked to it.
        """
        await self.repository.lock_for_deletion(unique_id)
        await self._check(unique_id, precondition)
        await self.repository.refuse_in_use(unique_id)
        await self.repository.delete(unique_id)

    async def restore(self, unique_id: str, body: Restore, precondition: Precondition = UNCONDITIONAL) -> Record:
        """Bring back a deleted record, or an earlier state of one that is there, as a new version.

        Raises:
            NotFoundError: there never was one of this id.
            PreconditionFailedError, PreconditionRequiredError: as the precondition says, of a record that is there.
            InvalidError: there is no such version, or what the record was linked to then is gone.
        """
        await self.journal.newest_version(unique_id)  # before the lock: nobody waits for what is hidden
        await self.repository.lock_id(unique_id)
        locked = await self.repository.lock_if_there(unique_id)
        newest = await self.journal.newest_version(unique_id)
        if locked is not None:
            await self._check(unique_id, precondition)
        else:
            replace(precondition, required=False).check(None)  # there is nothing to overwrite
        past = await self.journal.state(unique_id, body.version)
        last = None if locked is not None else await self.journal.last_record(unique_id)
        values = past.columns
        lost = await self._unlink_missing(values, last or {} if locked is None else dict(locked))
        repository, links = self._relinking(past.links, last)
        if locked is None:
            written = await repository.create(unique_id, {**values, "version": newest + 1}, links, "restored")
        else:
            written = await repository.change(locked, values, links, "restored")
        self._keep(written.linking)
        if not body.skip_missing:
            unknown = written.linking.unknown()
            refuse([*lost, *(missing(name.removesuffix("_ids"), target) for name, _, target in unknown)])
        return await self._finish(written, "restored")

    async def erase(self, unique_id: str, reason: str, _: Former | None = None) -> Erased:
        """Remove the data of a record everywhere, its history included; it may have been deleted before.

        Only patients have `former` profiles, the last.

        Raises:
            NotFoundError: there never was one of this id.
            InUseError: patients are linked to it.
        """
        await self._lock_for_erasure(unique_id)
        return Erased([(self.repository.name, await self.repository.erase(unique_id, reason))])

    async def _lock_for_erasure(self, unique_id: str) -> dict[str, Any]:
        """Lock a record, or the id of a deleted one; what it is, or was at last."""
        await self.repository.lock_id(unique_id)
        with suppress(NotFoundError):
            await self.repository.lock_for_deletion(unique_id)
        await self.repository.refuse_in_use(unique_id)
        last = await self.journal.last_record(unique_id)
        if last is None:
            raise NotFoundError(self.repository.name)
        return last

    async def _create(
        self, values: dict[str, Any], links: Mapping[str, list[str]], precondition: Precondition
    ) -> Written:
        unique_id = values.pop("unique_id", None)
        try:
            return await self.repository.create(unique_id, values, links)
        except IdentifierTakenError:
            await self.expect_new(unique_id, precondition)
            raise

    async def _finish(self, written: Written, action: str) -> Record:
        await self.repository.refuse_unentered(written, action)
        return written.record

    async def expect_new(self, unique_id: str | None, precondition: Precondition) -> None:
        """Refuse to go on where there is a record of this id, and the precondition is that there is none."""
        if unique_id is not None and precondition.asks:
            with suppress(NotFoundError):
                await self._check(unique_id, replace(precondition, required=False))

    async def _check(self, unique_id: str, precondition: Precondition) -> None:
        """Compare a record, which is locked, with what the client has read."""
        tag = entity_tag((await self.repository.get(unique_id)).document) if precondition.asks else None
        precondition.check(tag)

    async def _unlink_missing(self, _: dict[str, Any], __: Mapping[str, Any]) -> list[FieldError]:
        """Take out of a former state's values the references to what is gone, and say which; links come later.

        The second is what the record is, or was before it was deleted.
        """
        return []

    def _relinking(
        self, links: Mapping[str, list[str]], _: Mapping[str, Any] | None
    ) -> tuple[Repository, Mapping[str, list[str]]]:
        """Who gives a record the links of a former state, and which; the last is what it was before its deletion."""
        return self.repository, links

    def _keep(self, _: Linking) -> None:
        """Refuse to have the principal lose sight of a record."""


def refuse(errors: Iterable[FieldError]) -> None:
    """Go on only where there are none.

    Raises:
        InvalidError: with all of them.
    """
    if listed := list(errors):
        raise InvalidError(listed)


def renaming(unique_id: str, body: UpdateBody) -> Iterator[FieldError]:
    """The error of a body whose `unique_id` is not that of the path."""
    if "unique_id" in body.model_fields_set and body.unique_id != unique_id:
        message = "Must be the unique_id of the path or left out: it never changes"
        yield FieldError(("body", "unique_id"), message, "unique_id_change")


def missing(target: str, unique_id: str) -> FieldError:
    """The error of restoring a version whose link leads nowhere."""
    message = f'The {target} {unique_id}, linked to it then, is gone: restore that first, or send "skip_missing": true'
    return FieldError(("body", "version"), message, f"missing_{target}")
