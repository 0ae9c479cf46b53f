"""What the repositories of all resources share: reading documents, and insert, lock, update, delete by `unique_id`.

Statements are built once for each class, with bound parameters: building one costs more than running it.
"""

from functools import cache
from typing import Any, ClassVar, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Executable,
    Integer,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.db.base import ID
from app.errors import IdentifierTakenError, InUseError, NotFoundError
from app.models import retired_ids
from app.resource.document import Document
from app.resource.identifiers import is_identifier, new_identifier

_ID = bindparam("id", type_=ID)


class Record(NamedTuple):
    """A record as it is answered."""

    unique_id: str
    document: str
    """JSON text."""


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

    def __init__(self, connection: AsyncConnection, principal: Principal) -> None:
        self.connection = connection
        self.principal = principal

    @classmethod
    def visible(cls) -> ColumnElement[bool]:
        """Which rows the principal may see: all, until principals are limited. Look-ups by id and lists ask it."""
        return true()

    @classmethod
    def _one(cls) -> ColumnElement[bool]:
        return and_(cls.visible(), cls.table.c.unique_id == _ID)

    def _id(self, unique_id: str) -> dict[str, str]:
        """The parameters of a statement about `_one` record."""
        if not is_identifier(unique_id):
            raise NotFoundError(self.name)  # no record can have it, and PostgreSQL's text could not hold it (NUL)
        return {"id": unique_id}

    @classmethod
    @cache
    def _get(cls) -> Select[str, str]:
        return cls.document.of(select(cls.table).where(cls._one()))

    async def get(self, unique_id: str) -> Record:
        """Read one record.

        Raises:
            NotFoundError: there is none of this id.
        """
        row = (await self.connection.execute(self._get(), self._id(unique_id))).one_or_none()
        if row is None:
            raise NotFoundError(self.name)
        return Record._make(row)

    @classmethod
    @cache
    def _page(cls) -> Select[str, str]:
        key = cls.table.c.unique_id
        rows = select(cls.table).where(cls.visible(), key > bindparam("after", type_=ID)).order_by(key)
        # the number stands in the statement: for `LIMIT $2` PostgreSQL plans as if a tenth of the table were wanted
        return cls.document.of(rows.limit(bindparam("limit", type_=Integer, literal_execute=True)))

    async def page(self, after: str, limit: int) -> list[Record]:
        """Read up to `limit` records whose id comes after `after` (`""` for the first), in the order of `unique_id`."""
        rows = await self.connection.execute(self._page(), {"after": after, "limit": limit})
        return [Record._make(row) for row in rows]

    @classmethod
    @cache
    def _insert(cls) -> Executable:
        key = cls.table.c.unique_id
        return upsert(cls.table).on_conflict_do_nothing(index_elements=[key]).returning(key)

    async def insert(self, unique_id: str | None, values: dict[str, Any]) -> str:
        """Insert a record under `unique_id`, or a new id; the id.

        Raises:
            IdentifierTakenError: a record has the id, or had it before it was deleted.
        """
        given = unique_id is not None
        unique_id = unique_id or new_identifier(self.prefix)
        inserted = await self.connection.execute(self._insert(), {"unique_id": unique_id, **values})
        if inserted.one_or_none() is None:
            raise IdentifierTakenError(self.name)
        if given:
            await self.refuse_retired(unique_id)
        return unique_id

    @classmethod
    @cache
    def _retired(cls) -> Select[str]:
        return select(retired_ids.c.unique_id).where(
            retired_ids.c.resource == cls.table.name, retired_ids.c.unique_id == _ID
        )

    async def refuse_retired(self, unique_id: str) -> None:
        """Refuse an id that a deleted record had. Asked after the insert: that has waited for a deletion under way.

        Raises:
            IdentifierTakenError: a deleted record had it.
        """
        if (await self.connection.execute(self._retired(), {"id": unique_id})).one_or_none() is not None:
            raise IdentifierTakenError(self.name)

    @classmethod
    @cache
    def _lock(cls) -> Select[Any]:
        # not FOR UPDATE, which would deadlock with foreign-key checks of other transactions
        return select(cls.table).where(cls._one()).with_for_update(key_share=True)

    async def lock(self, unique_id: str) -> RowMapping:
        """Lock one record against other changes and read its columns as they are then.

        Raises:
            NotFoundError: there is none of this id.
        """
        locked = await self.connection.execute(self._lock(), self._id(unique_id))
        row: RowMapping | None = locked.mappings().one_or_none()
        if row is None:
            raise NotFoundError(self.name)
        return row

    @classmethod
    def next_version(cls) -> dict[str, ColumnElement[Any]]:
        """What each change of a row sets beside its values. Time does not stand still between two changes."""
        tick = cls.table.c.last_updated + text("interval '1 microsecond'")
        return {"version": cls.table.c.version + 1, "last_updated": func.greatest(func.clock_timestamp(), tick)}

    @classmethod
    @cache
    def _update(cls) -> Update:
        return update(cls.table).where(cls.table.c.unique_id == _ID).values(cls.next_version())

    async def update(self, locked: RowMapping, values: dict[str, Any], *, touch: bool = False) -> None:
        """Write what differs from the `locked` row; nothing where nothing does, unless `touch` says that links did."""
        changed = {name: value for name, value in values.items() if locked[name] != value}
        if changed or touch:
            await self.connection.execute(self._update(), {"id": locked["unique_id"], **changed})

    @classmethod
    @cache
    def _lock_for_deletion(cls) -> Select[str]:
        return select(cls.table.c.unique_id).where(cls._one()).with_for_update()

    @classmethod
    @cache
    def _count_patients(cls, reference: Column[Any]) -> Select[int]:
        return select(func.count()).where(reference == _ID)

    async def refuse_in_use(self, unique_id: str) -> None:
        """Refuse to go on where patients refer to a record. It is locked, so that none can until the transaction ends.

        Raises:
            NotFoundError: there is none of this id.
            InUseError: patients refer to it.
        """
        if self.patient_reference is None:
            return
        one = self._id(unique_id)
        if (await self.connection.execute(self._lock_for_deletion(), one)).one_or_none() is None:
            raise NotFoundError(self.name)
        count = await self.connection.execute(self._count_patients(self.patient_reference), one)
        if patients := count.scalar_one():
            raise InUseError(self.name, patients)

    @classmethod
    @cache
    def _delete(cls) -> Executable:
        return delete(cls.table).where(cls._one()).returning(cls.table.c.unique_id)

    async def delete(self, unique_id: str) -> None:
        """Delete one record and retire its id.

        Raises:
            NotFoundError: there is none of this id.
        """
        if (await self.connection.execute(self._delete(), self._id(unique_id))).one_or_none() is None:
            raise NotFoundError(self.name)
        await self.connection.execute(_RETIRE, {"resource": self.table.name, "unique_id": unique_id})


_RETIRE = insert(retired_ids)
