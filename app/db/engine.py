"""Connections to PostgreSQL, either direct or through a pooler such as PgBouncer in transaction mode.

A pooler runs each transaction in any free session, so the service must not keep state in a session. A direct connection
sets its timeouts and planner settings itself. Through a pooler, a session has the settings of its role instead.
`patients-api migrate --serving-role` adds these settings to the role. Through a pooler, prepared statements have names
only if the pooler keeps track of them.
"""

from itertools import count
from typing import Any
from uuid import uuid4

import asyncpg
from pydantic_core import to_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_

from app.connection_errors import CONNECTION_ERRORS, ConnectionFailedError, UnsuitableServerError, check_server
from app.errors import UnavailableError

CONNECT_TIMEOUT_SECONDS = 1.0
"""Maximum number of seconds that it may take to open a connection."""
CLOSE_TIMEOUT_SECONDS = 0.2
"""Maximum number of seconds to wait until the server acknowledges that a connection is closed."""
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
COMPILED_CACHE_SIZE = 200
"""Maximum number of compiled statements in the cache of an engine.

Each of them takes a quarter of a megabyte, and combinations of filters and searches need many different statements.
"""

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
_SELECT_IS_PREPARED = "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name = $1)"


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no type information
    """An asyncpg connection that can be closed quickly, even if the server does not respond."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109  # asyncpg's own parameter
        await super().close(timeout=min(timeout or CLOSE_TIMEOUT_SECONDS, CLOSE_TIMEOUT_SECONDS))


class _Connector:
    """Opens connections, directly or through a pooler. It detects a pooler by sending `_POOLER_PROBE`."""

    def __init__(self, url: str, *, with_timeouts: bool) -> None:
        self._url = url
        self._with_timeouts = with_timeouts
        self._settings = {
            **_POOLER_SAFE_SETTINGS,
            **PLANNER_SETTINGS,
            **(TIMEOUT_SETTINGS if with_timeouts else dict.fromkeys(TIMEOUT_SETTINGS, "0")),
            **_POOLER_PROBE,
        }
        self._is_pooled = False
        self._pooler_keeps_statements: bool | None = None
        self._statement_numbers = count()

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
                    return await self._open(self._settings)
                except asyncpg.ProtocolViolationError as error:
                    if _UNSUPPORTED_PARAMETER_MESSAGE not in str(error):
                        raise
                self._is_pooled = True
            if not self._with_timeouts:
                raise UnavailableError(_POOLER_UNSUPPORTED_MESSAGE)
            return await self._open_pooled()
        except CONNECTION_ERRORS as error:
            raise ConnectionFailedError(self._url, error) from error

    async def _open_pooled(self) -> asyncpg.Connection:
        connection = await self._open(_POOLER_SAFE_SETTINGS, statement_cache_size=0)
        if self._pooler_keeps_statements is None:
            try:
                self._pooler_keeps_statements = await _pooler_keeps_statements(connection)
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def _open(self, settings: dict[str, str], **options: Any) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT_SECONDS,
            server_settings=settings,
            connection_class=_Connection,
            **options,
        )
        try:
            check_server(connection)
        except UnsuitableServerError:
            connection.terminate()
            raise
        return connection

    def prepared_statement_options(self) -> dict[str, Any]:
        """Return options for SQLAlchemy's asyncpg driver that determine how it prepares statements.

        The options depend on whether there is a pooler, and on whether the pooler keeps track of prepared statements.
        """
        if not self._is_pooled:
            return {}
        if not self._pooler_keeps_statements:
            return {"prepared_statement_cache_size": 0}  # statements have no names and are prepared again each time
        return {"prepared_statement_name_func": lambda: f"patients_{next(self._statement_numbers)}"}


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


def create_engine(url: str, *, pool_size: int, with_timeouts: bool = False) -> AsyncEngine:
    """Return an engine that uses asyncpg.

    asyncpg parses `url`, so that libpq's `sslmode`, sockets and several hosts work. With `with_timeouts`, sessions have
    the `TIMEOUT_SETTINGS`. Without it, they have no timeouts, and `url` must point directly to PostgreSQL, not to a
    pooler. Error messages do not contain statement parameters, because these are patient data.
    """
    connector = _Connector(url, with_timeouts=with_timeouts)

    def connect() -> Any:
        connection = await_(connector.connect())

        async def return_connection() -> asyncpg.Connection:
            return connection

        dbapi: Any = engine.dialect.dbapi
        return dbapi.connect(async_creator_fn=return_connection, **connector.prepared_statement_options())

    engine = create_async_engine(
        "postgresql+asyncpg://",
        creator=connect,
        pool_size=pool_size,
        max_overflow=0,
        hide_parameters=True,
        json_serializer=_serialize_json,
        query_cache_size=COMPILED_CACHE_SIZE,
    )
    return engine


def _serialize_json(value: Any) -> str:
    return to_json(value).decode()  # `to_json` supports dates and decimals, and is fast


_SELECT_SETTINGS = text("SELECT name, setting::bigint FROM pg_settings WHERE name = ANY(:names)")


async def missing_timeouts(connection: AsyncConnection) -> list[str]:
    """Return the names of the timeouts in `TIMEOUT_SETTINGS` that are off or too long in the session of `connection`.

    Through a pooler, the timeouts of a session are those of its role.
    """
    settings = await connection.execute(_SELECT_SETTINGS, {"names": list(TIMEOUT_SETTINGS)})
    return [name for name, milliseconds in settings if not 0 < milliseconds <= int(TIMEOUT_SETTINGS[name])]
