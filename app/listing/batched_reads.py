"""Reads of the same kind that are asked for in the same moment, done by one statement."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from cachetools import LRUCache

from app.auth.principal import Principal
from app.db.batching import Batcher
from app.db.database import Database
from app.errors import NotFoundError
from app.identifiers import is_identifier
from app.listing.listing import Listing
from app.listing.query import KeysetRow, ListQuery, Position
from app.records.repository import Record, Repository

MAX_BATCH_SIZE = 100
"""Records that are looked up by one statement: some milliseconds of work."""
MAX_BATCHERS = 1000
"""Kinds of reads that are kept in mind."""

_UNFILTERED_QUERY = ListQuery()


class BatchedReads:
    """Reads records by their ids, and pages of plain lists: those of one resource and one side of the walls together.

    A statement costs the most by itself, not by what it reads. Each begins after it was asked for, so what was written
    before is in it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batchers: LRUCache[Hashable, Batcher[Any, Any]] = LRUCache(MAX_BATCHERS)

    async def get(self, repository_class: type[Repository], principal: Principal, unique_id: str) -> Record:
        """Read one record that the principal may see.

        Raises:
            NotFoundError: there is none of this id.
        """

        async def read(ids: list[str]) -> Sequence[Record | None]:
            async with self._database.read() as connection:
                records = await repository_class(connection, principal).get_many(ids)
            return [records.get(unique_id) for unique_id in ids]

        if not is_identifier(unique_id):
            raise NotFoundError(repository_class.name)
        batcher = self._batcher_for(
            (repository_class, principal.hospitals), lambda: Batcher(read, max_cost=MAX_BATCH_SIZE)
        )
        record: Record | None = await batcher.submit(unique_id)
        if record is None:
            raise NotFoundError(repository_class.name)
        return record

    async def page(
        self, repository_class: type[Repository], principal: Principal, after: Position | None, limit: int
    ) -> list[KeysetRow]:
        """Read up to `limit` of all records that the principal may see, after a place; once for all who ask for it."""

        async def read(requests: list[None]) -> Sequence[list[KeysetRow]]:
            async with self._database.read() as connection:
                items = await Listing(repository_class(connection, principal)).page(_UNFILTERED_QUERY, after, limit)
            return [items] * len(requests)

        key = repository_class, principal.hospitals, after, limit
        batcher = self._batcher_for(key, lambda: Batcher(read, max_cost=MAX_BATCH_SIZE))
        items: list[KeysetRow] = await batcher.submit(None)
        return items

    def _batcher_for(self, key: Hashable, create: Callable[[], Batcher[Any, Any]]) -> Batcher[Any, Any]:
        if (batcher := self._batchers.get(key)) is None:
            batcher = self._batchers[key] = create()
        return batcher
