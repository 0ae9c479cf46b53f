"""PgBouncer in transaction mode before the tests' PostgreSQL, and a role that serves through it."""

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

from benchmarks.pgbouncer import pgbouncer, program
from tests.conftest import free_port
from tests.processes import Answer, Call, at_once, run_command

SESSIONS = 2
"""That PgBouncer has of PostgreSQL: fewer than the service has connections."""


class Patient(httpx.AsyncClient):
    """A client who comes again when told to: sessions may be few, and the machine busy."""

    async def request(self, *arguments: Any, **more: Any) -> httpx.Response:
        """Send a request until there is another answer than 503."""
        async with asyncio.timeout(60):
            while (answer := await super().request(*arguments, **more)).status_code == 503:
                assert "Retry-After" in answer.headers
        return answer


async def insist(urls: str | Sequence[str], calls: Sequence[Call]) -> list[Answer]:
    """Send all calls in the same moment, and again those that are told to come again."""
    answers = await at_once(urls, calls)
    while again := [number for number, answer in enumerate(answers) if answer.status == 503]:
        for number, answer in zip(again, await at_once(urls, [calls[number] for number in again]), strict=True):
            answers[number] = answer
    return answers


@dataclass(frozen=True)
class Behind:
    """A database that can be reached through PgBouncer too."""

    straight_url: str
    """As the owner of the tables, without PgBouncer."""
    role: str

    @contextmanager
    def pooler(self, *, port: int | None = None, **settings: str) -> Iterator[str]:
        """The URL of the database through a PgBouncer of its own, as the role that serves."""
        roles = [self.role, "patients"]
        with pgbouncer(self.straight_url, port or free_port(), roles, SESSIONS, **settings) as place:
            yield f"postgresql://{self.role}@{place}{urlsplit(self.straight_url).path}"


@pytest.fixture
async def behind(database_url: str, connection: asyncpg.Connection) -> AsyncIterator[Behind]:
    """The test's database with a role that `migrate --serving-role` has made fit to serve."""
    if program() is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    role = f"serving_{secrets.token_hex(4)}"
    await connection.execute(f"CREATE ROLE {role} LOGIN")
    done = await asyncio.to_thread(run_command, "migrate", "--serving-role", role, DATABASE_URL=database_url)
    assert (done.returncode, done.stderr) == (0, "")
    yield Behind(database_url, role)
    await connection.execute(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{role}'"  # noqa: S608
    )
    await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
