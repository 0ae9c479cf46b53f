"""Database access for commands, on the database of DATABASE_URL or on the embedded server."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from app.db.connection import Connection
from app.db.database import Database
from app.db.schema_version import explain_schema, read_revisions
from app.embedded.server import EmbeddedPostgres, EmbeddedPostgresError, running_server_url
from app.errors import UnavailableError
from app.settings import InvalidSettingsError, Settings

T = TypeVar("T")


class NoDatabaseError(Exception):
    """There is no database, or its schema cannot be used. The message says what the operator can do."""


class InsufficientPrivilegeError(Exception):
    """The database role lacks a privilege. The message says what the operator can do."""


DATABASE_ERRORS = (
    InsufficientPrivilegeError,
    EmbeddedPostgresError,
    InvalidSettingsError,
    NoDatabaseError,
    UnavailableError,
)
"""The errors that `run_on_database` raises and that an operator can fix."""


def run_in_transaction(work: Callable[[Connection], Awaitable[T]]) -> T:
    """Run `work` in one transaction on the database that `run_on_database` uses, and return its result.

    `work` may run several times, because a transaction that conflicts with others is retried. This function raises the
    same errors as `run_on_database`.
    """
    return run_on_database(lambda database: database.transaction(work))


def run_on_database(work: Callable[[Database], Awaitable[T]], *, pool_size: int = 1, creates: bool = False) -> T:
    """Run `work` on the database of DATABASE_URL or, without DATABASE_URL, on the embedded server. Return its result.

    If the embedded server is not running, it is started before `work` and stopped afterwards. If `creates` is true, an
    embedded database is created and migrated first, as `serve` does.

    Raises:
        EmbeddedPostgresError: the embedded server cannot run.
        InvalidSettingsError: a setting is invalid.
        InsufficientPrivilegeError: the database role lacks a privilege.
        NoDatabaseError: there is no embedded database, or its schema is not one that this version can use.
        UnavailableError: the database cannot be reached.
    """
    settings = Settings.load()
    with open_database_url(settings, creates=creates) as url:
        if creates and settings.database_url is None and asyncio.run(_explain_schema(url)) is not None:
            from app.db.migrate import migrate  # noqa: PLC0415  # Alembic takes ten megabytes of memory

            migrate(url)
        try:
            return asyncio.run(_connect_and_run(url, work, pool_size))
        except asyncpg.InsufficientPrivilegeError:
            raise InsufficientPrivilegeError(
                "The database role lacks the privilege to do this: use the DATABASE_URL of the role that migrates."
            ) from None
        except asyncpg.SyntaxOrAccessError as error:  # its message names tables and columns, and quotes no data
            raise NoDatabaseError(
                f"The schema of the database is not that of its revision ({error}): `patients-api check` names missing "
                "tables."
            ) from None


@contextmanager
def open_database_url(settings: Settings, *, creates: bool = False) -> Iterator[str]:
    """Yield the URL of the database that the settings specify. An embedded server runs until the context is exited.

    Raises:
        EmbeddedPostgresError: the embedded server cannot run.
        NoDatabaseError: there is no embedded database, and `creates` is false.
    """
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    if not creates and not (settings.data_dir / "postgres").is_dir():
        raise NoDatabaseError(f"There is no database in {settings.data_dir}: set DATABASE_URL, or run `serve` first.")
    if (running_url := running_server_url(settings.data_dir)) is not None:
        yield running_url
        return
    with EmbeddedPostgres(settings.data_dir) as server:
        yield server.url


def standby_url(settings: Settings) -> str:
    """Return the database URL with a requirement that leads to a standby, if it names the standby as one of its hosts.

    Raises:
        NoDatabaseError: DATABASE_URL is not set, and the embedded server has no standby.
    """
    if settings.database_url is None:
        raise NoDatabaseError(
            "The embedded database has no standby: set DATABASE_URL, with the standby as another host."
        )
    parts = urlsplit(settings.database_url.get_secret_value())
    options = [(name, value) for name, value in parse_qsl(parts.query) if name != "target_session_attrs"]
    return urlunsplit(parts._replace(query=urlencode([*options, ("target_session_attrs", "standby")])))


async def _explain_schema(url: str) -> str | None:
    async with Database(url, pool_size=1) as database, database.read() as connection:
        return explain_schema(await read_revisions(connection))


async def _connect_and_run(url: str, work: Callable[[Database], Awaitable[T]], pool_size: int) -> T:
    async with Database(url, pool_size=pool_size, with_timeouts=False) as database:
        async with database.read() as connection:
            if (problem := explain_schema(await read_revisions(connection))) is not None:
                raise NoDatabaseError(problem)
        return await work(database)
