"""Access to PostgreSQL: the admission queue, the pool, and the one place where work is committed.

`AdmissionQueue` is an admission queue, which refuses requests only when nothing moves. SQLAlchemy's `pool_timeout`,
psycopg_pool's `max_waiting` and PgBouncer's `query_wait_timeout` lack this: they limit the wait or the length of the
queue, and so refuse the end of a burst that is served steadily. The class can go when the pool can do it.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any, Protocol, Self, TypeVar

import asyncpg
from sqlalchemy import Executable, func, literal_column, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db.bulkhead import Bulkhead
from app.db.engine import create_engine
from app.errors import ConflictError, ServiceError, UnavailableError
from app.observability.metrics import CONNECTIONS_IN_USE, REQUESTS_WAITING
from app.observability.statements import StatementInstrumentation

T = TypeVar("T")

TRANSACTION_TIMEOUT_SECONDS = 1.8
"""Maximum duration of one read or transaction, in seconds: a frozen server reports no error itself."""
SEARCH_TIMEOUT_SECONDS = 0.95
"""Maximum duration of a search, in seconds, for all of its statements together."""
SEARCH_SETTINGS = {
    # rare and frequent values need different plans
    "plan_cache_mode": "force_custom_plan",
    # searches share the server with other requests
    "max_parallel_workers_per_gather": "0",
    "statement_timeout": "900ms",
}
"""Settings that differ from those of the session when lists are filtered, sorted or searched."""
MAX_ATTEMPTS = 3
"""Maximum number of attempts at a transaction that conflicts with others."""
STALL_TIMEOUT_SECONDS = 0.9
"""Seconds without progress after which requests that wait for a connection are refused (503).

Short enough that even a request that waits this long, and then in vain for a connection, gets its response within two
seconds.
"""


def set_local(settings: Mapping[str, str]) -> Executable:
    """Return a statement that changes settings of the session until its transaction ends."""
    return select(*(func.set_config(name, value, literal_column("true")) for name, value in settings.items()))


_SET_SEARCH_SETTINGS = set_local(SEARCH_SETTINGS)


_UNAVAILABLE_CLASSES = ("08", "53", "57", "40003")
"""SQLSTATE classes: connection exception, insufficient resources, operator intervention (shutdown, cancel); and the
SQLSTATE for an unknown statement completion."""
_RETRYABLE_STATES = ("40001", "40P01")
"""SQLSTATEs: serialization failure, deadlock. The same transaction may succeed when it is retried."""
_LOCK_NOT_AVAILABLE = "55P03"
_READ_ONLY_TRANSACTION = "25006"
"""SQLSTATE: read-only transaction. The server is a standby until it, or another one, is promoted."""
_FOREIGN_KEY_STATES = ("23503", "23001")
"""SQLSTATEs: foreign key violation, restrict violation."""


class LockNotAvailableError(UnavailableError):
    """Another transaction held a lock for too long."""


class SerializationError(LockNotAvailableError):
    """Concurrent transactions conflicted, and PostgreSQL aborted this one."""


@asynccontextmanager
async def translate_errors() -> AsyncIterator[None]:
    """Raise the service's errors in place of the database's, if a client can do something about them.

    Raises:
        SerializationError: a serialization failure or a deadlock.
        LockNotAvailableError: a lock was not available in time.
        UnavailableError: the connection is lost, or the server is shutting down, out of resources or read-only.
        ConflictError: a foreign key is violated.
    """
    try:
        yield
    except DBAPIError as error:
        sqlstate = getattr(error.orig, "sqlstate", None) or ""
        if sqlstate in _RETRYABLE_STATES:
            raise SerializationError from error
        if sqlstate == _LOCK_NOT_AVAILABLE:
            raise LockNotAvailableError from error
        if (
            error.connection_invalidated
            or sqlstate.startswith(_UNAVAILABLE_CLASSES)
            or sqlstate == _READ_ONLY_TRANSACTION
        ):
            raise UnavailableError from error
        if sqlstate in _FOREIGN_KEY_STATES:
            raise ConflictError(
                "A record linked to this one was deleted or linked at the same time. Retry the request."
            ) from error
        raise


class AdmissionQueue:
    """The queue in front of the pool: first come, first served, for as long as it moves.

    The pool's own timeout would refuse the last requests of a burst that is served steadily. This queue refuses none
    while connections are released, and all that wait soon after this stops.
    """

    def __init__(self, max_concurrent: int) -> None:
        self._slots = asyncio.Semaphore(max_concurrent)
        self._last_progress = 0.0

    @asynccontextmanager
    async def slot(self, enqueued_at: float | None = None) -> AsyncIterator[None]:
        """Wait for a slot and hold it; `enqueued_at` is when the request began to wait, by the event loop's clock.

        Raises:
            UnavailableError: the queue has not moved for `STALL_TIMEOUT_SECONDS`.
        """
        if self._slots.locked():
            await self._wait_for_slot(enqueued_at)
        else:
            await self._slots.acquire()  # returns at once
        CONNECTIONS_IN_USE.inc()
        try:
            yield
        finally:
            CONNECTIONS_IN_USE.dec()
            self._slots.release()

    def note_progress(self) -> None:
        """Note that PostgreSQL has responded to a request that held a slot."""
        self._last_progress = asyncio.get_running_loop().time()

    async def _wait_for_slot(self, enqueued_at: float | None) -> None:
        loop = asyncio.get_running_loop()
        enqueued_at = loop.time() if enqueued_at is None else enqueued_at
        acquisition = asyncio.ensure_future(self._slots.acquire())
        REQUESTS_WAITING.inc()
        try:
            while (
                not acquisition.done()
                and (remaining := max(enqueued_at, self._last_progress) + STALL_TIMEOUT_SECONDS - loop.time()) > 0
            ):
                await asyncio.wait({acquisition}, timeout=remaining)
        except asyncio.CancelledError:
            self._withdraw(acquisition)
            raise
        finally:
            REQUESTS_WAITING.dec()
        if not acquisition.done():
            self._withdraw(acquisition)
            raise UnavailableError

    def _withdraw(self, acquisition: asyncio.Future[Any]) -> None:
        if not acquisition.cancel() and not acquisition.cancelled():
            self._slots.release()  # it was acquired just before


async def _retry_on_conflict(attempt: Callable[[], Awaitable[T]], max_attempts: int = MAX_ATTEMPTS) -> T:
    """Run `attempt` and return its result; retry it if it conflicts with other transactions."""
    attempt_number = 1
    while True:
        try:
            return await attempt()
        except SerializationError:
            if attempt_number == max_attempts:
                raise
            # at a different time than the transaction it conflicted with
            await asyncio.sleep(random.uniform(0, 0.02) * 2**attempt_number)  # noqa: S311  # not a secret
            attempt_number += 1


async def run_in_savepoint(connection: AsyncConnection, work: Callable[[], Awaitable[T]]) -> T:
    """Run a part of a long transaction and return its result. On a conflict with others, only this part is retried."""

    async def attempt() -> T:
        async with translate_errors(), connection.begin_nested():
            return await work()

    return await _retry_on_conflict(attempt)


async def copy_rows(
    connection: AsyncConnection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """COPY rows into a table, in the transaction of `connection`; SQLAlchemy has no API for it, so this bypasses it.

    Raises:
        UnavailableError: the connection is lost, or the server is shutting down or out of resources.
        asyncpg.PostgresError: the server rejects the rows.
    """
    driver: Any = (await connection.get_raw_connection()).driver_connection
    try:
        await driver.copy_records_to_table(table, records=rows, columns=columns)
    except asyncpg.PostgresError as error:
        if not (error.sqlstate or "").startswith(_UNAVAILABLE_CLASSES):
            raise
        raise UnavailableError from error
    except (OSError, asyncpg.InterfaceError) as error:
        raise UnavailableError from error


Work = Callable[[AsyncConnection], Awaitable[T]]


class TransactionRunner(Protocol):
    """A callable that runs work in one transaction and returns its result, as `Database.transaction` does."""

    async def __call__(self, work: Work[T], /) -> T: ...


class Database:
    """Access to PostgreSQL for routes and commands.

    `read` is for a single SELECT, `search_snapshot` for several or for those that may take long, `snapshot` for any
    number, `write` for a single statement that writes, and `transaction` for everything else.

    The database is an async context manager, which closes all connections on exit.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int,
        with_timeouts: bool = True,
        instrumentation: StatementInstrumentation | None = None,
    ) -> None:
        """Connect to `url` when a connection is needed, with a pool of up to `pool_size` connections.

        `with_timeouts` limits the duration of transactions: requests need it, commands that take minutes do without.
        `instrumentation`, if given, measures all statements.
        """
        self.engine = create_engine(url, pool_size=pool_size, with_timeouts=with_timeouts)
        self._measure_commit: Callable[[], AbstractContextManager[None]] = nullcontext
        if instrumentation is not None:
            instrumentation.instrument(self.engine)
            self._measure_commit = instrumentation.measure_commit
        self._timeout_seconds = TRANSACTION_TIMEOUT_SECONDS if with_timeouts else None
        self._admission_queue = AdmissionQueue(pool_size)
        # cheap requests find free connections, however much one principal has running
        self._search_bulkhead = Bulkhead(max(1, pool_size // 2), max(1, pool_size // 4), REQUESTS_WAITING)
        self._transaction_bulkhead = Bulkhead(pool_size, max(1, pool_size * 3 // 4), REQUESTS_WAITING)
        self._autocommit_engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._snapshot_engine = self.engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Provide a connection for one SELECT, its own transaction: this saves the round trips of BEGIN and COMMIT."""
        async with self._connect(self._autocommit_engine) as connection:
            yield connection

    @asynccontextmanager
    async def search_snapshot(self, principal: str) -> AsyncIterator[AsyncConnection]:
        """Provide a connection for several SELECTs on one snapshot, each planned for its values, all within a second.

        Half of the pool is available for these, and a quarter for those of one principal; further ones wait.

        Raises:
            TooManyRequestsError: the principal has too many running.
        """
        enqueued_at = asyncio.get_running_loop().time()
        async with (
            self._search_bulkhead.slot(principal),
            self._connect(self._snapshot_engine, SEARCH_TIMEOUT_SECONDS, enqueued_at) as connection,
        ):
            await connection.execute(_SET_SEARCH_SETTINGS)
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Provide a connection for any number of SELECTs on one snapshot, for commands that read for a long time."""
        async with self._connect(self._snapshot_engine) as connection:
            yield connection

    async def write(self, statement: Executable, parameters: Mapping[str, Any]) -> None:
        """Execute one statement as a transaction of its own; what it writes is durable when this returns."""
        async with self._connect(self._autocommit_engine) as connection:
            await connection.execute(statement, parameters)

    async def transaction(
        self, work: Callable[[AsyncConnection], Awaitable[T]], *, max_attempts: int = MAX_ATTEMPTS
    ) -> T:
        """Run `work` in one transaction, commit it and return its result; if anything raises, nothing is stored.

        The response must not be sent before this returns, so that what it confirms is stored. If the transaction
        conflicts with another, all of it is retried: `work` may run up to `max_attempts` times.
        """

        async def attempt() -> T:
            async with self._connect(self.engine) as connection:
                result = await work(connection)
                with self._measure_commit():
                    await connection.commit()
                return result

        return await _retry_on_conflict(attempt, max_attempts)

    def transaction_for(self, principal: str) -> TransactionRunner:
        """Return `transaction` on behalf of a principal, which gets at most three quarters of the pool for these.

        Raises:
            TooManyRequestsError: when called, if the principal's own transactions wait for each other for too long.
        """

        async def transaction(work: Work[T], /) -> T:
            async with self._transaction_bulkhead.slot(principal):
                return await self.transaction(work)

        return transaction

    @asynccontextmanager
    async def _connect(
        self, engine: AsyncEngine, timeout_seconds: float | None = None, enqueued_at: float | None = None
    ) -> AsyncIterator[AsyncConnection]:
        try:
            async with (
                self._admission_queue.slot(enqueued_at),
                # created here, after the wait for a slot: the time counts from its creation
                asyncio.timeout(timeout_seconds or self._timeout_seconds),
                translate_errors(),
                engine.connect() as connection,
            ):
                yield connection
                self._admission_queue.note_progress()
        except TimeoutError as error:
            raise UnavailableError from error
        except ServiceError as error:
            if not isinstance(error, UnavailableError):
                self._admission_queue.note_progress()
            raise

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
