"""The database on which a command works."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TypeVar

from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.database import Database
from app.db.embedded import EmbeddedPostgres, EmbeddedPostgresError, running_server_url
from app.db.migrate import INSUFFICIENT_PRIVILEGE
from app.db.schema_version import schema_is_current
from app.errors import UnavailableError
from app.settings import InvalidSettingsError, Settings

T = TypeVar("T")


class NoDatabaseError(Exception):
    """There is none, or its schema is older than this version; the message tells the operator what to do."""


class InsufficientPrivilegeError(Exception):
    """The database's role has no right to do it; the message tells the operator what to do."""


DATABASE_ERRORS = (
    InsufficientPrivilegeError,
    EmbeddedPostgresError,
    InvalidSettingsError,
    NoDatabaseError,
    UnavailableError,
)
"""What `on_database` may raise that an operator can mend."""


def run_in_transaction(work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Do `work` in one transaction, as `on_database` does; again, where it collides with others."""
    return run_on_database(lambda database: database.transaction(work))


def run_on_database(work: Callable[[Database], Awaitable[T]], *, pool_size: int = 1) -> T:
    """Do `work` on the database of DATABASE_URL, or on the embedded server, be it running or not.

    Raises:
        EmbeddedPostgresError: the embedded server cannot run.
        InvalidSettingsError: a setting cannot be used.
        NotAllowedError: the database's role may not.
        NoDatabaseError: there is no embedded one, or the schema is old.
        UnavailableError: the database cannot be reached.
    """
    settings = Settings.load()
    with ExitStack() as stack:
        if settings.database_url is not None:
            url = settings.database_url.get_secret_value()
        else:
            if not (settings.data_dir / "postgres").is_dir():
                raise NoDatabaseError(f"There is no database in {settings.data_dir}: set DATABASE_URL, or serve first.")
            url = running_server_url(settings.data_dir) or stack.enter_context(EmbeddedPostgres(settings.data_dir)).url
        try:
            return asyncio.run(_connect_and_run(url, work, pool_size))
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) != INSUFFICIENT_PRIVILEGE:
                raise
            raise InsufficientPrivilegeError(
                "This role may not do that: use the DATABASE_URL of the role that migrates."
            ) from None


async def _connect_and_run(url: str, work: Callable[[Database], Awaitable[T]], pool_size: int) -> T:
    async with Database(url, pool_size=pool_size, with_timeouts=False) as database:
        async with database.read() as connection:
            if not await schema_is_current(connection):
                remedy = "run `patients-api migrate`, or for the embedded one `patients-api serve`"
                raise NoDatabaseError(f"The database lacks migrations of this version: {remedy}.")
        return await work(database)
