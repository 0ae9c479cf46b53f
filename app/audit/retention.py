"""How long the audit is kept, by months: those that are old are dropped, and those that will be needed are added."""

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
"""Whoever waits to drop a table makes all wait that come to look or to write."""
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
"""Months to which no row is added any more, each with its end."""


class PruneResult(NamedTuple):
    """What was removed."""

    months: int
    """Partitions: the first has all from before there were any."""
    rows: int


async def drop_expired_months(connection: AsyncConnection, retention_days: int) -> PruneResult:
    """Drop the months all of whose rows are more than so many days old.

    Raises:
        app.db.database.InTheWayError: the audit is in use without a break.
        sqlalchemy.exc.ProgrammingError: the connection's role may not (SQLSTATE 42501).
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
    """Have a partition for this month and the next three; until there is one, its rows are in `audit_default`."""

    async def work(connection: AsyncConnection) -> int:
        added: int = (await connection.execute(_ADD_MONTHS_STATEMENT)).scalar_one()
        return added

    try:
        added = await database.transaction(work)
    except (DBAPIError, UnavailableError) as error:
        log.warning("months of the audit were not added", error=type(error).__name__)
    else:
        if added:
            log.info("months of the audit were added", months=added)
