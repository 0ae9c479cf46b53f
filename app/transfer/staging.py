"""Records on their way in, a batch at a time: copied into a staging table, compared with what is there, written.

Every step is one statement for the whole batch, however many records, in the order of their keys. What the statements
do is what the services do record by record, for a principal that is not limited.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Delete,
    Insert,
    Integer,
    MetaData,
    Select,
    Table,
    Update,
    all_,
    and_,
    any_,
    bindparam,
    case,
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
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateTable, DropTable

from app.auth.principal import Principal
from app.db.base import ID
from app.db.session import CollisionError, copy_in
from app.errors import FieldError, IdentifierRetiredError
from app.journal.entries import author, entry, is_known
from app.resource.identifiers import new_identifier
from app.resource.links import unknown_link
from app.resource.repository import Repository
from app.resource.writing import next_version, own_values
from app.transfer.bodies import MOMENTS, Body


class Fate(StrEnum):
    """What becomes of a line."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


class Fault(NamedTuple):
    """What is wrong with a line."""

    line: int
    error: FieldError


class Batch:
    """Some bodies, of as many records: what has an id that is in it already has to go into the next one."""

    def __init__(self, staging: "Staging") -> None:
        self._staging = staging
        self.rows: list[tuple[Any, ...]] = []
        self.links = 0
        """How many ids of other records its lines name."""
        self._ids: set[str] = set()

    def has_room_for(self, body: Body) -> bool:
        """Whether its record is not in it yet."""
        return body.values.get("unique_id") not in self._ids

    def add(self, body: Body) -> None:
        """Take a body, under a new id if it has none."""
        values = body.values
        unique_id = values.get("unique_id") or new_identifier(self._staging.repository.prefix)
        self._ids.add(unique_id)
        given = sum(bit for name, bit in self._staging.bits.items() if name in values)
        moments = [values.get(name) for name in MOMENTS]
        own = [values.get(name) for name in self._staging.bits]
        self.links += sum(len(values.get(name, ())) for name in self._staging.repository.links)
        self.rows.append((body.line, unique_id, given, *moments, *own))


class Staging:
    """The staging table of one resource and what is done with it, on one connection, within its transaction."""

    def __init__(
        self, connection: AsyncConnection, principal: Principal, repository: type[Repository], *, overwrite: bool
    ) -> None:
        self.connection = connection
        self.author = author(principal)
        self.repository = repository
        self.overwrite = overwrite
        """Whether records that are there and differ are changed; else their lines are wrong."""
        self.table = repository.table
        self.settable = own_values(self.table)
        names = [*self.settable, *repository.links]
        self.bits: Mapping[str, int] = {name: 1 << place for place, name in enumerate(names)}
        """Of what a line may give, columns and links: where they stand in the number that says which it gives."""
        self.staged = Table(
            f"staged_{self.table.name}",
            MetaData(),
            Column("line", Integer),
            Column("unique_id", ID, primary_key=True),
            Column("given", BigInteger),
            *(Column(name, DateTime(timezone=True)) for name in MOMENTS),
            *(Column(name, self.table.c[name].type) for name in self.settable),
            *(Column(name, ARRAY(ID)) for name in repository.links),
            Column("fate", ID, server_default=Fate.CREATED),
            prefixes=["TEMPORARY"],
            postgresql_on_commit="DROP",
        )

    async def open(self) -> None:
        """Make the staging table, which goes with the transaction."""
        await self.connection.execute(CreateTable(self.staged))

    async def close(self) -> None:
        """Drop it before that: a second file may be of the same resource."""
        await self.connection.execute(DropTable(self.staged))

    def batch(self) -> Batch:
        """An empty one."""
        return Batch(self)

    async def stage(self, batch: Batch) -> None:
        """Have a batch, and nothing else, in the staging table."""
        await self.connection.execute(text(f"TRUNCATE {self.staged.name}"))
        columns = [column.name for column in self.staged.columns if column.name != "fate"]
        await copy_in(self.connection, self.staged.name, columns, batch.rows)

    async def compare(self) -> None:
        """Say of each line what would become of it; what is to be changed is locked."""
        if self.overwrite:
            await self.connection.execute(self._lock)
        await self.connection.execute(self._compare)

    async def faults(self) -> AsyncIterator[Fault]:
        """All that is wrong with the lines, beside what could be told without the database."""
        if not self.overwrite:
            for line in await self._lines(self._differing):
                message = f"Another {self.repository.name} has this unique_id, with other data: --update changes it"
                yield Fault(line, FieldError(("unique_id",), message, "identifier_taken"))
        for line in await self._lines(self._retired):
            yield Fault(line, FieldError(("unique_id",), retired(self.repository), "identifier_retired"))
        for name in self.settable:
            if not self.table.c[name].nullable:
                for line in await self._lines(self._lacking(name)):
                    yield Fault(line, FieldError((name,), "Must be given", "missing"))
        for name in self.repository.links:
            for line, place, unique_id in await self.connection.execute(self._unknown(name)):
                yield Fault(line, unknown_link(name, place, unique_id))

    async def discard(self, lines: Iterable[int]) -> None:
        """Forget lines."""
        statement = delete(self.staged).where(self.staged.c.line == any_(bindparam("lines", type_=ARRAY(Integer))))
        await self.connection.execute(statement, {"lines": sorted(lines)})

    async def write(self) -> dict[str, int]:
        """Create and change what is to be, with its links and its journal entries; how many lines of each fate.

        Raises:
            CollisionError: somebody else was faster.
        """
        counts = {fate: int(number) for fate, number in await self.connection.execute(self._fates)}
        created, updated = (counts.get(fate, 0) for fate in (Fate.CREATED, Fate.UPDATED))
        written = 0
        if created:
            written += (await self.connection.execute(self._insert)).rowcount
        if updated:
            written += (await self.connection.execute(self._update)).rowcount
        if created or updated:
            for name in self.repository.links:
                if updated:
                    await self.connection.execute(self._unlink(name))
                await self.connection.execute(self._link(name))
            entries = (await self.connection.execute(self._record, self.author)).scalar_one()
            if not created + updated == written == entries:
                raise CollisionError
        return counts

    async def _lines(self, statement: Select[Any]) -> Sequence[int]:
        lines: Sequence[int] = (await self.connection.execute(statement)).scalars().all()
        return lines

    def gives(self, name: str) -> ColumnElement[bool]:
        """Whether a line gives a column or links."""
        return self.staged.c.given.bitwise_and(literal_column(str(self.bits[name]))) != literal_column("0")

    def has(self, *fates: Fate) -> ColumnElement[bool]:
        """Whether a line has one of these fates."""
        return self.staged.c.fate.in_([literal_column(f"'{fate}'") for fate in fates])

    @property
    def _same(self) -> ColumnElement[bool]:
        return self.table.c.unique_id == self.staged.c.unique_id

    @cached_property
    def _lock(self) -> Select[Any]:
        there: Select[Any] = select(literal_column("1")).select_from(self.staged.join(self.table, self._same))
        # not FOR UPDATE, which would deadlock with foreign-key checks of other transactions
        return there.order_by(self.table.c.unique_id).with_for_update(key_share=True, of=self.table)

    @cached_property
    def _compare(self) -> Update:
        differences = [
            and_(self.gives(name), self.table.c[name].is_distinct_from(self.staged.c[name])) for name in self.settable
        ]
        for name, relation in self.repository.links.items():
            asked = func.unnest(self.staged.c[name]).column_valued("asked")
            wanted = func.array(select(asked).distinct().order_by(asked).scalar_subquery())
            linked = select(relation.key).where(relation.owner == self.table.c.unique_id).order_by(relation.key)
            differs = wanted.is_distinct_from(func.array(linked.correlate(self.table).scalar_subquery()))
            differences.append(and_(self.gives(name), differs))
        fate = case((or_(*differences), literal_column("'updated'")), else_=literal_column("'unchanged'"))
        return update(self.staged).values(fate=fate).where(self._same)

    @cached_property
    def _fates(self) -> Select[Any]:
        return select(self.staged.c.fate, func.count()).group_by(self.staged.c.fate)

    @cached_property
    def _differing(self) -> Select[Any]:
        return select(self.staged.c.line).where(self.has(Fate.UPDATED))

    @property
    def once_there(self) -> ColumnElement[bool]:
        """Whether a line is to create a record under the id of a deleted one."""
        return and_(self.has(Fate.CREATED), is_known(self.table, self.staged.c.unique_id).correlate(self.staged))

    @cached_property
    def _retired(self) -> Select[Any]:
        return select(self.staged.c.line).where(self.once_there)

    def _lacking(self, name: str) -> Select[Any]:
        return select(self.staged.c.line).where(self.has(Fate.CREATED), self.staged.c[name].is_(None))

    def _unknown(self, name: str) -> Select[Any]:
        asked = (
            func.unnest(self.staged.c[name])
            .table_valued("unique_id", with_ordinality="place", name="asked")
            .render_derived()
        )
        target = self.repository.links[name].target
        known = exists().where(target.c.unique_id == asked.c.unique_id)
        place = asked.c.place - literal_column("1")
        lines = self.staged.join(asked, true())
        return select(self.staged.c.line, place, asked.c.unique_id).select_from(lines).where(~known)

    @cached_property
    def _insert(self) -> Insert:
        staged, now = self.staged.c, func.statement_timestamp()
        values = {
            "unique_id": staged.unique_id,
            **{name: staged[name] for name in self.settable},
            "date_created": func.coalesce(staged.date_created, staged.last_updated, now),
            "last_updated": func.coalesce(staged.last_updated, now),
        }
        rows = select(*values.values()).where(self.has(Fate.CREATED)).order_by(staged.unique_id)
        return insert(self.table).from_select(list(values), rows).on_conflict_do_nothing()

    @cached_property
    def _update(self) -> Update:
        values = {
            name: case((self.gives(name), self.staged.c[name]), else_=self.table.c[name]) for name in self.settable
        }
        return (
            update(self.table).values({**values, **next_version(self.table)}).where(self._same, self.has(Fate.UPDATED))
        )

    def _unlink(self, name: str) -> Delete:
        relation, wanted = self.repository.links[name], self.staged.c[name]
        unwanted = and_(relation.owner == self.staged.c.unique_id, relation.key != all_(wanted))
        return delete(relation.link).where(unwanted, self.has(Fate.UPDATED), self.gives(name))

    def _link(self, name: str) -> Insert:
        relation = self.repository.links[name]
        keys = func.unnest(self.staged.c[name]).table_valued("unique_id", name="keys").render_derived()
        key = keys.c.unique_id
        # in the order of the targets, in which every transaction locks them by the foreign key's check
        rows = (
            select(self.staged.c.unique_id, key)
            .select_from(self.staged.join(keys, true()))
            .where(self.has(Fate.CREATED, Fate.UPDATED))
            .order_by(key, self.staged.c.unique_id)
        )
        return insert(relation.link).from_select([relation.owner, relation.key], rows).on_conflict_do_nothing()

    @cached_property
    def _record(self) -> Select[Any]:
        rows = self.repository.document.rows().join(self.staged, self._same).add_columns(self.staged.c.fate)
        changed: CTE = rows.where(self.has(Fate.CREATED, Fate.UPDATED)).cte("changed")
        written = entry(self.table, changed, self.repository.links, changed.c.fate)
        return select(func.count()).select_from(written)


def retired(repository: type[Repository]) -> str:
    """What is wrong with using the id of a deleted record again."""
    return IdentifierRetiredError(repository.name, None).detail
