"""Fixtures for tests of many concurrent requests."""

from collections.abc import AsyncIterator

import pytest

from tests.processes import free_port, running_cli, wait_until_ready
from tests.support import temporary_database


@pytest.fixture(scope="session")
async def service_url(postgres_url: str) -> AsyncIterator[str]:
    """Yield a service of two processes on its own database; each test uses ids that no other test uses."""
    port = free_port()
    async with temporary_database(postgres_url) as url:
        with running_cli("serve", "--port", str(port), "--workers", "2", DATABASE_URL=url) as process:
            wait_until_ready(process, f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
