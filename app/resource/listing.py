"""Lists, read from the database: pages of what is wanted, and how many records that is."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import cache, lru_cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, CursorResult, Select, bindparam, func, literal_column, null, select

from app.db.base import ID
from app.resource import walls
from app.resource.counting import Counted, counted, sample
from app.resource.finding import LIMIT, Part, condition, found, found_by_month, ordered, page_of, values_of
from app.resource.repository import Repository
from app.resource.wanted import Found, Place, Wanted

MOST_STATEMENTS = 32
"""That are kept built, of all that the combinations of parameters make."""


class Selection(NamedTuple):
    """Of which records a list is, as far as its statement depends on it, whatever the values."""

    resource: type[Repository]
    limited: bool
    """Whether the principal is."""
    few: bool = False
    """Whether it sees so few that they are looked up one by one."""
    filters: tuple[tuple[str, int], ...] = ()
    """The names of filters, each with the number of its values."""

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """What holds of the records that the filters let through and the principal may see."""
        table, links = self.resource.table, self.resource.links
        let_through = [condition(table, links, name, values) for name, values in self.filters]
        seen = walls.is_one_of_few(table.c.unique_id) if self.few else self.resource.visible(limited=self.limited)
        return [seen, *self.checked(let_through)]

    def checked(self, conditions: Iterable[ColumnElement[bool]]) -> list[ColumnElement[bool]]:
        """Conditions as they are asked of these records: of few, one by one.

        By an index PostgreSQL would read the records of others that meet them too, and tell by its time that there are.
        """
        return [each.is_(literal_column("true")) if self.few else each for each in conditions]

    @property
    def moment(self) -> str | None:
        """The column of which all filters are, if it says when records were created, or changed, and none is hidden."""
        columns = {name.partition("__")[0] for name, _ in self.filters}
        return None if self.limited or len(columns) != 1 else next(iter(columns & self.resource.moments), None)


class Listing:
    """The list of one resource, as far as the principal of its `repository` may see it."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.connection = repository.connection
        self._own = walls.parameters(repository.principal)

    async def page(self, wanted: Wanted, after: Place | None, limit: int) -> list[Found]:
        """Read up to `limit` records of what is wanted, from after a place in that list, or from its beginning."""
        if wanted.everything:
            statement = _plain(self._everything)
            return await self.items(statement, {}, after or Place(0, None, ""), limit)
        ordering = wanted.ordering or "unique_id"
        statement = _ordered(await self.selection(wanted), ordering, after.part if after else None)
        return await self.items(statement, values_of(wanted.filters), self.opened(ordering, after), limit)

    async def skip(self, after: Place, number: int) -> Place | None:
        """The place of the record so many after another in the plain list, if there is one, and it is soon found."""
        if self.repository.limited:
            return None
        skipped = await self._execute(_skip(self._everything, number), {"after_id": after.unique_id})
        unique_id: str | None = skipped.scalar_one_or_none()
        return None if unique_id is None else Place(0, None, unique_id)

    async def between(self, after: Place, last: Place) -> list[Found]:
        """Read the records of the plain list from after a place up to the `last`, for who is not limited."""
        places = {"after_id": after.unique_id, "last_id": last.unique_id}
        return list(map(Found._make, await self._execute(_between(self._everything), places)))

    @property
    def _everything(self) -> Selection:
        return Selection(type(self.repository), self.repository.limited)

    async def count(self, wanted: Wanted) -> Counted:
        """Count the records of what is wanted; all that the principal may see are no secret to it."""
        if not wanted.filters:
            return Counted(await self.total(wanted))
        return await self.counted(_sample(await self.selection(wanted)), values_of(wanted.filters))

    async def total(self, wanted: Wanted) -> int:
        """Count the records of what is wanted one by one, for a principal that is shown all of them anyway."""
        return await self.number(_count(await self.selection(wanted)), values_of(wanted.filters))

    async def selection(self, wanted: Wanted) -> Selection:
        """Of which records the list is, as far as the principal sees them."""
        repository = self.repository
        few = await repository.few_visible()
        self._own |= few or {}
        filters = tuple((name, len(values)) for name, values in sorted(wanted.filters.items()))
        return Selection(type(repository), repository.limited, few is not None, filters)

    def opened(self, ordering: str, place: Place | None) -> Place | None:
        """A place, as JSON has it, in a list of that order."""
        if place is None or place.key is None:
            return place
        kind = self.repository.table.c[ordering.removeprefix("-")].type.python_type
        return place._replace(key=kind.fromisoformat(place.key)) if issubclass(kind, date) else place

    async def items(
        self, statement: Select[Any], parameters: Mapping[str, Any], after: Place | None, limit: int
    ) -> list[Found]:
        """The records that a statement finds, whose columns are those of `page_of`."""
        place = {} if after is None else {"after_key": after.key, "after_id": after.unique_id}
        rows = await self._execute(statement, {**parameters, **place, "limit": limit})
        return list(map(Found._make, rows))

    async def counted(self, statement: Select[Any], parameters: Mapping[str, Any]) -> Counted:
        """How many records there are of which a statement finds a sample."""
        rows: Iterable[Any] = await self._execute(statement, parameters)
        return counted([(key, unique_id) for key, unique_id in rows])

    async def number(self, statement: Select[Any], parameters: Mapping[str, Any]) -> int:
        """The number that a statement answers."""
        return int((await self._execute(statement, parameters)).scalar_one())

    async def _execute(self, statement: Select[Any], parameters: Mapping[str, Any]) -> CursorResult[Any, Any, Any, Any]:
        rows: CursorResult[Any, Any, Any, Any] = await self.connection.execute(statement, {**parameters, **self._own})
        return rows


_AFTER = bindparam("after_id", type_=ID)


@cache
def _plain(selection: Selection) -> Select[Any]:
    rows = selection.resource.next_visible(_AFTER, LIMIT, limited=selection.limited)
    return _in_plain_order(selection.resource, rows)


@cache
def _between(selection: Selection) -> Select[Any]:
    key = selection.resource.table.c.unique_id
    rows = selection.resource.document.rows().where(key > _AFTER, key <= bindparam("last_id", type_=ID))
    return _in_plain_order(selection.resource, rows)


def _in_plain_order(resource: type[Repository], rows: Select[Any]) -> Select[Any]:
    of_page = resource.document.of(rows).subquery("of_page")
    unique_id, text = of_page.c
    return select(literal_column("0"), null(), unique_id, text).order_by(unique_id)


@cache
def _skip(selection: Selection, number: int) -> Select[str]:
    key = selection.resource.table.c.unique_id
    skipped = select(key).where(key > _AFTER).order_by(key).offset(literal_column(str(number - 1)))
    return skipped.limit(literal_column("1"))


@lru_cache(MOST_STATEMENTS)
def _ordered(selection: Selection, ordering: str, first: int | None) -> Select[Any]:
    resource, moment = selection.resource, selection.moment
    if moment is None or ordering.removeprefix("-") != "unique_id":
        return in_order(resource, ordering, first, selection.conditions)
    descending = ordering.startswith("-")
    rows = found_by_month(resource.table, moment, selection.filters, after=first is not None, descending=descending)
    return page_of(resource.document, rows, descending=descending)


@lru_cache(MOST_STATEMENTS)
def _count(selection: Selection) -> Select[Any]:
    return select(func.count()).select_from(selection.resource.table).where(*selection.conditions)


@lru_cache(MOST_STATEMENTS)
def _sample(selection: Selection) -> Select[Any]:
    return sample(select(selection.resource.table.c.unique_id).where(*selection.conditions))


def in_order(
    resource: type[Repository], ordering: str, first: int | None, held: Sequence[ColumnElement[bool]]
) -> Select[Any]:
    """The page of all of whom something holds, in the order of a column; after a place in the `first` part, if any."""
    every, descending = ordered(resource.table, ordering)
    parts = with_conditions(every[first or 0 :], held)
    rows = found(resource.table, parts, after=first is not None, descending=descending)
    return page_of(resource.document, rows, descending=descending)


def with_conditions(parts: Sequence[Part], more: Sequence[ColumnElement[bool]]) -> list[Part]:
    """Parts of which more has to hold."""
    return [part._replace(conditions=(*part.conditions, *more)) for part in parts]
