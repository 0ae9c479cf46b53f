"""How long the audit is kept."""

from datetime import timedelta

from sqlalchemy import delete, func, literal
from sqlalchemy.ext.asyncio import AsyncConnection

from app.journal.erasure import FORBID, PERMIT
from app.models import audit


async def prune(connection: AsyncConnection, days: int) -> int:
    """Remove what is more than so many days old; the number of rows.

    Raises:
        sqlalchemy.exc.ProgrammingError: the connection's role may not (SQLSTATE 42501).
    """
    await connection.execute(PERMIT)
    old = audit.c.time < func.statement_timestamp() - literal(timedelta(days=days))
    removed = await connection.execute(delete(audit).where(old))
    await connection.execute(FORBID)
    return removed.rowcount
