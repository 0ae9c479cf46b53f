"""How long the audit is kept, by months: those that are old are dropped, and those that will be needed are added."""

from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.session import Database, setting_locally
from app.errors import UnavailableError

log = structlog.get_logger()

LOCK_TIMEOUT = {"lock_timeout": "1s"}
"""Whoever waits to drop a table makes all wait that come to look or to write."""
_ADD = text("SELECT public.add_audit_months()")
_OVER = text(
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


class Pruned(NamedTuple):
    """What was removed."""

    months: int
    """Partitions: the first has all from before there were any."""
    rows: int


async def prune(connection: AsyncConnection, days: int) -> Pruned:
    """Drop the months all of whose rows are more than so many days old.

    Raises:
        app.db.session.InTheWayError: the audit is in use without a break.
        sqlalchemy.exc.ProgrammingError: the connection's role may not (SQLSTATE 42501).
    """
    now: datetime = (await connection.execute(select(func.statement_timestamp()))).scalar_one()
    kept_since = now - timedelta(days=days)
    dropped, rows = [], 0
    for month, ends in (await connection.execute(_OVER)).all():
        newest = (await connection.execute(text(f"SELECT max(time) FROM {month}"))).scalar_one()  # noqa: S608
        if (newest or ends) < kept_since:
            rows += (await connection.execute(text(f"SELECT count(*) FROM {month}"))).scalar_one()  # noqa: S608
            dropped.append(month)
    await connection.execute(setting_locally(LOCK_TIMEOUT))
    for month in dropped:
        await connection.execute(text(f"DROP TABLE {month}"))
    return Pruned(len(dropped), rows)


async def add_months(database: Database) -> None:
    """Have a partition for this month and the next three; until there is one, its rows are in `audit_default`."""

    async def work(connection: AsyncConnection) -> int:
        added: int = (await connection.execute(_ADD)).scalar_one()
        return added

    try:
        added = await database.transaction(work)
    except (DBAPIError, UnavailableError) as error:
        log.warning("months of the audit were not added", error=type(error).__name__)
    else:
        if added:
            log.info("months of the audit were added", months=added)
