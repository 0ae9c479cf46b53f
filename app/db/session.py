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
from app.db.connecting import create_engine
from app.errors import ConflictError, ServiceError, UnavailableError
from app.observability.metrics import IN_USE, WAITING
from app.observability.statements import Statements

T = TypeVar("T")

WORK_TIMEOUT = 1.8
"""Seconds that one read or transaction may take; a server that has frozen tells nothing of itself."""
FIND_TIMEOUT = 0.95
"""Seconds that finding may take, all statements of it together."""
FINDING = {
    # what is rare and what is not is found in different ways
    "plan_cache_mode": "force_custom_plan",
    # who searches shares the server with others
    "max_parallel_workers_per_gather": "0",
    "statement_timeout": "900ms",
}
"""What differs where lists are filtered, ordered or searched."""
ATTEMPTS = 3
"""How often a transaction is tried that collides with others."""
STALLED = 0.9
"""Seconds without any connection coming free, after which those who wait for one are told to come back (503).

Who waits this long and then for a connection in vain still hears within two seconds.
"""


def setting_locally(settings: Mapping[str, str]) -> Executable:
    """A statement that gives settings of the session other values until its transaction ends."""
    return select(*(func.set_config(name, value, literal_column("true")) for name, value in settings.items()))


_FINDING = setting_locally(FINDING)


_AWAY = ("08", "53", "57", "40003")
"""SQLSTATE classes: connection exception, insufficient resources, operator intervention (shutdown, cancel); and that it
is not known whether a statement was completed."""
_COLLISIONS = ("40001", "40P01")
"""SQLSTATEs: serialization failure, deadlock. The same transaction may succeed in a moment."""
_LOCK_TIMEOUT = "55P03"
_READ_ONLY = "25006"
"""SQLSTATE: read-only transaction. The server is a standby, until it is promoted or another is."""
_FOREIGN_KEY = ("23503", "23001")
"""SQLSTATEs: foreign key violation, restrict violation."""


class InTheWayError(UnavailableError):
    """Another transaction was in the way for too long."""


class CollisionError(InTheWayError):
    """Transactions were in each other's way, and this one was chosen to give way."""


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Raise the service's errors for the database's, where a client can do something about them."""
    try:
        yield
    except DBAPIError as error:
        sqlstate = getattr(error.orig, "sqlstate", None) or ""
        if sqlstate in _COLLISIONS:
            raise CollisionError from error
        if sqlstate == _LOCK_TIMEOUT:
            raise InTheWayError from error
        if error.connection_invalidated or sqlstate.startswith(_AWAY) or sqlstate == _READ_ONLY:
            raise UnavailableError from error
        if sqlstate in _FOREIGN_KEY:
            raise ConflictError(
                "A record that this one is linked to was deleted or linked at the same moment."
            ) from error
        raise


class _Line:
    """The line before the pool: first come, first served, for as long as it moves.

    The pool's own timeout would refuse the last of a burst that is served steadily. Here nobody is refused while
    connections come free, and everybody soon after they no longer do.
    """

    def __init__(self, places: int) -> None:
        self._free = asyncio.Semaphore(places)
        self._moved = 0.0

    @asynccontextmanager
    async def turn(self, joined: float | None = None) -> AsyncIterator[None]:
        """Wait for a place, and give it back; `joined` is when the request began to wait, by the event loop's clock.

        Raises:
            UnavailableError: the line stands still.
        """
        if self._free.locked():
            await self._wait(joined)
        else:
            await self._free.acquire()  # does not wait
        IN_USE.inc()
        try:
            yield
        finally:
            IN_USE.dec()
            self._free.release()

    def move(self) -> None:
        """Note that PostgreSQL answered who had a turn."""
        self._moved = asyncio.get_running_loop().time()

    async def _wait(self, joined: float | None) -> None:
        loop = asyncio.get_running_loop()
        joined = loop.time() if joined is None else joined
        place = asyncio.ensure_future(self._free.acquire())
        WAITING.inc()
        try:
            while not place.done() and (patience := max(joined, self._moved) + STALLED - loop.time()) > 0:
                await asyncio.wait({place}, timeout=patience)
        except asyncio.CancelledError:
            self._leave(place)
            raise
        finally:
            WAITING.dec()
        if not place.done():
            self._leave(place)
            raise UnavailableError

    def _leave(self, place: asyncio.Future[Any]) -> None:
        if not place.cancel() and not place.cancelled():
            self._free.release()  # it had just been given


async def _again(attempt: Callable[[], Awaitable[T]], attempts: int = ATTEMPTS) -> T:
    """Attempt something again where it collides with other transactions."""
    number = 1
    while True:
        try:
            return await attempt()
        except CollisionError:
            if number == attempts:
                raise
            # apart from whom it collided with
            await asyncio.sleep(random.uniform(0, 0.02) * 2**number)  # noqa: S311  # no secret
            number += 1


async def in_savepoint(connection: AsyncConnection, work: Callable[[], Awaitable[T]]) -> T:
    """Run a part of a long transaction: where it collides with others, that part alone is tried again."""

    async def attempt() -> T:
        async with translated(), connection.begin_nested():
            return await work()

    return await _again(attempt)


async def copy_in(
    connection: AsyncConnection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """COPY rows into a table, in the transaction of `connection`; past SQLAlchemy, which has no word for it."""
    driver: Any = (await connection.get_raw_connection()).driver_connection
    try:
        await driver.copy_records_to_table(table, records=rows, columns=columns)
    except asyncpg.PostgresError as error:
        if not (error.sqlstate or "").startswith(_AWAY):
            raise
        raise UnavailableError from error
    except (OSError, asyncpg.InterfaceError) as error:
        raise UnavailableError from error


Work = Callable[[AsyncConnection], Awaitable[T]]


class Transaction(Protocol):
    """Runs work in one transaction, as `Database.transaction` does."""

    async def __call__(self, work: Work[T], /) -> T: ...


class Database:
    """What routes and commands use of PostgreSQL.

    `read` for a single SELECT, `find` for several or for what may take long, `snapshot` for any number, `write` for a
    single statement that writes, `transaction` for everything else.

    An async context manager, which closes all connections at its end.
    """

    def __init__(self, url: str, *, pool_size: int, limited: bool = True, statements: Statements | None = None) -> None:
        """Connect to `url` when needed. Requests are `limited` in time; commands that take minutes are not.

        What it asks PostgreSQL is measured by `statements`, if given.
        """
        self.engine = create_engine(url, pool_size=pool_size, limited=limited)
        self._committing: Callable[[], AbstractContextManager[None]] = nullcontext
        if statements is not None:
            statements.watch(self.engine)
            self._committing = statements.committing
        self._timeout = WORK_TIMEOUT if limited else None
        self._line = _Line(pool_size)
        # what is cheap finds connections free, whatever one principal has under way
        self._searches = Bulkhead(max(1, pool_size // 2), max(1, pool_size // 4), WAITING)
        self._changes = Bulkhead(pool_size, max(1, pool_size * 3 // 4), WAITING)
        self._autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._snapshot = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for one SELECT. It is its own transaction, which saves the round trips of BEGIN and COMMIT."""
        async with self._connected(self._autocommit) as connection:
            yield connection

    @asynccontextmanager
    async def find(self, principal: str) -> AsyncIterator[AsyncConnection]:
        """A connection for several SELECTs that see one moment, each planned for its values, all within a second.

        Half of the pool is for these, and a quarter for those of one principal: others wait for their turn.

        Raises:
            TooManyRequestsError: the principal has too many under way.
        """
        joined = asyncio.get_running_loop().time()
        async with (
            self._searches.place(principal),
            self._connected(self._snapshot, FIND_TIMEOUT, joined) as connection,
        ):
            await connection.execute(_FINDING)
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """A connection for any number of SELECTs that see one moment, for commands that read long."""
        async with self._connected(self._snapshot) as connection:
            yield connection

    async def write(self, statement: Executable, parameters: Mapping[str, Any]) -> None:
        """Run one statement that is a transaction of its own: what it wrote is durable when this returns."""
        async with self._connected(self._autocommit) as connection:
            await connection.execute(statement, parameters)

    async def transaction(self, work: Callable[[AsyncConnection], Awaitable[T]], *, attempts: int = ATTEMPTS) -> T:
        """Run `work` in one transaction and commit it: all of it is stored, or, if anything raises, nothing.

        The result is to be answered only after this returns: what was answered is stored. Where the transaction
        collides with another, the whole of it is tried again: `work` may run up to `attempts` times.
        """

        async def attempt() -> T:
            async with self._connected(self.engine) as connection:
                result = await work(connection)
                with self._committing():
                    await connection.commit()
                return result

        return await _again(attempt, attempts)

    def transaction_of(self, principal: str) -> Transaction:
        """`transaction` on behalf of a principal, which has at most three quarters of the pool for these at once.

        Raises:
            TooManyRequestsError: its own transactions wait for each other for too long.
        """

        async def transaction(work: Work[T], /) -> T:
            async with self._changes.place(principal):
                return await self.transaction(work)

        return transaction

    @asynccontextmanager
    async def _connected(
        self, engine: AsyncEngine, most: float | None = None, joined: float | None = None
    ) -> AsyncIterator[AsyncConnection]:
        try:
            async with (
                self._line.turn(joined),
                asyncio.timeout(most or self._timeout),  # made here: it counts from when it is made, not entered
                translated(),
                engine.connect() as connection,
            ):
                yield connection
                self._line.move()
        except TimeoutError as error:
            raise UnavailableError from error
        except ServiceError as error:
            if not isinstance(error, UnavailableError):
                self._line.move()
            raise

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
