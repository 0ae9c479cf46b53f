"""Retention of the feed: numbers changes that no reader has numbered, and deletes the oldest ones."""

import asyncio
from datetime import timedelta

import asyncpg
import structlog
from sqlalchemy import BigInteger, Interval, Select, bindparam, delete, func, literal_column, or_, select

from app.changes.numbering import Numbering
from app.db.connection import Connection
from app.db.database import Database
from app.errors import UnavailableError
from app.models import changes, hospital_changes

log = structlog.get_logger()

MAINTENANCE_INTERVAL_SECONDS = 3600
FIRST_MAINTENANCE_DELAY_SECONDS = 60
"""Seconds from the start of the process to the first run, so that processes that start serve their requests first."""
MAX_BATCHES_PER_RUN = 200
"""Maximum number of batches that one run numbers or deletes, so that it ends soon. The next run does the rest."""
EXPIRY_BATCH_SIZE = 5_000
"""Maximum number of changes that one transaction deletes."""


def _expiry_statement() -> Select[int]:
    """Return the statement that deletes the oldest changes and returns their number.

    It deletes consecutive changes only, because a cursor is valid as long as the change at its position is kept. The
    newest change is kept, from which new ones are numbered.
    """
    column = changes.c
    oldest = (
        select(column.position, column.time)
        .order_by(column.position)
        .limit(literal_column(str(EXPIRY_BATCH_SIZE)))
        .cte("oldest")
    )
    newest = select(func.max(column.position)).scalar_subquery()
    is_kept = or_(
        oldest.c.position == newest,
        (oldest.c.time >= func.statement_timestamp() - bindparam("max_age", type_=Interval))
        & (oldest.c.position > newest - bindparam("max_count", type_=BigInteger)),
    )
    first_kept = select(func.min(oldest.c.position)).where(is_kept).scalar_subquery()
    end = func.coalesce(first_kept, select(func.max(oldest.c.position) + 1).scalar_subquery())
    expired = delete(changes).where(column.position < end).returning(column.position).cte("expired")
    of_hospitals = delete(hospital_changes).where(hospital_changes.c.position < end).cte("of_hospitals")
    return select(func.count()).select_from(expired).add_cte(of_hospitals)


_EXPIRE = _expiry_statement()


async def maintain_changes_periodically(database: Database, max_days: int, max_count: int) -> None:
    """Call `maintain_changes` soon and every `MAINTENANCE_INTERVAL_SECONDS`, until this coroutine is cancelled."""
    await asyncio.sleep(FIRST_MAINTENANCE_DELAY_SECONDS)
    while True:
        await maintain_changes(database, max_days, max_count)
        await asyncio.sleep(MAINTENANCE_INTERVAL_SECONDS)


async def maintain_changes(database: Database, max_days: int, max_count: int) -> None:
    """Number pending changes, and delete those that are older than `max_days` or beyond the newest `max_count`.

    A failure is logged and not raised. The next run does what is left.
    """

    async def expire(connection: Connection) -> int:
        limits = {"max_age": timedelta(days=max_days), "max_count": max_count}
        expired: int = (await connection.execute(_EXPIRE, limits)).scalar_one()
        return expired

    try:
        await Numbering(database).refresh(MAX_BATCHES_PER_RUN)
        for _ in range(MAX_BATCHES_PER_RUN):
            if await database.transaction(expire) < EXPIRY_BATCH_SIZE:
                break
    except (asyncpg.PostgresError, UnavailableError) as error:
        log.warning("old changes not removed", error=type(error).__name__)
