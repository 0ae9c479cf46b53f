import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.support import database_url_for


@pytest.fixture
async def another_url(postgres_url: str, connection: asyncpg.Connection) -> AsyncIterator[str]:
    """Return the URL of a second migrated, empty database."""
    name = f"another_{secrets.token_hex(4)}"
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE patients")
    yield database_url_for(postgres_url, name)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
