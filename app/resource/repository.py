"""What the repositories of all resources share: reading documents, and insert, lock, update, delete by `unique_id`."""

from typing import Any, ClassVar, NamedTuple

from sqlalchemy import Column, ColumnElement, Table, and_, bindparam, delete, func, insert, select, text, true, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.errors import IdentifierTakenError, InUseError, NotFoundError
from app.models import retired_ids
from app.resource.document import Document
from app.resource.identifiers import is_identifier, new_identifier


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

    def visible(self) -> ColumnElement[bool]:
        """Which rows the principal may see. Every query of existing rows begins from it."""
        return true()

    def _one(self, unique_id: str) -> ColumnElement[bool]:
        if not is_identifier(unique_id):
            raise NotFoundError(self.name)  # no record can have it, and PostgreSQL's text could not hold it (NUL)
        return and_(self.visible(), self.table.c.unique_id == unique_id)

    async def get(self, unique_id: str) -> Record:
        """Read one record.

        Raises:
            NotFoundError: there is none of this id.
        """
        rows = select(self.table).where(self._one(unique_id))
        row = (await self.connection.execute(self.document.of(rows))).one_or_none()
        if row is None:
            raise NotFoundError(self.name)
        return Record._make(row)

    async def page(self, after: str | None, limit: int) -> list[Record]:
        """Read up to `limit` records whose id comes after `after`, in the order of `unique_id`."""
        rows = select(self.table).where(self.visible()).order_by(self.table.c.unique_id)
        if after is not None:
            rows = rows.where(self.table.c.unique_id > after)
        # the number stands in the statement: for `LIMIT $2` PostgreSQL plans as if a tenth of the table were wanted
        rows = rows.limit(bindparam("limit", limit, literal_execute=True))
        return [Record._make(row) for row in await self.connection.execute(self.document.of(rows))]

    async def insert(self, unique_id: str | None, values: dict[str, Any]) -> str:
        """Insert a record under `unique_id`, or a new id; the id.

        Raises:
            IdentifierTakenError: a record has the id, or had it before it was deleted.
        """
        given = unique_id is not None
        unique_id = unique_id or new_identifier(self.prefix)
        statement = (
            upsert(self.table)
            .values(unique_id=unique_id, **values)
            .on_conflict_do_nothing(index_elements=[self.table.c.unique_id])
            .returning(self.table.c.unique_id)
        )
        if (await self.connection.execute(statement)).one_or_none() is None:
            raise IdentifierTakenError(self.name)
        if given:
            await self.refuse_retired(unique_id)
        return unique_id

    async def refuse_retired(self, unique_id: str) -> None:
        """Refuse an id that a deleted record had. Asked after the insert: that has waited for a deletion under way.

        Raises:
            IdentifierTakenError: a deleted record had it.
        """
        used = select(retired_ids.c.unique_id).where(
            retired_ids.c.resource == self.table.name, retired_ids.c.unique_id == unique_id
        )
        if (await self.connection.execute(used)).one_or_none() is not None:
            raise IdentifierTakenError(self.name)

    async def lock(self, unique_id: str) -> RowMapping:
        """Lock one record against other changes and read its columns as they are then.

        `FOR NO KEY UPDATE`: `FOR UPDATE` would deadlock with foreign-key checks of other transactions.

        Raises:
            NotFoundError: there is none of this id.
        """
        statement = select(self.table).where(self._one(unique_id)).with_for_update(key_share=True)
        row = (await self.connection.execute(statement)).mappings().one_or_none()
        if row is None:
            raise NotFoundError(self.name)
        return row

    async def update(self, locked: RowMapping, values: dict[str, Any], *, touch: bool = False) -> None:
        """Write what differs from the `locked` row; nothing where nothing does, unless `touch` says that links did."""
        changed = {name: value for name, value in values.items() if locked[name] != value}
        if changed or touch:
            unique_id = self.table.c.unique_id
            await self.connection.execute(
                update(self.table).where(unique_id == locked["unique_id"]).values(**changed, **self.next_version())
            )

    def next_version(self) -> dict[str, ColumnElement[Any]]:
        """What each change of a row sets beside its values. Time does not stand still between two changes."""
        tick = self.table.c.last_updated + text("interval '1 microsecond'")
        return {"version": self.table.c.version + 1, "last_updated": func.greatest(func.clock_timestamp(), tick)}

    async def refuse_in_use(self, unique_id: str) -> None:
        """Refuse to go on where patients refer to a record. It is locked, so that none can until the transaction ends.

        Raises:
            NotFoundError: there is none of this id.
            InUseError: patients refer to it.
        """
        if self.patient_reference is None:
            return
        rows = select(self.table.c.unique_id).where(self._one(unique_id)).with_for_update()
        if (await self.connection.execute(rows)).one_or_none() is None:
            raise NotFoundError(self.name)
        count = select(func.count()).where(self.patient_reference == unique_id)
        if patients := (await self.connection.execute(count)).scalar_one():
            raise InUseError(self.name, patients)

    async def delete(self, unique_id: str) -> None:
        """Delete one record and retire its id.

        Raises:
            NotFoundError: there is none of this id.
        """
        statement = delete(self.table).where(self._one(unique_id)).returning(self.table.c.unique_id)
        if (await self.connection.execute(statement)).one_or_none() is None:
            raise NotFoundError(self.name)
        await self.connection.execute(insert(retired_ids).values(resource=self.table.name, unique_id=unique_id))
