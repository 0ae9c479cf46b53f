"""PgBouncer in transaction mode in front of the tests' PostgreSQL, and a serving role that connects through it."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from benchmarks.pgbouncer import find_pgbouncer, running_pgbouncer
from tests.processes import RawRequest, TimedResponse, free_port, run_cli, send_concurrently

POOLER_SESSION_COUNT = 2
"""PgBouncer's sessions with PostgreSQL: fewer than the service's connections."""


class RetryingClient(httpx.AsyncClient):
    """A client that retries on a 503, because sessions may be few and the machine busy."""

    async def request(self, *arguments: Any, **options: Any) -> httpx.Response:
        """Send a request until the response is not a 503."""
        async with asyncio.timeout(60):
            while (response := await super().request(*arguments, **options)).status_code == 503:
                assert "Retry-After" in response.headers
        return response


async def send_until_served(urls: str | Sequence[str], calls: Sequence[RawRequest]) -> list[TimedResponse]:
    """Send all calls concurrently, and resend those that get a 503."""
    responses = await send_concurrently(urls, calls)
    while again := [number for number, response in enumerate(responses) if response.status == 503]:
        for number, response in zip(
            again, await send_concurrently(urls, [calls[number] for number in again]), strict=True
        ):
            responses[number] = response
    return responses


@dataclass(frozen=True)
class PooledDatabase:
    """A database that can also be reached through PgBouncer."""

    direct_url: str
    """The URL for the owner of the tables, without PgBouncer."""
    role: str

    @contextmanager
    def pooler(self, *, port: int | None = None, **settings: str) -> Iterator[str]:
        """Run a separate PgBouncer and yield the database's URL through it for the serving role."""
        roles = [self.role, "patients"]
        with running_pgbouncer(
            self.direct_url, port or free_port(), roles, POOLER_SESSION_COUNT, **settings
        ) as address:
            yield f"postgresql://{self.role}@{address}{urlsplit(self.direct_url).path}"


@pytest.fixture
async def pooled_database(database_url: str, connection: asyncpg.Connection) -> AsyncIterator[PooledDatabase]:
    """Return the test's database with a role prepared by `migrate --serving-role`."""
    if find_pgbouncer() is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    role = f"serving_{secrets.token_hex(4)}"
    await connection.execute(f"CREATE ROLE {role} LOGIN")
    done = await asyncio.to_thread(run_cli, "migrate", "--serving-role", role, DATABASE_URL=database_url)
    assert (done.returncode, done.stderr) == (0, "")
    yield PooledDatabase(database_url, role)
    await connection.execute(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{role}'"  # noqa: S608
    )
    await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
