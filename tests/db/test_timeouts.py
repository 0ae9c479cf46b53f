"""The time that the statements of a search may take together."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import text

from app.db import database
from app.db.database import Database
from app.db.errors import OutOfTimeError

SEARCH_TIMEOUT_SECONDS = 0.8
STATEMENT = text("SELECT pg_sleep(0.5)")


@pytest.fixture
async def searched(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Yield access to a database, in which searches have little time."""
    monkeypatch.setattr(database, "SEARCH_TIMEOUT_SECONDS", SEARCH_TIMEOUT_SECONDS)
    async with Database(database_url, pool_size=1) as access:
        yield access


async def search_with(searched: Database, statement_count: int) -> None:
    async with searched.search_snapshot("principal") as search:
        for _ in range(statement_count):
            await search.execute(STATEMENT)


async def test_time_between_the_statements_of_a_search_does_not_count(
    searched: Database, connection: asyncpg.Connection
) -> None:
    """A search may do other things between its statements, such as compile them, for longer than these may take."""
    async with searched.search_snapshot("principal") as search:
        await connection.execute("SELECT pg_sleep($1)", 1.5 * SEARCH_TIMEOUT_SECONDS)
        await search.execute(STATEMENT)


async def test_statements_of_a_search_share_their_time(searched: Database) -> None:
    """Statements that take too long together are cancelled, and the next search has all of its time."""
    with pytest.raises(OutOfTimeError):
        await search_with(searched, statement_count=2)
    await search_with(searched, statement_count=1)
