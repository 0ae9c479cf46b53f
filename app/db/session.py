"""The connection to PostgreSQL: the pool, and the one place where work is committed."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.errors import ConflictError, UnavailableError

T = TypeVar("T")

WAIT = 1.5
"""Seconds to wait for a free connection, before the client is told to come back (503); connecting may take as long."""


def create_engine(url: str, *, pool_size: int) -> AsyncEngine:
    """An engine on asyncpg, which reads `url` itself: what libpq understands (`sslmode`, sockets, several hosts) works.

    Parameters stay out of error messages: they are patient data.
    """

    async def connect() -> asyncpg.Connection:
        # jit: the planner's estimate for a page is far above what it costs, and compiling takes longer than running
        server_settings = {"application_name": "patients-api", "jit": "off"}
        try:
            return await asyncpg.connect(url, timeout=WAIT, server_settings=server_settings)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise UnavailableError from error

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=WAIT,
        hide_parameters=True,
    )


_AWAY = ("08", "53", "57")
"""SQLSTATE classes: connection exception, insufficient resources, operator intervention (shutdown, cancel)."""
_COLLISIONS = ("40001", "40P01", "55P03")
"""SQLSTATEs: serialization failure, deadlock, lock timeout. The same request may succeed in a moment."""
_FOREIGN_KEY = "23503"


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Raise the service's errors for the database's, where a client can do something about them."""
    try:
        yield
    except PoolTimeoutError as error:
        raise UnavailableError from error
    except DBAPIError as error:
        sqlstate = getattr(error.orig, "sqlstate", None) or ""
        if error.connection_invalidated or sqlstate.startswith(_AWAY) or sqlstate in _COLLISIONS:
            raise UnavailableError from error
        if sqlstate == _FOREIGN_KEY:
            raise ConflictError(
                "A record that this one is linked to was deleted or linked at the same moment."
            ) from error
        raise


class Database:
    """What routes and commands use of PostgreSQL: `read` for a single SELECT, `transaction` for everything else."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for one SELECT. It is its own transaction, which saves the round trips of BEGIN and COMMIT."""
        async with _translated(), self._autocommit.connect() as connection:
            yield connection

    async def transaction(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work` in one transaction and commit it: all of it is stored, or, if anything raises, nothing.

        The result is to be answered only after this returns: what was answered is stored.
        """
        async with _translated(), self.engine.connect() as connection:
            result = await work(connection)
            await connection.commit()
            return result

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()
