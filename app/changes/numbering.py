"""Numbering: gives positions to the changes that have been committed.

If a change got its position before its commit, readers would pass the position while the change is still invisible.
Changes therefore get their positions after the commit, by the next reader, so that nothing waits for slow transactions.
"""

import time
from typing import NamedTuple

import asyncpg
from sqlalchemy import BigInteger, Integer, bindparam, cast, column, exists, func, literal_column, select, text
from sqlalchemy.dialects.postgresql import REGCLASS

from app.db.connection import Connection
from app.db.database import Database
from app.errors import UnavailableError
from app.models import changes, changes_pending
from app.models.change import NUMBERING_BATCH_SIZE

MAX_BATCHES_PER_READ = 4
"""Maximum number of batches that one reader numbers before it reads. The next reader numbers the rest."""
RETRY_AFTER_SECONDS = 1.0
"""Seconds after a failure during which a process does not try again."""


class FeedPosition(NamedTuple):
    """A position in the feed, with a number that shows whether the change at the position is still the same one.

    The number combines the random number of the batch in which the change got the position (see `app.models.change`)
    with a number of this database. After a dump is restored, the records may be older than those that a client has
    read, although the change at its position is the same. Positions from before the restore are therefore invalid.
    """

    position: int
    batch: int


class FeedState(NamedTuple):
    """The state of the feed at the time of a statement."""

    newest: FeedPosition
    is_pending: bool
    """Whether there are committed changes without a position."""
    is_standby: bool
    """Whether the server is a standby, which cannot number changes, and which may be behind its primary."""


_CLUSTER = func.pg_control_system().table_valued(column("system_identifier", BigInteger), name="cluster")
_TABLE = cast(cast(literal_column("'public.changes'"), REGCLASS), BigInteger)
_DATABASE_OID = cast(literal_column("pg_database.oid"), BigInteger)
_DATABASE = (
    select(func.hashint8extended(func.hashint8extended(_CLUSTER.c.system_identifier, _DATABASE_OID), _TABLE))
    .select_from(_CLUSTER, text("pg_database"))
    .where(literal_column("pg_database.datname") == func.current_database())
    .scalar_subquery()
)
"""A number of the tables of this database. A copy of the server's files has the same number; a restored dump has
another.
"""
BATCH = changes.c.batch.bitwise_xor(_DATABASE).label("batch")
"""The number in the `FeedPosition` of a change."""
_NEWEST = select(changes.c.position, BATCH).order_by(changes.c.position.desc()).limit(1).subquery()
_SELECT_STATE = select(_NEWEST, exists().select_from(changes_pending), func.pg_is_in_recovery())
_NUMBER_CHANGES = select(func.public.number_changes(bindparam("max_changes", type_=Integer)))


async def read_state(connection: Connection) -> FeedState:
    """Return the state of the feed."""
    position, batch, *flags = (await connection.execute(_SELECT_STATE)).one()
    return FeedState(FeedPosition(position, batch), *flags)


class Numbering:
    """Numbers pending changes, in batches that PostgreSQL completes within its timeouts."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batch_size = NUMBERING_BATCH_SIZE
        self._next_attempt_at = 0.0

    async def refresh(self, max_batches: int = MAX_BATCHES_PER_READ) -> FeedState:
        """Number up to `max_batches` batches of pending changes, and return the state of the feed after that.

        A failure to number them is logged and not raised, because the changes with a position can be read nevertheless.
        """
        async with self._database.read() as connection:
            state = await read_state(connection)
        if not state.is_pending or state.is_standby or time.monotonic() < self._next_attempt_at:
            return state
        for _ in range(max_batches):
            if not await self._number_batch():
                break
        async with self._database.read() as connection:
            return await read_state(connection)

    async def _number_batch(self) -> bool:
        """Number one batch, and return whether there may be more to number.

        There is nothing to do if another reader is numbering changes.
        """
        size = self._batch_size
        try:
            numbered: int | None = (await self._database.write(_NUMBER_CHANGES, {"max_changes": size})).scalar_one()
        except (asyncpg.PostgresError, UnavailableError) as error:
            self._batch_size = max(1, size // 10)  # in case this batch took too long
            self._next_attempt_at = time.monotonic() + RETRY_AFTER_SECONDS
            import structlog  # noqa: PLC0415  # commands do without it

            structlog.get_logger().warning("changes not numbered", error=type(error).__name__)
            return False
        self._batch_size = min(NUMBERING_BATCH_SIZE, 2 * size)
        return numbered == size
