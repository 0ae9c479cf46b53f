"""Records that are read by their ids: those that are asked for in the same moment, by one statement."""

from collections.abc import Sequence

from cachetools import LRUCache

from app.auth.principal import Principal
from app.db.gathering import Gathering
from app.db.session import Database
from app.errors import NotFoundError
from app.resource.identifiers import is_identifier
from app.resource.repository import Record, Repository

MOST = 100
"""Records of one statement: some milliseconds of work."""
MOST_WALLS = 1000
"""Different sets of hospitals that are kept in mind."""

_Key = tuple[type[Repository], frozenset[str] | None]


class Lookups:
    """Reads records, those of one resource and one side of the walls together.

    A statement costs the most by itself, not by what it reads: at 16 requests at once this doubles what is served.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._gatherings: LRUCache[_Key, Gathering[str, Record | None]] = LRUCache(MOST_WALLS)

    async def get(self, repository: type[Repository], principal: Principal, unique_id: str) -> Record:
        """Read one record that the principal may see.

        Raises:
            NotFoundError: there is none of this id.
        """
        if not is_identifier(unique_id):
            raise NotFoundError(repository.name)
        key = repository, principal.hospitals
        if (gathering := self._gatherings.get(key)) is None:
            gathering = self._gatherings[key] = self._gather(repository, principal)
        record = await gathering.ask(unique_id)
        if record is None:
            raise NotFoundError(repository.name)
        return record

    def _gather(self, repository: type[Repository], principal: Principal) -> Gathering[str, Record | None]:
        async def read(ids: list[str]) -> Sequence[Record | None]:
            async with self._database.read() as connection:
                found = await repository(connection, principal).get_many(ids)
            return [found.get(unique_id) for unique_id in ids]

        return Gathering(read, most=MOST)
