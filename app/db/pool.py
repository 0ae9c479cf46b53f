"""Connections to PostgreSQL, either direct or through a pooler such as PgBouncer in transaction mode.

A pooler runs each transaction in any free session, so the service must not keep state in a session. A direct connection
sets its timeouts and planner settings itself. Through a pooler, a session has the settings of its role instead.
`patients-api migrate --serving-role` adds these settings to the role. Through a pooler, prepared statements have names
only if the pooler keeps track of them.
"""

import asyncio
from contextlib import suppress
from uuid import uuid4

import asyncpg
from pydantic_core import from_json
from sqlalchemy import text

from app.connection_errors import CONNECTION_ERRORS, ConnectionFailedError, check_server
from app.db.connection import Connection
from app.errors import UnavailableError

CONNECT_TIMEOUT_SECONDS = 1.0
"""Maximum number of seconds that it may take to open a connection for a request."""
COMMAND_CONNECT_TIMEOUT_SECONDS = 5.0
"""The same for a command, which may take longer than a request: on a very busy machine, a connection does."""
CLOSE_TIMEOUT_SECONDS = 0.2
"""Maximum number of seconds to wait until the server has cancelled a request's statement and closed the connection."""
COMMAND_CLOSE_TIMEOUT_SECONDS = 5.0
"""The same for a statement of a command, such as building an index, which notices the cancellation later."""
TIMEZONE_SETTING = {"timezone": "UTC"}
"""Setting of the time zone in all sessions, so that a day begins at the same time on all servers and replicas."""
PLANNER_SETTINGS = {
    # the planner overestimates the cost of a page, so it would compile queries that take longer to compile than to run
    "jit": "off",
    # this suits SSDs; with 4, the default for rotating disks, each batch of a whole list would read all patients' links
    "random_page_cost": "1.1",
    # statements are planned once, with one plan for all values, because planning a page takes longer than reading it
    "plan_cache_mode": "force_generic_plan",
}
"""Session settings of PostgreSQL's query planner."""
TIMEOUT_SETTINGS = {
    # no request holds a lock for longer than this, so a longer wait is due to a transaction outside of requests
    "lock_timeout": "1500",
    # PostgreSQL enforces these limits even if this process is frozen
    "statement_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
}
"""Time limits, in milliseconds, that PostgreSQL enforces on the sessions of requests."""
CITUS_SETTINGS = {
    # Citus has no generic plans of statements with parameters for distributed tables, and refuses to make one
    "plan_cache_mode": "auto",
}
"""Settings that replace those above if the server has Citus."""
PREPARED_STATEMENTS_PER_CONNECTION = 100
"""Maximum number of prepared statements that a connection keeps. The least recently used ones are closed."""

SESSION_SETTINGS = {**TIMEZONE_SETTING, **PLANNER_SETTINGS, **TIMEOUT_SETTINGS}
"""All session settings that serving requests needs."""

_POOLER_SAFE_SETTINGS = {"application_name": "patients-api", **TIMEZONE_SETTING}
"""Startup parameters that work through PgBouncer, which restores them in each session that it assigns to a client."""
_POOLER_PROBE = {"patients.straight": "yes"}
"""Startup parameter that reveals a pooler. It has no meaning to PostgreSQL, but a pooler rejects it, because no pooler
is configured to ignore it."""
_UNSUPPORTED_PARAMETER_MESSAGE = "unsupported startup parameter"
"""Part of PgBouncer's error message for a startup parameter that it neither supports nor is configured to ignore."""
_POOLER_UNSUPPORTED_MESSAGE = (
    "DATABASE_URL points to a connection pooler, through which only `patients-api serve` works: "
    "give this command the URL of PostgreSQL itself."
)
HAS_CITUS = "current_setting('citus.version', true) IS NOT NULL"
"""SQL condition that the server has loaded the library of Citus, which has this setting."""
_SELECT_HAS_CITUS = f"SELECT {HAS_CITUS}"
_SELECT_IS_PREPARED = "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name = $1)"


class DriverConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no type information
    """The class of the driver's connections, by which tests record statements."""


class _Connector:
    """Opens connections, directly or through a pooler.

    It detects a pooler by sending `_POOLER_PROBE`, and asks the first direct connection whether the server has Citus.
    """

    def __init__(self, url: str, *, with_timeouts: bool) -> None:
        self._url = url
        self._with_timeouts = with_timeouts
        self._timeout_seconds = CONNECT_TIMEOUT_SECONDS if with_timeouts else COMMAND_CONNECT_TIMEOUT_SECONDS
        self._settings = {
            **_POOLER_SAFE_SETTINGS,
            **PLANNER_SETTINGS,
            **(TIMEOUT_SETTINGS if with_timeouts else dict.fromkeys(TIMEOUT_SETTINGS, "0")),
            **_POOLER_PROBE,
        }
        self._is_pooled = False
        self._has_citus: bool | None = None
        self._pooler_keeps_statements: bool | None = None

    async def connect(self) -> asyncpg.Connection:
        """Open a connection.

        Raises:
            ConnectionFailedError: PostgreSQL cannot be reached, or its version or the encoding is unsuitable.
            UnavailableError: the URL points to a pooler, and this connector was created without timeouts. Sessions
                behind a pooler always have the timeouts of their role, and the connector cannot turn these off.
        """
        try:
            if not self._is_pooled:
                try:
                    return await self._open_direct()
                except asyncpg.ProtocolViolationError as error:
                    if _UNSUPPORTED_PARAMETER_MESSAGE not in str(error):
                        raise
                self._is_pooled = True
            if not self._with_timeouts:
                raise UnavailableError(_POOLER_UNSUPPORTED_MESSAGE)
            return await self._open_pooled()
        except CONNECTION_ERRORS as error:
            raise ConnectionFailedError(self._url, error) from error

    async def _open_direct(self) -> asyncpg.Connection:
        connection = await self._open(self._settings)
        if self._has_citus is None:
            try:
                self._has_citus = await connection.fetchval(_SELECT_HAS_CITUS)
                if self._has_citus:
                    self._settings.update(CITUS_SETTINGS)
                    await connection.execute(
                        "; ".join(f"SET {key} = '{value}'" for key, value in CITUS_SETTINGS.items())
                    )
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def _open_pooled(self) -> asyncpg.Connection:
        if self._pooler_keeps_statements is None:
            connection = await self._open(_POOLER_SAFE_SETTINGS, statement_cache_size=0)
            try:
                self._pooler_keeps_statements = await _pooler_keeps_statements(connection)
            finally:
                connection.terminate()
        if self._pooler_keeps_statements:
            return await self._open(_POOLER_SAFE_SETTINGS)
        # statements have no names and are prepared again each time
        return await self._open(_POOLER_SAFE_SETTINGS, statement_cache_size=0)

    async def _open(
        self, settings: dict[str, str], statement_cache_size: int = PREPARED_STATEMENTS_PER_CONNECTION
    ) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            self._url,
            timeout=self._timeout_seconds,
            server_settings=settings,
            connection_class=DriverConnection,
            statement_cache_size=statement_cache_size,
            max_cached_statement_lifetime=0,  # forever
            max_cacheable_statement_size=0,  # any size
        )
        try:
            check_server(connection)
            for name in ("json", "jsonb"):
                await connection.set_type_codec(
                    name, encoder=str, decoder=from_json, schema="pg_catalog", format="text"
                )
        except BaseException:
            connection.terminate()
            raise
        return connection


async def _pooler_keeps_statements(connection: asyncpg.Connection) -> bool:
    """Return whether a pooler keeps track of prepared statements.

    A pooler that does so gives the statements other names in PostgreSQL. PgBouncer 1.21 and newer does so unless
    `max_prepared_statements` is 0.
    """
    name = f"patients_{uuid4().hex}"
    async with connection.transaction():
        is_prepared = await (await connection.prepare(_SELECT_IS_PREPARED, name=name)).fetchval(name)
        if is_prepared:
            await connection.execute(f"DEALLOCATE {name}")
    return not is_prepared


class ConnectionPool:
    """Keeps connections to PostgreSQL open between requests. `AdmissionQueue` limits how many are in use.

    asyncpg's own pool has a queue and a limit too, and resets the session with another round trip at each release.
    """

    def __init__(self, url: str, *, with_timeouts: bool) -> None:
        """Prepare to open connections to `url`, which asyncpg parses, so libpq's options, sockets and hosts work.

        With `with_timeouts`, sessions have the `TIMEOUT_SETTINGS`. Without it, they have no timeouts, and `url` must
        point directly to PostgreSQL, not to a pooler.
        """
        self._connector = _Connector(url, with_timeouts=with_timeouts)
        self._close_timeout_seconds = CLOSE_TIMEOUT_SECONDS if with_timeouts else COMMAND_CLOSE_TIMEOUT_SECONDS
        self._idle: list[asyncpg.Connection] = []
        self._closing: set[asyncio.Task[None]] = set()

    async def acquire(self) -> asyncpg.Connection:
        """Return the idle connection that was used last, or open one.

        Raises:
            ConnectionFailedError: PostgreSQL cannot be reached, or its version or the encoding is unsuitable.
        """
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self._connector.connect()

    def release(self, connection: asyncpg.Connection) -> None:
        """Keep a connection, which is not in a transaction, for later requests.

        If it is lost, the idle connections are closed as well, because they probably are lost, too.
        """
        if connection.is_closed():
            self._discard_idle()
        else:
            self._idle.append(connection)

    def discard(self, connection: asyncpg.Connection) -> None:
        """Close a connection in the background. PostgreSQL cancels the statement that it executes."""
        task = asyncio.create_task(_close(connection, self._close_timeout_seconds))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all connections that are idle or being closed."""
        self._discard_idle()
        await asyncio.gather(*self._closing)

    def _discard_idle(self) -> None:
        while self._idle:
            self.discard(self._idle.pop())


async def open_connection(url: str) -> asyncpg.Connection:
    """Open a connection without timeouts.

    Raises:
        ConnectionFailedError, UnavailableError: see `_Connector.connect`.
    """
    return await _Connector(url, with_timeouts=False).connect()


async def _close(connection: asyncpg.Connection, timeout_seconds: float) -> None:
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # otherwise it is lost anyway
        await connection.close(timeout=timeout_seconds)


_SELECT_SETTINGS = text("SELECT name, setting::bigint FROM pg_settings WHERE name = ANY(:names)")


async def missing_timeouts(connection: Connection) -> list[str]:
    """Return the names of the timeouts in `TIMEOUT_SETTINGS` that are off or too long in the session of `connection`.

    Through a pooler, the timeouts of a session are those of its role.
    """
    settings = await connection.execute(_SELECT_SETTINGS, {"names": list(TIMEOUT_SETTINGS)})
    return [name for name, milliseconds in settings if not 0 < milliseconds <= int(TIMEOUT_SETTINGS[name])]
