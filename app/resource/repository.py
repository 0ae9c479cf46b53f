"""What the repositories of all resources share: reading documents, and insert, lock, link, update, delete, journal.

Statements are built once for each class, with bound parameters: building one costs more than running it.
"""

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, ClassVar, NamedTuple

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Executable,
    Integer,
    Select,
    Table,
    Update,
    all_,
    and_,
    any_,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.db.base import ID
from app.errors import ConflictError, IdentifierRetiredError, IdentifierTakenError, InUseError, NotFoundError
from app.journal.entries import author, entry, farewell
from app.journal.erasure import forget
from app.models import journal
from app.resource.document import Document, ToMany
from app.resource.identifiers import is_identifier, new_identifier

_ID = bindparam("id", type_=ID)


class Record(NamedTuple):
    """A record as it is answered."""

    unique_id: str
    document: str
    """JSON text."""


class Linking(NamedTuple):
    """What replacing sets of links came to."""

    known: Mapping[str, frozenset[str]]
    """Of each set, the wanted ids that exist; only these are linked."""
    changed: bool


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
    links: ClassVar[Mapping[str, ToMany]] = {}
    """The sets of links to other records, under the names by which requests replace them."""

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
        return insert(cls.table).on_conflict_do_nothing(index_elements=[key]).returning(key)

    async def insert(self, unique_id: str | None, values: dict[str, Any]) -> str:
        """Insert a row under `unique_id`, or a new id; the id. `record` is to follow.

        Raises:
            IdentifierTakenError: a record has the id.
        """
        unique_id = unique_id or new_identifier(self.prefix)
        inserted = await self.connection.execute(self._insert(), {"unique_id": unique_id, **values})
        if inserted.one_or_none() is None:
            raise IdentifierTakenError(self.name)
        return unique_id

    @classmethod
    @cache
    def _lock(cls) -> Select[Any]:
        # not FOR UPDATE, which would deadlock with foreign-key checks of other transactions
        return select(cls.table).where(cls._one()).with_for_update(key_share=True)

    async def lock_if_there(self, unique_id: str) -> RowMapping | None:
        """Lock one record against other changes and read its columns as they are then; none if there is none."""
        locked = await self.connection.execute(self._lock(), self._id(unique_id))
        row: RowMapping | None = locked.mappings().one_or_none()
        return row

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
    def next_version(cls) -> dict[str, ColumnElement[Any]]:
        """What each change of a row sets beside its values. Time does not stand still between two changes."""
        tick = cls.table.c.last_updated + text("interval '1 microsecond'")
        return {
            "version": cls.table.c.version + literal_column("1"),
            "last_updated": func.greatest(func.clock_timestamp(), tick),
        }

    @classmethod
    @cache
    def _update(cls) -> Update:
        return update(cls.table).where(cls.table.c.unique_id == _ID).values(cls.next_version())

    async def update(self, locked: RowMapping, values: dict[str, Any], *, touch: bool = False) -> bool:
        """Write what differs from the `locked` row; nothing where nothing does, unless `touch` says that links did.

        Whether anything was written; then `record` is to follow.
        """
        changed = {name: value for name, value in values.items() if locked[name] != value}
        if changed or touch:
            await self.connection.execute(self._update(), {"id": locked["unique_id"], **changed})
        return bool(changed or touch)

    @classmethod
    @cache
    def _replace(cls, names: frozenset[str]) -> Select[Any]:
        """Remove what is not wanted, add what is wanted, exists and is not there; for each of the named sets.

        Added in the order of the ids, in which every transaction then locks the targets (by the foreign key's check).
        """
        columns: list[ColumnElement[Any]] = []
        changes: list[ColumnElement[bool]] = []
        for name in sorted(names):
            relation = cls.links[name]
            wanted = bindparam(name, type_=ARRAY(ID))
            target, key = relation.target.c.unique_id, relation.key
            known = select(target).where(target == any_(wanted)).cte(f"known_{name}")
            unwanted = delete(relation.link).where(relation.owner == _ID, key != all_(wanted))
            rows = select(_ID, known.c.unique_id).order_by(known.c.unique_id)
            missing = insert(relation.link).from_select([relation.owner, key], rows).on_conflict_do_nothing()
            columns.append(func.array(select(known.c.unique_id).scalar_subquery(), type_=ARRAY(ID)).label(name))
            changes += [
                exists(select(unwanted.returning(key).cte(f"removed_{name}"))),
                exists(select(missing.returning(key).cte(f"added_{name}"))),
            ]
        return select(*columns, or_(*changes).label("changed"))

    async def link(self, unique_id: str, wanted: Mapping[str, Collection[str]]) -> Linking:
        """Make each set of links of a record exactly what is `wanted`: one statement, however many links.

        The record must be locked, or new in this transaction.
        """
        if not wanted:
            return Linking({}, changed=False)
        parameters = {name: sorted(set(ids)) for name, ids in wanted.items()}
        result = await self.connection.execute(self._replace(frozenset(wanted)), {"id": unique_id, **parameters})
        row = result.mappings().one()
        return Linking({name: frozenset(row[name]) for name in wanted}, row["changed"])

    @classmethod
    @cache
    def _record(cls, action: str) -> Select[str, str, int]:
        one = select(cls.table).where(cls._one())
        written = entry(cls.table, one.cte("changed"), cls.links, literal_column(f"'{action}'"))
        return cls.document.of(one).add_columns(select(func.count()).select_from(written).scalar_subquery())

    async def record(self, unique_id: str, action: str) -> Record:
        """Write a record that this transaction has `created`, `updated` or `restored` into the journal; read it back.

        Raises:
            IdentifierRetiredError: it was created under the id of a deleted one.
            ConflictError: its entry could not be written.
        """
        result = await self.connection.execute(self._record(action), {"id": unique_id, **author(self.principal)})
        *record, written = result.one()
        if not written:
            if action == "created":
                raise await self.retired(unique_id)
            raise self.changed()
        return Record._make(record)

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
    def _lock_for_deletion(cls) -> Select[str]:
        return select(cls.table.c.unique_id).where(cls._one()).with_for_update()

    async def lock_for_deletion(self, unique_id: str) -> None:
        """Lock one record so that none can refer to it until the transaction ends.

        Raises:
            NotFoundError: there is none of this id.
        """
        if (await self.connection.execute(self._lock_for_deletion(), self._id(unique_id))).one_or_none() is None:
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
                raise InUseError(self.name, patients)

    @classmethod
    @cache
    def _delete(cls) -> Executable:
        gone = delete(cls.table).where(cls._one()).returning(cls.table.c.unique_id, cls.table.c.version).cte("gone")
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
        return delete(cls.table).where(cls._one())

    async def erase(self, unique_id: str, reason: str) -> int:
        """Remove one record, if it is there, and all that is stored of it; the number of journal entries removed."""
        await self.connection.execute(self._remove(), self._id(unique_id))
        return await forget(self.connection, self.table.name, unique_id, reason, self.principal)
