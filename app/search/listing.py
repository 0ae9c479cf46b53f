"""The list of patients, which can be searched."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal_column, select

from app.resource.counting import Counted, sample
from app.resource.finding import found, page_of, values_of
from app.resource.listing import MOST_STATEMENTS, Listing, Selection, in_order, with_conditions
from app.resource.wanted import Found, Place, Wanted
from app.search.conditions import Shape, matching, parts, understood
from app.search.typed import Typed
from app.search.words import meant

_READING, _FAR = 20, 10
"""What the number of a part has besides: the reading of what was typed; and in an order of its own, that it is far.

That is decided once, at the first page: who is created later must not hide who was there.
"""


class PatientListing(Listing):
    """Who is found by a search, best match first; or the list without one."""

    async def page(self, wanted: Wanted, after: Place | None, limit: int) -> list[Found]:
        """Read up to `limit` records of what is wanted, from after a place in that list, or from its beginning."""
        if wanted.search is None:
            return await super().page(wanted, after, limit)
        first, part = divmod(after.part, _READING) if after else (0, 0)
        place = after and after._replace(part=part)
        items: list[Found] = []
        for number, reading in enumerate(wanted.search[first:], first):
            if (search := await self._search(reading, wanted)) is not None:
                items = [_moved(item, number * _READING) for item in await search.page(place, limit)]
            if items or place is not None:
                break
        return items

    async def count(self, wanted: Wanted) -> Counted:
        """Count the records of what is wanted."""
        if wanted.search is None:
            return await super().count(wanted)
        number = Counted(0)
        for reading in wanted.search:
            search = await self._search(reading, wanted)
            number = await search.count() if search is not None else Counted(0)
            if number.ids:
                break
        return number

    async def _search(self, typed: Typed, wanted: Wanted) -> "_Search | None":
        """The search for what was typed; none where that cannot be anybody."""
        if typed.is_nobody:
            return None
        words = await meant(self.connection, typed.words, self.repository.principal.hospitals) if typed.words else []
        if len(words) < len(typed.words):
            return None
        return _Search(self, await self.selection(wanted), wanted, *understood(typed, words))


def _moved(item: Found, parts: int) -> Found:
    """A record in a list, so many parts further on."""
    return item._replace(part=item.part + parts)


class _Search:
    """One search."""

    def __init__(
        self,
        listing: PatientListing,
        selection: Selection,
        wanted: Wanted,
        shape: Shape,
        parameters: Mapping[str, Any],
    ) -> None:
        self._listing = listing
        self._selection = selection
        self._ordering = wanted.ordering
        self._shape = shape
        self._parameters = {**parameters, **values_of(wanted.filters)}

    async def page(self, after: Place | None, limit: int) -> list[Found]:
        if self._ordering is not None:
            return await self._in_order(self._ordering, after, limit)
        near, _ = parts(self._shape)
        if after is not None and after.part >= len(near):
            return await self._best_first(after, limit, far=True)
        items = await self._best_first(after, limit)
        if items or after is not None or not self._shape.short:
            return items
        return await self._best_first(None, limit, far=True)

    async def count(self) -> Counted:
        reach = "far" if await self._goes_far() else "near"
        return await self._listing.counted(_sample(self._selection, self._shape, reach), self._parameters)

    async def _goes_far(self) -> bool:
        """Whether nobody is near what was typed, so that others are looked for."""
        if not self._shape.short:
            return False
        return not await self._listing.number(_any_near(self._selection, self._shape), self._parameters)

    async def _best_first(self, after: Place | None, limit: int, *, far: bool = False) -> list[Found]:
        statement = _best_first(self._selection, self._shape, after.part if after else None, far=far)
        return await self._listing.items(statement, self._parameters, after, limit)

    async def _in_order(self, ordering: str, after: Place | None, limit: int) -> list[Found]:
        far = await self._goes_far() if after is None else after.part >= _FAR
        place = after and self._listing.opened(ordering, after._replace(part=after.part % _FAR))
        first = place.part if place else None
        statement = _in_order(self._selection, self._shape, "far" if far else "near", ordering, first)
        items = await self._listing.items(statement, self._parameters, place, limit)
        return [_moved(item, _FAR) for item in items] if far else items


@lru_cache(MOST_STATEMENTS)
def _best_first(selection: Selection, shape: Shape, first: int | None, *, far: bool) -> Select[Any]:
    chosen = [
        part._replace(conditions=selection.checked(part.conditions))
        for part in parts(shape)[far]
        if first is None or part.number >= first
    ]
    resource = selection.resource
    rows = found(resource.table, with_conditions(chosen, selection.conditions), after=first is not None)
    return page_of(resource.document, rows)


def _held(selection: Selection, shape: Shape, reach: str) -> list[ColumnElement[bool]]:
    return selection.checked(matching(shape, reach))


@lru_cache(MOST_STATEMENTS)
def _in_order(selection: Selection, shape: Shape, reach: str, ordering: str, first: int | None) -> Select[Any]:
    return in_order(selection.resource, ordering, first, [*selection.conditions, *_held(selection, shape, reach)])


def _ids(selection: Selection, shape: Shape, reach: str) -> Select[Any]:
    held = _held(selection, shape, reach)
    return select(selection.resource.table.c.unique_id).where(*selection.conditions, *held)


@lru_cache(MOST_STATEMENTS)
def _sample(selection: Selection, shape: Shape, reach: str) -> Select[Any]:
    return sample(_ids(selection, shape, reach))


@lru_cache(MOST_STATEMENTS)
def _any_near(selection: Selection, shape: Shape) -> Select[Any]:
    one = _ids(selection, shape, "near").limit(literal_column("1"))
    return select(func.count()).select_from(one.subquery())
