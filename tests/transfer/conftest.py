from collections.abc import AsyncIterator

import pytest

from tests.support import temporary_database


@pytest.fixture
async def another_url(postgres_url: str) -> AsyncIterator[str]:
    """Return the URL of a second migrated, empty database."""
    async with temporary_database(postgres_url) as url:
        yield url
