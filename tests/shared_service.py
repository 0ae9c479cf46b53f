"""One application and one database for the many tests that only send requests; their data are deleted after each test.

A test with a database and an application of its own takes 40 ms of CPU time before it has done anything: PostgreSQL
copies the template and drops the copy, and the application starts and stops. Its first requests take 10 ms more than
others, because new sessions load the system catalogs and plan their statements. Deleting the rows of a test takes 1 ms.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import asyncpg
import pytest
from fastapi import FastAPI

from app.background_tasks import run_background_tasks

MAX_TABLE_BYTES = 256 * 1024
"""Size of a table above which all tables are truncated, because dead rows would slow down the next tests."""
_TABLES = """
    SELECT relname AS name, oid, (
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    ) AS columns
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname
"""
_SEQUENCES = "SELECT format('%I', sequencename) AS name, start_value, last_value FROM pg_sequences"
_ACTIVE_SESSIONS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'
"""


class RestorableDatabase:
    """A database whose rows and sequences can be made what they were."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        """`connection` is that of a superuser, and only for this purpose."""
        self._connection = connection

    async def remember(self) -> None:
        """Remember the present rows and sequences, which are few."""
        await self._connection.execute("SET session_replication_role = replica")  # no triggers, no foreign keys
        tables = await self._connection.fetch(_TABLES)
        deletions, insertions = [], []
        for name, _, columns in tables:
            deletions.append(f"DELETE FROM public.{name};")  # noqa: S608  # names in the schema
            if await self._connection.fetchval(f"SELECT EXISTS (SELECT FROM public.{name})"):  # noqa: S608
                rows = f"SELECT {columns} FROM"
                await self._connection.execute(f"CREATE TEMPORARY TABLE first_{name} AS {rows} public.{name}")
                insertions.append(f"INSERT INTO public.{name} ({columns}) OVERRIDING SYSTEM VALUE {rows} first_{name};")
        sequences = [
            f"PERFORM setval('public.{name}', {last or start}, {last is not None});"
            for name, start, last in await self._connection.fetch(_SEQUENCES)
        ]
        names = ", ".join(f"public.{table['name']}" for table in tables)
        sizes = ", ".join(f"pg_relation_size({table['oid']})" for table in tables)
        await self._connection.execute(
            f"""
            CREATE FUNCTION pg_temp.restore() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
                IF greatest({sizes}) > {MAX_TABLE_BYTES} THEN
                    TRUNCATE {names};
                ELSE
                    {" ".join(deletions)}
                END IF;
                {" ".join(insertions)}
                {" ".join(sequences)}
            END $$
            """
        )

    async def restore(self) -> None:
        """Restore the remembered rows and sequences, once nobody else is executing a statement."""
        while await self._connection.fetchval(_ACTIVE_SESSIONS):
            await self._connection.execute("SELECT pg_sleep(0.002)")
        await self._connection.execute("SELECT pg_temp.restore()")


class SharedService(NamedTuple):
    """An application that tests share, and its database, which is restored after each of them."""

    app: FastAPI
    database: RestorableDatabase


def sends_only_requests(request: pytest.FixtureRequest) -> bool:
    """Return whether a test has no fixture with which it can change settings, constants or the schema."""
    return {"app", "database_url", "monkeypatch"}.isdisjoint(request.fixturenames)


@asynccontextmanager
async def restorable_database(url: str) -> AsyncIterator[RestorableDatabase]:
    """Connect to a database that tests share, and remember what is in it now."""
    connection = await asyncpg.connect(url)
    try:
        database = RestorableDatabase(connection)
        await database.remember()
        yield database
    finally:
        await connection.close()


@asynccontextmanager
async def running_without_background_tasks(app: FastAPI) -> AsyncIterator[None]:
    """Do what an application does at its start and at its end, but run no tasks between two tests."""
    services = app.state.services
    try:
        await run_background_tasks(services.database)
        yield
    finally:
        await services.authenticator.close()
        await services.database.close()
