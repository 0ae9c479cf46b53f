"""What the repositories of all resources share: reading documents, and insert, lock, link, update, delete, journal.

Statements are built once for each class, with bound parameters: building one costs more than running it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, NamedTuple, Self

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Executable,
    Row,
    Select,
    Table,
    and_,
    any_,
    bindparam,
    column,
    delete,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.db.base import ID
from app.db.together import execute_for, given
from app.errors import ConflictError, IdentifierRetiredError, IdentifierTakenError, InUseError, NotFoundError
from app.journal.entries import author, farewell
from app.journal.erasure import forget
from app.models import journal
from app.resource import walls, writing
from app.resource.document import Document, ToMany
from app.resource.identifiers import is_identifier, new_identifier
from app.resource.links import Linking, known_of
from app.resource.writing import own_values

_ID = bindparam("id", type_=ID)


class Record(NamedTuple):
    """A record as it is answered."""

    unique_id: str
    document: str
    """JSON text."""


class Written(NamedTuple):
    """What writing a record came to."""

    record: Record
    """As it is now."""
    linking: Linking
    entered: bool
    """Whether the journal has taken what was written, if anything was."""


class Repository:
    """Queries of one resource, on one connection, on behalf of one principal."""

    name: ClassVar[str]
    """What one record is called in messages: `patient`."""
    prefix: ClassVar[str]
    """What ids made by us begin with."""
    table: ClassVar[Table]
    document: ClassVar[Document]
    patient_reference: ClassVar[Column[Any] | None] = None
    """The column by which patients refer to records of this resource, if they do."""
    moments: ClassVar[frozenset[str]] = frozenset()
    """The columns with an index of their months, by which lists are filtered."""
    links: ClassVar[Mapping[str, ToMany]] = {}
    """The sets of links to other records, under the names by which requests replace them."""

    def __init__(self, connection: AsyncConnection, principal: Principal) -> None:
        self.connection = connection
        self.principal = principal
        self.limited = principal.hospitals is not None

    @property
    def unwalled(self) -> Self:
        """The same on behalf of nobody who is limited: for what is right although the principal does not see it."""
        return type(self)(self.connection, replace(self.principal, hospitals=None))

    @classmethod
    def visible(cls, *, limited: bool) -> ColumnElement[bool]:  # noqa: ARG003  # of those that have walls
        """Which rows the principal may see: all, but where the resource has walls and the principal is `limited`.

        Every request begins with a statement that asks it: look-ups by id, locks, lists, and the journal.
        """
        return true()

    @classmethod
    def was_visible(cls, record: ColumnElement[Any]) -> ColumnElement[bool]:  # noqa: ARG003  # as above
        """Which deleted records a limited principal may know of, by the last `record` that the journal has of each."""
        return true()

    @classmethod
    def _this(cls) -> ColumnElement[bool]:
        return cls.table.c.unique_id == _ID

    @classmethod
    def _visible_one(cls, *, limited: bool) -> ColumnElement[bool]:
        return and_(cls._this(), cls.visible(limited=limited))

    def _id(self, unique_id: str) -> dict[str, Any]:
        """The parameters of a statement about one record."""
        if not is_identifier(unique_id):
            raise NotFoundError(self.name)  # no record can have it, and PostgreSQL's text could not hold it (NUL)
        return {"id": unique_id, **walls.parameters(self.principal)}

    @classmethod
    @cache
    def _get(cls, *, limited: bool) -> Select[str, str]:
        wanted = cls.table.c.unique_id == any_(bindparam("ids", type_=ARRAY(ID)))
        return cls.document.of(cls.document.rows().where(wanted, cls.visible(limited=limited)))

    async def get_many(self, ids: Sequence[str]) -> dict[str, Record]:
        """Read the records that there are of some ids, by these."""
        parameters = {"ids": ids, **walls.parameters(self.principal)}
        rows = await self.connection.execute(self._get(limited=self.limited), parameters)
        return {record.unique_id: record for record in map(Record._make, rows)}

    async def get(self, unique_id: str) -> Record:
        """Read one record.

        Raises:
            NotFoundError: there is none of this id.
        """
        records = await self.get_many([self._id(unique_id)["id"]])
        if unique_id not in records:
            raise NotFoundError(self.name)
        return records[unique_id]

    async def few_visible(self) -> dict[str, Any] | None:
        """All that the principal may see, as parameters of `walls.is_one_of_few`; None where there is no such way."""
        return None

    @classmethod
    def next_visible(cls, after: ColumnElement[str], limit: ColumnElement[int], *, limited: bool) -> Select[Any]:
        """The first rows after an id that the principal may see, up to a number, in the order of `unique_id`."""
        key = cls.table.c.unique_id
        return cls.document.rows().where(cls.visible(limited=limited), key > after).order_by(key).limit(limit)

    @classmethod
    @cache
    def _creation(cls, action: str, beside: frozenset[str], *, limited: bool) -> Select[Any]:
        return writing.creation(cls.document, cls.links, action, beside, limited=limited)

    async def create(
        self, unique_id: str | None, values: Mapping[str, Any], links: Mapping[str, list[str]], action: str = "created"
    ) -> Written:
        """Write a new record under `unique_id`, or a new id.

        Raises:
            IdentifierTakenError: a record has the id.
        """
        statement = self._creation(action, frozenset(values).difference(own_values(self.table)), limited=self.limited)
        row = {"unique_id": unique_id or new_identifier(self.prefix), **values}
        written = await self._write(statement, row, {name: links.get(name, []) for name in self.links})
        if written is None:
            raise IdentifierTakenError(self.name)
        return written

    async def _execute_for(self, statement: Select[Any], row: Mapping[str, Any]) -> Row[Any] | None:
        return await execute_for(self.connection, statement, row, walls.parameters(self.principal))

    async def _write(
        self, statement: Select[Any], row: Mapping[str, Any], links: Mapping[str, list[str]]
    ) -> Written | None:
        sets = {name: sorted(set(ids)) for name, ids in links.items()}
        written = await self._execute_for(statement, {**row, **sets, **author(self.principal)})
        if written is None:
            return None
        record = Record(written.unique_id, written.document)
        return Written(record, _linking(links, written), written.entered)

    @classmethod
    @cache
    def _lock(cls, *, limited: bool) -> Select[Any]:
        wanted = given(column("unique_id", ID))
        this = cls.table.c.unique_id == wanted.c.unique_id
        rows = (
            cls.document.rows().join(wanted, this).where(cls.visible(limited=limited)).order_by(cls.table.c.unique_id)
        )
        # not FOR UPDATE, which would deadlock with foreign-key checks of other transactions
        return rows.where(cls.visible(limited=limited)).with_for_update(key_share=True, of=cls.table)

    async def lock_if_there(self, unique_id: str) -> RowMapping | None:
        """Lock one record against other changes and read its columns as they are then; none if there is none."""
        locked = await self._execute_for(self._lock(limited=self.limited), {"unique_id": self._id(unique_id)["id"]})
        if locked is None or not await self._still_visible(unique_id):
            return None
        return locked._mapping  # noqa: SLF001  # public, so named that no column has its name

    @classmethod
    @cache
    def _see(cls, *, limited: bool) -> Select[str]:
        return select(cls.table.c.unique_id).where(cls._visible_one(limited=limited))

    async def sees(self, unique_id: str) -> bool:
        """Whether there is a record of this id that the principal may see."""
        seen = await self.connection.execute(self._see(limited=self.limited), self._id(unique_id))
        return seen.one_or_none() is not None

    async def _still_visible(self, unique_id: str) -> bool:
        """Whether a record that was waited for, and is locked now, is visible to the principal as it is now.

        The statement that waited has looked at the links as they were before.
        """
        return not self.limited or await self.sees(unique_id)

    async def lock(self, unique_id: str) -> RowMapping:
        """Lock one record against other changes and read its columns as they are then.

        Raises:
            NotFoundError: there is none of this id.
        """
        row = await self.lock_if_there(unique_id)
        if row is None:
            raise NotFoundError(self.name)
        return row

    @classmethod
    @cache
    def _change(cls, action: str, names: frozenset[str], *, limited: bool) -> Select[Any]:
        return writing.change(cls.document, cls.links, action, names, limited=limited)

    async def change(
        self, locked: RowMapping, values: Mapping[str, Any], links: Mapping[str, list[str]], action: str = "updated"
    ) -> Written:
        """Write what differs from the `locked` row, and make sets of links exactly what they are to be.

        Links, as far as the principal may. Where nothing differs nothing is written.
        """
        every = {name: values.get(name, locked[name]) for name in own_values(self.table)}
        differs = any(locked[name] != value for name, value in every.items())
        statement = self._change(action, frozenset(links), limited=self.limited)
        row = {"unique_id": locked["unique_id"], "differs": differs, **every}
        written = await self._write(statement, row, links)
        assert written is not None, "it is locked"  # noqa: S101
        return written

    @classmethod
    @cache
    def _known(cls, names: frozenset[str], *, limited: bool) -> Select[Any]:
        wanted = given(column("unique_id", ID), *(column(name, ARRAY(ID)) for name in sorted(names)))
        return known_of({name: cls.links[name] for name in names}, wanted, limited=limited)

    async def known(self, unique_id: str, links: Mapping[str, list[str]]) -> Linking:
        """Which of the ids that a record is to be linked to the principal may link it to."""
        if not links:
            return Linking({}, {})
        statement = self._known(frozenset(links), limited=self.limited)
        known = await self._execute_for(statement, {"unique_id": unique_id, **links})
        assert known is not None, "it answers a row for each that it is given"  # noqa: S101
        return _linking(links, known)

    async def refuse_unentered(self, written: Written, action: str) -> None:
        """Refuse to go on where the journal did not take what was written.

        Raises:
            IdentifierRetiredError: it was created under the id of a deleted record.
            ConflictError: another change was faster.
        """
        if not written.entered:
            raise await self.retired(written.record.unique_id) if action == "created" else self.changed()

    def changed(self) -> ConflictError:
        """The error of a change that another one was faster than."""
        return ConflictError(f"This {self.name} was changed at the same moment. Read it again.")

    @classmethod
    @cache
    def _last_version(cls) -> Select[int | None]:
        of_this = and_(journal.c.resource == cls.table.name, journal.c.unique_id == _ID)
        return select(func.max(journal.c.version)).where(of_this, journal.c.record.is_not(None))

    async def retired(self, unique_id: str) -> IdentifierRetiredError:
        """The error of using the id of a deleted record again; it says how to bring that back."""
        last = await self.connection.execute(self._last_version(), {"id": unique_id})
        return IdentifierRetiredError(self.name, last.scalar_one())

    @classmethod
    @cache
    def _lock_id(cls) -> Select[Any]:
        name = literal_column(f"'{cls.table.name}/'").concat(_ID)
        return select(func.pg_advisory_xact_lock(func.hashtextextended(name, literal_column("0"))))

    async def lock_id(self, unique_id: str) -> None:
        """Lock an id against others who bring its record back or erase it, whether there is a row to lock or not."""
        await self.connection.execute(self._lock_id(), self._id(unique_id))

    @classmethod
    @cache
    def _lock_for_deletion(cls, *, limited: bool) -> Select[str]:
        return cls._see(limited=limited).with_for_update()

    async def lock_for_deletion(self, unique_id: str) -> None:
        """Lock one record so that none can refer to it until the transaction ends.

        Raises:
            NotFoundError: there is none of this id.
        """
        locked = await self.connection.execute(self._lock_for_deletion(limited=self.limited), self._id(unique_id))
        if locked.one_or_none() is None or not await self._still_visible(unique_id):
            raise NotFoundError(self.name)

    @classmethod
    @cache
    def _count_patients(cls, reference: Column[Any]) -> Select[int]:
        return select(func.count()).where(reference == _ID)

    async def refuse_in_use(self, unique_id: str) -> None:
        """Refuse to go on where patients refer to a record, which is locked for deletion.

        Raises:
            InUseError: patients refer to it.
        """
        if self.patient_reference is not None:
            count = await self.connection.execute(self._count_patients(self.patient_reference), {"id": unique_id})
            if patients := count.scalar_one():
                raise InUseError(self.name, None if self.limited else patients)

    @classmethod
    @cache
    def _delete(cls) -> Executable:
        gone = delete(cls.table).where(cls._this()).returning(cls.table.c.unique_id, cls.table.c.version).cte("gone")
        return select(farewell(cls.table, gone))

    async def delete(self, unique_id: str) -> None:
        """Delete one record, which is locked; the journal's entry keeps its id from being used again.

        Raises:
            ConflictError: the entry could not be written.
        """
        deleted = await self.connection.execute(self._delete(), {"id": unique_id, **author(self.principal)})
        if deleted.one_or_none() is None:
            raise self.changed()

    @classmethod
    @cache
    def _remove(cls) -> Executable:
        return delete(cls.table).where(cls._this())

    async def erase(self, unique_id: str, reason: str) -> int:
        """Remove one record, if it is there, and all that is stored of it; the number of journal entries removed."""
        await self.connection.execute(self._remove(), {"id": unique_id})
        return await forget(self.connection, self.table.name, unique_id, reason, self.principal)


def _linking(wanted: Mapping[str, list[str]], row: Row[Any]) -> Linking:
    return Linking(wanted, {name: frozenset(getattr(row, name)) for name in wanted})
