"""Access to PostgreSQL: the admission queue, the connection pool, and the only code that commits transactions.

`AdmissionQueue` refuses waiting requests only when none of the running requests makes progress. SQLAlchemy's
`pool_timeout`, psycopg_pool's `max_waiting` and PgBouncer's `query_wait_timeout` cannot do this. They limit the waiting
time or the length of the queue, so they refuse the last requests of a burst even if the burst is served steadily.
`AdmissionQueue` can be removed when the pool has such a queue.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlalchemy import Executable, func, literal_column, select, text

from app.admission.bulkhead import Bulkhead
from app.admission.worker_slots import WorkerSlots
from app.db.connection import Connection, Result
from app.db.errors import OutOfTimeError, SerializationError, translate, translate_errors
from app.db.pool import ConnectionPool
from app.errors import ServiceError, UnavailableError
from app.observability.metrics import CONNECTIONS_IN_USE, REQUESTS_WAITING

if TYPE_CHECKING:  # commands do without it, and without OpenTelemetry
    from app.observability.statements import StatementInstrumentation

T = TypeVar("T")

TRANSACTION_TIMEOUT_SECONDS = 1.8
"""Maximum duration of one read or transaction, in seconds. The service measures it itself, because a frozen database
server reports no error."""
MIN_TRANSACTION_TIMEOUT_SECONDS = 0.1
"""Duration, in seconds, that a transaction may always have, however long its request has waited before."""
SEARCH_TIMEOUT_SECONDS = 0.95
"""Maximum total duration of all statements of one search, in seconds. The time between them does not count."""
SEARCH_SETTINGS = {
    # rare and frequent values need different plans
    "plan_cache_mode": "force_custom_plan",
    # one search must not occupy several CPUs, because other requests need the server, too
    "max_parallel_workers_per_gather": "0",
    "statement_timeout": "900ms",
}
"""Settings for transactions that filter, sort or search a list. They override the settings of the session."""
PLAN_FOR_VALUES = f"SET LOCAL plan_cache_mode = '{SEARCH_SETTINGS['plan_cache_mode']}'"
"""SQL after which the statements of a `search_snapshot` are planned each time, as at its beginning."""
PLAN_ONCE = "SET LOCAL plan_cache_mode TO DEFAULT"
"""SQL after which the statements of a `search_snapshot` are planned once, as outside of it: planning them takes longer
than executing them, and rare and frequent values need the same plan."""
MAX_ATTEMPTS = 3
"""Maximum number of times that a transaction is attempted if it conflicts with other transactions."""
STALL_TIMEOUT_SECONDS = 0.9
"""Seconds without progress after which requests that wait for a connection are refused (503).

A request that waits this long, and then tries in vain to connect to PostgreSQL, must still get its response within two
seconds.
"""


def set_local(settings: Mapping[str, str]) -> Executable:
    """Return a statement that sets session settings (values by name) until the current transaction ends."""
    return select(*(func.set_config(name, value, literal_column("true")) for name, value in settings.items()))


PROPAGATE_SETTINGS = text("SET LOCAL citus.propagate_set_commands = 'local'")
"""Statement after which `SET LOCAL` also applies to the transaction's sessions with the workers of Citus.

Without Citus, the setting has no meaning. `set_config`, and so `set_local`, never reaches a worker.
"""
_SNAPSHOT = "ISOLATION LEVEL REPEATABLE READ READ ONLY"
_EXPORT_SNAPSHOT = select(func.pg_export_snapshot())
_SET_SEARCH_SETTINGS = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in SEARCH_SETTINGS.items())
SHORT_LOCK_TIMEOUT = "100ms"
SET_SHORT_LOCK_TIMEOUT = set_local({"lock_timeout": SHORT_LOCK_TIMEOUT})
"""Statement for work that must not wait long for a lock, because requests queue behind it, and that can be repeated."""


class AdmissionQueue:
    """A first-come, first-served queue of requests that need a connection from the pool.

    The pool's own timeout would refuse the last requests of a burst even if the burst is served steadily. This queue
    refuses no request while PostgreSQL responds to others. When PostgreSQL stops responding, the queue soon refuses all
    waiting requests.
    """

    def __init__(self, max_concurrent: int) -> None:
        self._slots = asyncio.Semaphore(max_concurrent)
        self._last_progress = 0.0

    async def acquire(self, enqueued_at: float | None = None) -> None:
        """Wait for a slot, which the caller has to `release`.

        `enqueued_at` is the time at which the request began to wait, by the event loop's clock. The default is the
        current time.

        Raises:
            UnavailableError: PostgreSQL has responded to no request for `STALL_TIMEOUT_SECONDS`.
        """
        if self._slots.locked():
            await self._wait_for_slot(enqueued_at)
        else:
            await self._slots.acquire()  # returns immediately
        CONNECTIONS_IN_USE.inc()

    def release(self) -> None:
        """Release a slot."""
        CONNECTIONS_IN_USE.dec()
        self._slots.release()

    def note_progress(self) -> None:
        """Record that PostgreSQL has responded to a request, so that the waiting requests may wait longer."""
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
            self._slots.release()  # the slot was acquired just before


async def _retry_on_conflict(attempt: Callable[[], Awaitable[T]], max_attempts: int = MAX_ATTEMPTS) -> T:
    """Call `attempt`, which runs a transaction or a savepoint, and return its result.

    If that transaction or savepoint conflicts with other transactions, call `attempt` again, up to `max_attempts` times
    in total.
    """
    attempt_number = 1
    while True:
        try:
            return await attempt()
        except SerializationError:
            if attempt_number == max_attempts:
                raise
            # the delay is random, so that the transactions that conflicted are not retried at the same time
            await asyncio.sleep(random.uniform(0, 0.02) * 2**attempt_number)  # noqa: S311  # not a secret
            attempt_number += 1


async def run_in_savepoint(connection: Connection, work: Callable[[], Awaitable[T]]) -> T:
    """Run `work`, one part of a long transaction, in a savepoint and return its result.

    If the work conflicts with other transactions, only this part is retried and not the whole transaction.
    """

    async def attempt() -> T:
        async with translate_errors(), connection.savepoint():
            return await work()

    return await _retry_on_conflict(attempt)


Work = Callable[[Connection], Awaitable[T]]


class Database:
    """Access to PostgreSQL for routes and commands.

    Use `read` for a single SELECT. For several SELECTs, or for a slow one, use `search_snapshot` in a request and
    `snapshot` in a command. Use `write` for a single statement that writes, and `transaction` for everything else.

    This class is an async context manager, which closes all connections on exit.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int,
        with_timeouts: bool = True,
        instrumentation: "StatementInstrumentation | None" = None,
        slots_path: Path | None = None,
    ) -> None:
        """Create a pool of up to `pool_size` connections to `url`. A connection is opened when it is first needed.

        `with_timeouts` limits the duration of transactions. Requests need this limit; commands that take minutes turn
        it off. `instrumentation`, if given, measures all statements. `slots_path` is the file of `WorkerSlots`, if the
        service has several workers.
        """
        self._pool = ConnectionPool(url, with_timeouts=with_timeouts)
        self._instrumentation = instrumentation
        self._timeout_seconds = TRANSACTION_TIMEOUT_SECONDS if with_timeouts else None
        self._admission_queue = AdmissionQueue(pool_size)
        # these limits leave connections free for cheap requests, however much expensive work one principal has
        max_searches = max(1, pool_size // 4)
        self._search_bulkhead = Bulkhead(max(1, pool_size // 2), max_searches, REQUESTS_WAITING)
        self._text_search_slots = WorkerSlots(slots_path, max_searches)
        self._transaction_bulkhead = Bulkhead(pool_size, max(1, pool_size * 3 // 4), REQUESTS_WAITING)

    def note_activity(self, principal: str) -> None:
        """Note that a principal has sent a request, so that the searches of others leave processors to it."""
        self._text_search_slots.note_activity(principal)

    def read(self) -> AbstractAsyncContextManager[Connection]:
        """Provide a connection for one SELECT.

        The SELECT is a transaction of its own, which saves the round trips of BEGIN and COMMIT.
        """
        return self._connect()

    @asynccontextmanager
    async def search_snapshot(self, principal: str, *, has_text: bool = False) -> AsyncIterator[Connection]:
        """Provide a connection for several SELECTs on one snapshot, on behalf of a principal.

        PostgreSQL plans each SELECT for its parameter values. All SELECTs together may take up to
        `SEARCH_TIMEOUT_SECONDS`. At most half of the pool is used for such connections, and at most a quarter for
        those of one principal. If `has_text`, the SELECTs search for a text, and while other principals are active, the
        limit for one principal is for all workers together. A call that would exceed these limits waits.

        Raises:
            TooManyRequestsError: the principal's own searches occupied its share of the pool for too long.
            UnavailableError: the database is unavailable or too busy.
        """
        enqueued_at = asyncio.get_running_loop().time()
        async with (
            self._search_bulkhead.slot(principal),
            self._text_search_slots.slot(principal) if has_text else nullcontext(),
            self._connect(None, enqueued_at, SEARCH_TIMEOUT_SECONDS) as connection,
        ):
            await connection.begin(f"{_SNAPSHOT}; {_SET_SEARCH_SETTINGS}")
            yield connection

    @asynccontextmanager
    async def snapshots(self, count: int) -> AsyncIterator[Sequence[Connection]]:
        """Provide `count` connections that read the same snapshot, for SELECTs that run concurrently.

        Commands use them to read for a long time.
        """
        async with AsyncExitStack() as stack:
            first, *others = [await stack.enter_async_context(self._connect()) for _ in range(count)]
            await first.begin(_SNAPSHOT)
            snapshot_id = (await first.execute(_EXPORT_SNAPSHOT)).scalar_one()
            for other in others:
                await other.begin(f"{_SNAPSHOT}; SET TRANSACTION SNAPSHOT '{snapshot_id}'")
            yield [first, *others]

    async def write(self, statement: Executable, parameters: Mapping[str, Any]) -> Result:
        """Execute one statement in a transaction of its own. Its changes are durable when this method returns."""
        async with self._connect() as connection:
            return await connection.execute(statement, parameters)

    async def transaction(
        self,
        work: Work[T],
        *,
        max_attempts: int = MAX_ATTEMPTS,
        spent_seconds: float = 0.0,
        timeout_seconds: float | None = None,
    ) -> T:
        """Run `work` in one transaction, commit it and return the result of `work`. On any error, nothing is stored.

        The caller must not send its response before this method returns, so that the response confirms only stored
        changes. If the transaction conflicts with another, the whole transaction is retried. `work` may thus run up to
        `max_attempts` times. `spent_seconds` is the time that the request has already spent in the database; an attempt
        may take that much less. `timeout_seconds` limits an attempt that may take longer than usual.
        """
        limit_seconds = timeout_seconds or self._timeout_seconds
        if limit_seconds is not None:
            limit_seconds = max(limit_seconds - spent_seconds, MIN_TRANSACTION_TIMEOUT_SECONDS)

        async def attempt() -> T:
            async with self._connect(limit_seconds) as connection:
                await connection.begin()
                result = await work(connection)
                await connection.commit()
                return result

        return await _retry_on_conflict(attempt, max_attempts)

    async def transaction_for(
        self, principal: str, work: Work[T], *, spent_seconds: float = 0.0, timeout_seconds: float | None = None
    ) -> T:
        """Run `work` like `transaction`, on behalf of a principal.

        The transactions of one principal use at most three quarters of the pool. The time that this call waits for its
        share counts as spent.

        Raises:
            TooManyRequestsError: the principal's own transactions occupied this share of the pool for too long.
        """
        began = time.monotonic()
        async with self._transaction_bulkhead.slot(principal):
            return await self.transaction(
                work, spent_seconds=spent_seconds + time.monotonic() - began, timeout_seconds=timeout_seconds
            )

    @asynccontextmanager
    async def _connect(
        self,
        timeout_seconds: float | None = None,
        enqueued_at: float | None = None,
        statements_timeout_seconds: float | None = None,
    ) -> AsyncIterator[Connection]:
        """Provide a connection from the pool. A transaction that is still open at the end is rolled back.

        This is one context manager, because four nested ones take a twentieth of the CPU time of reading a record.
        """
        await self._admission_queue.acquire(enqueued_at)
        try:
            # the timeout starts here, so that it does not include the wait for a slot
            async with asyncio.timeout(timeout_seconds or self._timeout_seconds):
                driver = await self._pool.acquire()
                connection = Connection(driver, self._instrumentation, statements_timeout_seconds)
                is_reusable = False  # not if this is cancelled, perhaps in the middle of a statement
                try:
                    try:
                        yield connection
                    except Exception:
                        await connection.rollback()
                        is_reusable = True
                        raise
                    await connection.rollback()
                    is_reusable = True
                finally:
                    (self._pool.release if is_reusable else self._pool.discard)(driver)
            self._admission_queue.note_progress()
        except Exception as error:
            translated = OutOfTimeError() if isinstance(error, TimeoutError) else translate(error)
            if isinstance(translated, ServiceError) and not isinstance(translated, UnavailableError):
                self._admission_queue.note_progress()
            if translated is error:
                raise
            raise translated from error
        finally:
            self._admission_queue.release()

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
