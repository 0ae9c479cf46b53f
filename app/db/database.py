"""The connection to PostgreSQL: the pool, and the one place where work is committed."""

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
"""Seconds that one read or transaction may take; a server that has frozen tells nothing of itself."""
SEARCH_TIMEOUT_SECONDS = 0.95
"""Seconds that finding may take, all statements of it together."""
SEARCH_SETTINGS = {
    # what is rare and what is not is found in different ways
    "plan_cache_mode": "force_custom_plan",
    # who searches shares the server with others
    "max_parallel_workers_per_gather": "0",
    "statement_timeout": "900ms",
}
"""What differs where lists are filtered, ordered or searched."""
MAX_ATTEMPTS = 3
"""How often a transaction is tried that collides with others."""
STALL_TIMEOUT_SECONDS = 0.9
"""Seconds without any connection coming free, after which those who wait for one are told to come back (503).

Who waits this long and then for a connection in vain still hears within two seconds.
"""


def set_local(settings: Mapping[str, str]) -> Executable:
    """A statement that gives settings of the session other values until its transaction ends."""
    return select(*(func.set_config(name, value, literal_column("true")) for name, value in settings.items()))


_SET_SEARCH_SETTINGS = set_local(SEARCH_SETTINGS)


_UNAVAILABLE_CLASSES = ("08", "53", "57", "40003")
"""SQLSTATE classes: connection exception, insufficient resources, operator intervention (shutdown, cancel); and that it
is not known whether a statement was completed."""
_RETRYABLE_STATES = ("40001", "40P01")
"""SQLSTATEs: serialization failure, deadlock. The same transaction may succeed in a moment."""
_LOCK_NOT_AVAILABLE = "55P03"
_READ_ONLY_TRANSACTION = "25006"
"""SQLSTATE: read-only transaction. The server is a standby, until it is promoted or another is."""
_FOREIGN_KEY_STATES = ("23503", "23001")
"""SQLSTATEs: foreign key violation, restrict violation."""


class LockNotAvailableError(UnavailableError):
    """Another transaction was in the way for too long."""


class SerializationError(LockNotAvailableError):
    """Transactions were in each other's way, and this one was chosen to give way."""


@asynccontextmanager
async def translate_errors() -> AsyncIterator[None]:
    """Raise the service's errors for the database's, where a client can do something about them."""
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
                "A record that this one is linked to was deleted or linked at the same moment."
            ) from error
        raise


class AdmissionQueue:
    """The line before the pool: first come, first served, for as long as it moves.

    The pool's own timeout would refuse the last of a burst that is served steadily. Here nobody is refused while
    connections come free, and everybody soon after they no longer do.
    """

    def __init__(self, max_concurrent: int) -> None:
        self._slots = asyncio.Semaphore(max_concurrent)
        self._last_progress = 0.0

    @asynccontextmanager
    async def slot(self, enqueued_at: float | None = None) -> AsyncIterator[None]:
        """Wait for a place, and give it back; `joined` is when the request began to wait, by the event loop's clock.

        Raises:
            UnavailableError: the line stands still.
        """
        if self._slots.locked():
            await self._wait_for_slot(enqueued_at)
        else:
            await self._slots.acquire()  # does not wait
        CONNECTIONS_IN_USE.inc()
        try:
            yield
        finally:
            CONNECTIONS_IN_USE.dec()
            self._slots.release()

    def note_progress(self) -> None:
        """Note that PostgreSQL answered who had a turn."""
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
            self._slots.release()  # it had just been given


async def _retry_on_conflict(attempt: Callable[[], Awaitable[T]], max_attempts: int = MAX_ATTEMPTS) -> T:
    """Attempt something again where it collides with other transactions."""
    attempt_number = 1
    while True:
        try:
            return await attempt()
        except SerializationError:
            if attempt_number == max_attempts:
                raise
            # apart from whom it collided with
            await asyncio.sleep(random.uniform(0, 0.02) * 2**attempt_number)  # noqa: S311  # no secret
            attempt_number += 1


async def run_in_savepoint(connection: AsyncConnection, work: Callable[[], Awaitable[T]]) -> T:
    """Run a part of a long transaction: where it collides with others, that part alone is tried again."""

    async def attempt() -> T:
        async with translate_errors(), connection.begin_nested():
            return await work()

    return await _retry_on_conflict(attempt)


async def copy_rows(
    connection: AsyncConnection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """COPY rows into a table, in the transaction of `connection`; past SQLAlchemy, which has no word for it."""
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
    """Runs work in one transaction, as `Database.transaction` does."""

    async def __call__(self, work: Work[T], /) -> T: ...


class Database:
    """What routes and commands use of PostgreSQL.

    `read` for a single SELECT, `find` for several or for what may take long, `snapshot` for any number, `write` for a
    single statement that writes, `transaction` for everything else.

    An async context manager, which closes all connections at its end.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int,
        with_timeouts: bool = True,
        instrumentation: StatementInstrumentation | None = None,
    ) -> None:
        """Connect to `url` when needed. Requests are `limited` in time; commands that take minutes are not.

        What it asks PostgreSQL is measured by `statements`, if given.
        """
        self.engine = create_engine(url, pool_size=pool_size, with_timeouts=with_timeouts)
        self._measure_commit: Callable[[], AbstractContextManager[None]] = nullcontext
        if instrumentation is not None:
            instrumentation.instrument(self.engine)
            self._measure_commit = instrumentation.measure_commit
        self._timeout_seconds = TRANSACTION_TIMEOUT_SECONDS if with_timeouts else None
        self._admission_queue = AdmissionQueue(pool_size)
        # what is cheap finds connections free, whatever one principal has under way
        self._search_bulkhead = Bulkhead(max(1, pool_size // 2), max(1, pool_size // 4), REQUESTS_WAITING)
        self._transaction_bulkhead = Bulkhead(pool_size, max(1, pool_size * 3 // 4), REQUESTS_WAITING)
        self._autocommit_engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._snapshot_engine = self.engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for one SELECT. It is its own transaction, which saves the round trips of BEGIN and COMMIT."""
        async with self._connect(self._autocommit_engine) as connection:
            yield connection

    @asynccontextmanager
    async def search_snapshot(self, principal: str) -> AsyncIterator[AsyncConnection]:
        """A connection for several SELECTs that see one moment, each planned for its values, all within a second.

        Half of the pool is for these, and a quarter for those of one principal: others wait for their turn.

        Raises:
            TooManyRequestsError: the principal has too many under way.
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
        """A connection for any number of SELECTs that see one moment, for commands that read long."""
        async with self._connect(self._snapshot_engine) as connection:
            yield connection

    async def write(self, statement: Executable, parameters: Mapping[str, Any]) -> None:
        """Run one statement that is a transaction of its own: what it wrote is durable when this returns."""
        async with self._connect(self._autocommit_engine) as connection:
            await connection.execute(statement, parameters)

    async def transaction(
        self, work: Callable[[AsyncConnection], Awaitable[T]], *, max_attempts: int = MAX_ATTEMPTS
    ) -> T:
        """Run `work` in one transaction and commit it: all of it is stored, or, if anything raises, nothing.

        The result is to be answered only after this returns: what was answered is stored. Where the transaction
        collides with another, the whole of it is tried again: `work` may run up to `attempts` times.
        """

        async def attempt() -> T:
            async with self._connect(self.engine) as connection:
                result = await work(connection)
                with self._measure_commit():
                    await connection.commit()
                return result

        return await _retry_on_conflict(attempt, max_attempts)

    def transaction_for(self, principal: str) -> TransactionRunner:
        """`transaction` on behalf of a principal, which has at most three quarters of the pool for these at once.

        Raises:
            TooManyRequestsError: its own transactions wait for each other for too long.
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
                asyncio.timeout(
                    timeout_seconds or self._timeout_seconds
                ),  # made here: it counts from when it is made, not entered
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
