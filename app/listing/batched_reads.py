"""Reads of single records and of unfiltered pages, batched across concurrent requests.

The pattern is known as a dataloader (like `aiodataloader.DataLoader`, but without a cache). `app.db.batching` lists the
features that it adds to the pattern. Batching is worthwhile because executing a statement costs PostgreSQL and the
driver more than reading one row does. If this changes, this module can be removed.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any

from cachetools import LRUCache

from app.auth.principal import Principal
from app.db.batching import Batcher
from app.db.database import Database
from app.errors import NotFoundError
from app.identifiers import is_identifier
from app.listing.listing import Listing
from app.listing.page import Page
from app.listing.query import ListQuery, Position
from app.records.missing import missing_error
from app.records.repository import Repository
from app.records.results import Record

MAX_BATCH_SIZE = 100
"""Maximum number of requests that one statement serves. Reading this many records takes some milliseconds."""
MAX_BATCHERS = 1000
"""Maximum number of batchers that are kept in memory. There is one batcher for each kind of read."""

_UNFILTERED_QUERY = ListQuery()


class BatchedReads:
    """Reads records by id, and pages of unfiltered lists, with one statement for all concurrent calls of the same kind.

    Batching saves time because a statement has a high fixed cost compared to the rows that it reads. Calls are of the
    same kind if they read the same resource with the same hospital scope and, for pages, the same position and limit. A
    statement starts only after all calls that it serves were made, so each caller sees everything that was committed
    before its call.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batchers: LRUCache[Hashable, Batcher[Any, Any]] = LRUCache(MAX_BATCHERS)

    async def get(self, repository_class: type[Repository], hospitals: frozenset[str] | None, unique_id: str) -> Record:
        """Return the record `unique_id` if it is visible to the principal.

        `hospitals` is the hospital scope of the principal; None means an unrestricted principal.

        Raises:
            NotFoundError: no visible record has this id.
            MergedError: the record was merged into another one.
        """

        async def read(ids: list[str]) -> Sequence[Record | None]:
            async with self._database.read() as connection:
                records = await repository_class(connection, _reader(hospitals)).get_many(ids)
            return [records.get(unique_id) for unique_id in ids]

        if not is_identifier(unique_id):
            raise NotFoundError(repository_class.name)
        batcher = self._batcher_for((repository_class, hospitals), lambda: Batcher(read, max_cost=MAX_BATCH_SIZE))
        record: Record | None = await batcher.submit(unique_id)
        if record is None and not repository_class.mergeable:
            raise NotFoundError(repository_class.name)
        if record is None:
            async with self._database.read() as connection:
                raise await missing_error(repository_class(connection, _reader(hospitals)), unique_id)
        return record

    async def page(
        self, repository_class: type[Repository], hospitals: frozenset[str] | None, after: Position | None, limit: int
    ) -> Page:
        """Return up to `limit` visible records of the unfiltered list, starting after the position `after`.

        If `after` is None, the page starts at the beginning of the list. `hospitals` is the hospital scope of the
        principal; None means an unrestricted principal.
        """

        async def read(requests: list[None]) -> Sequence[Page]:
            async with self._database.read() as connection:
                listing = Listing(repository_class(connection, _reader(hospitals)))
                page = await listing.page(_UNFILTERED_QUERY, after, limit)
            return [page] * len(requests)

        key = repository_class, hospitals, after, limit
        batcher = self._batcher_for(key, lambda: Batcher(read, max_cost=MAX_BATCH_SIZE))
        page: Page = await batcher.submit(None)
        return page

    def _batcher_for(self, key: Hashable, create: Callable[[], Batcher[Any, Any]]) -> Batcher[Any, Any]:
        if (batcher := self._batchers.get(key)) is None:
            batcher = self._batchers[key] = create()
        return batcher


@lru_cache(MAX_BATCHERS)
def _reader(hospitals: frozenset[str] | None) -> Principal:
    """Return a principal that stands for all callers of a batch.

    The callers may be different principals with the same hospital scope, so the returned principal has this scope, a
    generic name and no scopes for operations.
    """
    return Principal("batched reads", scopes=frozenset(), hospitals=hospitals)
