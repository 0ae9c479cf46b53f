"""Retention of the audit, which has a partition per month: expired months are dropped and upcoming ones are added."""

from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.database import Database, set_local
from app.errors import UnavailableError

log = structlog.get_logger()

LOCK_TIMEOUT_SETTING = {"lock_timeout": "1s"}
"""Short, because all reads and writes of the audit queue behind a transaction that waits to drop a table."""
_ADD_MONTHS_STATEMENT = text("SELECT public.add_audit_months()")
_SELECT_PAST_MONTHS = text(
    r"""
    SELECT CAST(CAST(oid AS regclass) AS text), ends
    FROM pg_inherits
    JOIN pg_class ON oid = inhrelid,
    LATERAL CAST(substring(pg_get_expr(relpartbound, oid) FROM 'TO \(''([^'']+)''\)') AS timestamptz) AS ends
    WHERE inhparent = CAST('public.audit' AS regclass) AND ends <= statement_timestamp()
    ORDER BY ends
    """
)
"""Selects the partitions of past months, to which no rows are added any more, and the end of each."""


class PruneResult(NamedTuple):
    """The number of partitions and rows that were dropped."""

    months: int
    """Number of partitions. The first one has all rows from before the audit was partitioned."""
    rows: int


async def drop_expired_months(connection: AsyncConnection, retention_days: int) -> PruneResult:
    """Drop the months in which every row is more than `retention_days` days old, and return what was dropped.

    Raises:
        app.db.database.LockNotAvailableError: the audit is in constant use, so a table could not be locked in time.
        sqlalchemy.exc.ProgrammingError: the connection's role lacks the privilege (SQLSTATE 42501).
    """
    now: datetime = (await connection.execute(select(func.statement_timestamp()))).scalar_one()
    retention_start = now - timedelta(days=retention_days)
    expired_months, rows = [], 0
    for month, month_end in (await connection.execute(_SELECT_PAST_MONTHS)).all():
        newest_row_time = (await connection.execute(text(f"SELECT max(time) FROM {month}"))).scalar_one()  # noqa: S608
        if (newest_row_time or month_end) < retention_start:
            rows += (await connection.execute(text(f"SELECT count(*) FROM {month}"))).scalar_one()  # noqa: S608
            expired_months.append(month)
    await connection.execute(set_local(LOCK_TIMEOUT_SETTING))
    for month in expired_months:
        await connection.execute(text(f"DROP TABLE {month}"))
    return PruneResult(len(expired_months), rows)


async def add_months(database: Database) -> None:
    """Add missing partitions for this month and the next three, and log a failure.

    Rows of a month that has no partition yet are stored in `audit_default`.
    """

    async def work(connection: AsyncConnection) -> int:
        added: int = (await connection.execute(_ADD_MONTHS_STATEMENT)).scalar_one()
        return added

    try:
        added = await database.transaction(work)
    except (DBAPIError, UnavailableError) as error:
        log.warning("audit partitions not added", error=type(error).__name__)
    else:
        if added:
            log.info("audit partitions added", months=added)
