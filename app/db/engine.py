"""Connections to PostgreSQL: direct ones, and those through a pooler such as PgBouncer in transaction mode.

A pooler gives each transaction any session that is free, so nothing may be left in a session for later. The timeouts
and planner settings that a direct connection sets itself are then those of the role, which gets them from
`patients-api migrate --serving-role`; and prepared statements have names only if the pooler keeps track of them.
"""

from itertools import count
from typing import Any
from uuid import uuid4

import asyncpg
from pydantic_core import to_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_

from app.db.compiled_cache import CompiledCache
from app.errors import UnavailableError

CONNECT_TIMEOUT_SECONDS = 1.0
"""Maximum duration of connecting, in seconds."""
CLOSE_TIMEOUT_SECONDS = 0.2
"""Seconds that the server gets to acknowledge that a connection is closed."""
TIMEZONE_SETTING = {"timezone": "UTC"}
"""The time zone of all sessions, so that a day begins at the same time on all servers and replicas."""
PLANNER_SETTINGS = {
    # the planner's estimate for a page is far above its actual cost, and compiling takes longer than running
    "jit": "off",
    # disks no longer rotate: with the default of 4, each batch of a whole list reads all links of all patients
    "random_page_cost": "1.1",
    # our statements are prepared once, with one plan for all values; planning a page takes longer than running it
    "plan_cache_mode": "force_generic_plan",
}
"""Settings of the query planner."""
TIMEOUT_SETTINGS = {
    # a transaction that holds a lock for longer is not one of our requests
    "lock_timeout": "1500",
    # limits that the server enforces itself, in case this process is the one that is frozen
    "statement_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
}
"""Limits that PostgreSQL enforces on the session of a request, in milliseconds."""
COMPILED_CACHE_SIZE = 200
"""Maximum number of compiled statements kept.

Each takes a quarter of a megabyte, and filters and searches have many shapes.
"""

SESSION_SETTINGS = {**TIMEZONE_SETTING, **PLANNER_SETTINGS, **TIMEOUT_SETTINGS}
"""All settings that a session needs for serving requests."""

_POOLER_SAFE_SETTINGS = {"application_name": "patients-api", **TIMEZONE_SETTING}
"""Startup parameters that PgBouncer restores in each session that it gives to a client."""
_POOLER_PROBE = {"patients.straight": "yes"}
"""A setting that has no meaning to PostgreSQL, and that no pooler is configured to ignore: a pooler rejects it."""
_UNSUPPORTED_PARAMETER_MESSAGE = "unsupported startup parameter"
"""Part of PgBouncer's error for settings that it can neither keep nor is configured to ignore."""
_POOLER_UNSUPPORTED_MESSAGE = (
    "DATABASE_URL points to a connection pooler, through which only `patients-api serve` works: "
    "give this command the URL of PostgreSQL itself."
)
_CONNECTION_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.TargetServerAttributeNotMatched,  # none of several hosts matches `target_session_attrs`
)
"""Errors that mean that no connection can be opened."""
_SELECT_IS_PREPARED = "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name = $1)"


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no type information
    """asyncpg's connection, except that closing it does not wait long for a server that does not respond."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109  # asyncpg's own parameter
        await super().close(timeout=min(timeout or CLOSE_TIMEOUT_SECONDS, CLOSE_TIMEOUT_SECONDS))


class _Connector:
    """Opens connections, directly or through a pooler; the first one finds out which: a pooler rejects the settings."""

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
            UnavailableError: PostgreSQL cannot be reached, or only through a pooler although timeouts are off.
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
        except _CONNECTION_ERRORS as error:
            raise UnavailableError from error

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
        return await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT_SECONDS,
            server_settings=settings,
            connection_class=_Connection,
            **options,
        )

    def prepared_statement_options(self) -> dict[str, Any]:
        """Return the options that tell SQLAlchemy how to prepare statements on our connections."""
        if not self._is_pooled:
            return {}
        if not self._pooler_keeps_statements:
            return {"prepared_statement_cache_size": 0}  # unnamed, and prepared anew each time
        return {"prepared_statement_name_func": lambda: f"patients_{next(self._statement_numbers)}"}


async def _pooler_keeps_statements(connection: asyncpg.Connection) -> bool:
    """Return whether a pooler keeps track of prepared statements: it then gives them names of its own in PostgreSQL.

    PgBouncer does since 1.21, if `max_prepared_statements` is not 0.
    """
    name = f"patients_{uuid4().hex}"
    async with connection.transaction():
        is_prepared = await (await connection.prepare(_SELECT_IS_PREPARED, name=name)).fetchval(name)
        if is_prepared:
            await connection.execute(f"DEALLOCATE {name}")
    return not is_prepared


def create_engine(url: str, *, pool_size: int, with_timeouts: bool = False) -> AsyncEngine:
    """Return an engine on asyncpg, which parses `url` itself: libpq's `sslmode`, sockets and several hosts work.

    `with_timeouts` applies `TIMEOUT_SETTINGS` to sessions; without it, they have no timeouts, and `url` has to point to
    PostgreSQL without a pooler in between. Parameters stay out of error messages, because they are patient data.
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
    )
    return engine.execution_options(compiled_cache=CompiledCache(COMPILED_CACHE_SIZE))


def _serialize_json(value: Any) -> str:
    return to_json(value).decode()  # it supports dates and decimals, and is fast


_SELECT_SETTINGS = text("SELECT name, setting::bigint FROM pg_settings WHERE name = ANY(:names)")


async def missing_timeouts(connection: AsyncConnection) -> list[str]:
    """Return the names of `TIMEOUT_SETTINGS` that this session lacks: through a pooler it has those of its role."""
    settings = await connection.execute(_SELECT_SETTINGS, {"names": list(TIMEOUT_SETTINGS)})
    return [name for name, milliseconds in settings if not 0 < milliseconds <= int(TIMEOUT_SETTINGS[name])]
