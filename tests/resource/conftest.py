"""What tests of many requests in the same moment share."""

import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.conftest import free_port
from tests.processes import await_ready, command_running
from tests.support import database_named


@pytest.fixture(scope="session")
async def url(server: str) -> AsyncIterator[str]:
    """A service of two processes on a database of its own: each test uses ids that no other does."""
    name = f"test_{secrets.token_hex(4)}"
    administration = await asyncpg.connect(database_named(server, "postgres"))
    await administration.execute(f"CREATE DATABASE {name} TEMPLATE patients")
    port = free_port()
    database = database_named(server, name)
    with command_running("serve", "--port", str(port), "--workers", "2", DATABASE_URL=database) as process:
        await_ready(process, f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    await administration.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await administration.close()
