"""Reads of the same kind that are asked for in the same moment, done by one statement."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from cachetools import LRUCache

from app.auth.principal import Principal
from app.db.gathering import Gathering
from app.db.session import Database
from app.errors import NotFoundError
from app.resource.identifiers import is_identifier
from app.resource.listing import Listing
from app.resource.repository import Record, Repository
from app.resource.wanted import Found, Place, Wanted

MOST = 100
"""Records that are looked up by one statement: some milliseconds of work."""
MOST_KINDS = 1000
"""Kinds of reads that are kept in mind."""

_EVERYTHING = Wanted()


class Lookups:
    """Reads records by their ids, and pages of plain lists: those of one resource and one side of the walls together.

    A statement costs the most by itself, not by what it reads. Each begins after it was asked for, so what was written
    before is in it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._gatherings: LRUCache[Hashable, Gathering[Any, Any]] = LRUCache(MOST_KINDS)

    async def get(self, repository: type[Repository], principal: Principal, unique_id: str) -> Record:
        """Read one record that the principal may see.

        Raises:
            NotFoundError: there is none of this id.
        """

        async def read(ids: list[str]) -> Sequence[Record | None]:
            async with self._database.read() as connection:
                found = await repository(connection, principal).get_many(ids)
            return [found.get(unique_id) for unique_id in ids]

        if not is_identifier(unique_id):
            raise NotFoundError(repository.name)
        gathering = self._gathering((repository, principal.hospitals), lambda: Gathering(read, most=MOST))
        record: Record | None = await gathering.ask(unique_id)
        if record is None:
            raise NotFoundError(repository.name)
        return record

    async def page(
        self, repository: type[Repository], principal: Principal, after: Place | None, limit: int
    ) -> list[Found]:
        """Read up to `limit` of all records that the principal may see, after a place; once for all who ask for it."""

        async def read(alike: list[None]) -> Sequence[list[Found]]:
            async with self._database.read() as connection:
                items = await Listing(repository(connection, principal)).page(_EVERYTHING, after, limit)
            return [items] * len(alike)

        key = repository, principal.hospitals, after, limit
        gathering = self._gathering(key, lambda: Gathering(read, most=MOST))
        items: list[Found] = await gathering.ask(None)
        return items

    def _gathering(self, key: Hashable, make: Callable[[], Gathering[Any, Any]]) -> Gathering[Any, Any]:
        if (gathering := self._gatherings.get(key)) is None:
            gathering = self._gatherings[key] = make()
        return gathering
