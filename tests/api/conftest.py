"""Fixtures for tests of many concurrent requests."""

import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.conftest import free_port
from tests.processes import running_cli, wait_until_ready
from tests.support import database_url_for


@pytest.fixture(scope="session")
async def service_url(postgres_url: str) -> AsyncIterator[str]:
    """Yield a service of two processes on its own database; each test uses ids that no other test uses."""
    name = f"test_{secrets.token_hex(4)}"
    administration = await asyncpg.connect(database_url_for(postgres_url, "postgres"))
    await administration.execute(f"CREATE DATABASE {name} TEMPLATE patients")
    port = free_port()
    database = database_url_for(postgres_url, name)
    with running_cli("serve", "--port", str(port), "--workers", "2", DATABASE_URL=database) as process:
        wait_until_ready(process, f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    await administration.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await administration.close()
