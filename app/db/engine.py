"""How connections to PostgreSQL are made: straight, or through a pooler such as PgBouncer in transaction mode.

A pooler gives each transaction whichever session is free, so nothing may be left in a session for later. The limits
and assumptions that a straight connection brings along are then those of the role, which has them by
`patients-api migrate --serving-role`; and statements have names only where the pooler looks after these.
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
"""Seconds that connecting may take."""
CLOSE_TIMEOUT_SECONDS = 0.2
"""Seconds that a server has to take note that a connection is closed."""
TIMEZONE_SETTING = {"timezone": "UTC"}
"""A day begins for all servers and replicas at the same moment."""
PLANNER_SETTINGS = {
    # the planner's estimate for a page is far above what it costs, and compiling takes longer than running
    "jit": "off",
    # disks do not turn any more: by the default of 4, each part of a whole list reads all links of all patients
    "random_page_cost": "1.1",
    # our statements are prepared once and alike for all values; planning a page takes longer than running it
    "plan_cache_mode": "force_generic_plan",
}
"""What PostgreSQL assumes when it plans."""
TIMEOUT_SETTINGS = {
    # who holds a lock for longer is no request of ours
    "lock_timeout": "1500",
    # the server's own limits, for when this process is the one that has frozen
    "statement_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
}
"""What PostgreSQL lets a request's session do, in milliseconds."""
COMPILED_CACHE_SIZE = 200
"""That are kept compiled: each takes a quarter of a megabyte, and filters and searches are of many shapes."""

SESSION_SETTINGS = {**TIMEZONE_SETTING, **PLANNER_SETTINGS, **TIMEOUT_SETTINGS}
"""All that a session has to have in which requests are served."""

_POOLER_SAFE_SETTINGS = {"application_name": "patients-api", **TIMEZONE_SETTING}
"""What PgBouncer sets in each session that it gives us, as it was said when connecting to it."""
_POOLER_PROBE = {"patients.straight": "yes"}
"""A setting that means nothing to PostgreSQL, and that no pooler was told to ignore."""
_UNSUPPORTED_PARAMETER_MESSAGE = "unsupported startup parameter"
"""What PgBouncer says to settings that it can neither keep nor was told to ignore."""
_POOLER_UNSUPPORTED_MESSAGE = (
    "DATABASE_URL leads to a connection pooler, through which only `patients-api serve` works: "
    "give this command the URL of PostgreSQL itself."
)
_CONNECTION_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.TargetServerAttributeNotMatched,  # of several hosts, none is what `target_session_attrs` wants
)
"""Why there is no connection."""
_SELECT_IS_PREPARED = "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name = $1)"


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no type information
    """asyncpg's, but that closing it does not wait long for a server that does not answer."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109  # asyncpg's own parameter
        await super().close(timeout=min(timeout or CLOSE_TIMEOUT_SECONDS, CLOSE_TIMEOUT_SECONDS))


class _Connector:
    """The way to PostgreSQL, found out by the first connection: a pooler refuses what belongs to a session."""

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
        """Connect.

        Raises:
            UnavailableError: PostgreSQL cannot be reached, or only through a pooler by who is not `limited`.
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
        """How SQLAlchemy is to prepare statements on a connection of ours."""
        if not self._is_pooled:
            return {}
        if not self._pooler_keeps_statements:
            return {"prepared_statement_cache_size": 0}  # without names, and anew each time
        return {"prepared_statement_name_func": lambda: f"patients_{next(self._statement_numbers)}"}


async def _pooler_keeps_statements(connection: asyncpg.Connection) -> bool:
    """Whether a pooler looks after prepared statements: it then has names of its own for them in PostgreSQL.

    PgBouncer does from 1.21 on, where `max_prepared_statements` is not 0.
    """
    name = f"patients_{uuid4().hex}"
    async with connection.transaction():
        is_prepared = await (await connection.prepare(_SELECT_IS_PREPARED, name=name)).fetchval(name)
        if is_prepared:
            await connection.execute(f"DEALLOCATE {name}")
    return not is_prepared


def create_engine(url: str, *, pool_size: int, with_timeouts: bool = False) -> AsyncEngine:
    """An engine on asyncpg, which reads `url` itself: what libpq understands (`sslmode`, sockets, several hosts) works.

    Sessions are `limited` in time, or not at all; then `url` has to lead to PostgreSQL without a pooler in between.
    Parameters stay out of error messages: they are patient data.
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
    return to_json(value).decode()  # it knows dates and decimals, and is fast


_SELECT_SETTINGS = text("SELECT name, setting::bigint FROM pg_settings WHERE name = ANY(:names)")


async def missing_timeouts(connection: AsyncConnection) -> list[str]:
    """The names of LIMITS that do not hold in this session: by way of a pooler it has what its role has."""
    settings = await connection.execute(_SELECT_SETTINGS, {"names": list(TIMEOUT_SETTINGS)})
    return [name for name, milliseconds in settings if not 0 < milliseconds <= int(TIMEOUT_SETTINGS[name])]
