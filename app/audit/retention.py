"""Retention of the audit: drops the partitions of expired months, and adds partitions for upcoming months."""

from datetime import datetime, timedelta
from typing import NamedTuple

import asyncpg
import structlog
from sqlalchemy import func, select, text

from app.db.connection import Connection
from app.db.database import PROPAGATE_SETTINGS, Database
from app.errors import UnavailableError

log = structlog.get_logger()

_SET_LOCK_TIMEOUT = text("SET LOCAL lock_timeout = '1s'")
"""Limits the wait for the locks that are needed to drop partitions.

The limit is short because all reads and writes of the audit queue behind a transaction that waits for such a lock.
"""
_ADD_MONTHS_STATEMENT = text("SELECT public.add_audit_months()")
_SELECT_PAST_MONTHS = text(
    r"""
    SELECT CAST(CAST(oid AS regclass) AS text), ends, CAST(reltuples AS bigint)
    FROM pg_inherits
    JOIN pg_class ON oid = inhrelid,
    LATERAL CAST(substring(pg_get_expr(relpartbound, oid) FROM 'TO \(''([^'']+)''\)') AS timestamptz) AS ends
    WHERE inhparent = CAST('public.audit' AS regclass) AND ends <= statement_timestamp()
    ORDER BY ends
    """
)
"""Selects the name of each partition of a past month, the end of that month, and its approximate number of rows.

The number is not positive if the partition is empty, was never analyzed, or lies on Citus workers. Past months receive
no more rows.
"""


class PruneResult(NamedTuple):
    """How much `drop_expired_months` has removed."""

    months: int
    """Number of partitions.

    Each contains one month, except the oldest, which contains all rows from before the audit was partitioned.
    """
    rows: int
    """Approximate number of rows, because counting the rows of a large month would slow down all requests."""


async def drop_expired_months(connection: Connection, retention_days: int) -> PruneResult:
    """Drop the monthly partitions in which every row is more than `retention_days` days old.

    Raises:
        app.db.database.LockNotAvailableError: a partition could not be locked in time, because the audit is in constant
            use.
        asyncpg.InsufficientPrivilegeError: the connection's role lacks the privilege to do this.
    """
    now: datetime = (await connection.execute(select(func.statement_timestamp()))).scalar_one()
    retention_start = now - timedelta(days=retention_days)
    expired_months, rows = [], 0
    for month, month_end, row_estimate in (await connection.execute(_SELECT_PAST_MONTHS)).all():
        newest_row_time = (await connection.execute(text(f"SELECT max(time) FROM {month}"))).scalar_one()  # noqa: S608
        if (newest_row_time or month_end) < retention_start:
            if row_estimate > 0:
                rows += row_estimate
            else:
                rows += (await connection.execute(text(f"SELECT count(*) FROM {month}"))).scalar_one()  # noqa: S608
            expired_months.append(month)
    await connection.execute(PROPAGATE_SETTINGS)
    await connection.execute(_SET_LOCK_TIMEOUT)
    for month in expired_months:
        await connection.execute(text(f"DROP TABLE {month}"))
    return PruneResult(len(expired_months), rows)


async def add_months(database: Database) -> None:
    """Add the missing partitions for this month and the next three. A failure is logged and not raised.

    If a month has no partition yet, its rows are stored in `audit_default`.
    """

    async def work(connection: Connection) -> int:
        added: int = (await connection.execute(_ADD_MONTHS_STATEMENT)).scalar_one()
        return added

    try:
        added = await database.transaction(work)
    except (asyncpg.PostgresError, UnavailableError) as error:
        log.warning("audit partitions not added", error=type(error).__name__)
    else:
        if added:
            log.info("audit partitions added", months=added)
