"""What tests of the journal share."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from app.cli import main


class CommandResult(NamedTuple):
    """What a command came to."""

    status: int
    out: str
    err: str


Command = Callable[..., Awaitable[CommandResult]]


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command of `patients-api` in this process, on the test's database or another."""

    async def run(*arguments: str, url: str = database_url) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["patients-api", *arguments])
        monkeypatch.setitem(os.environ, "DATABASE_URL", url)
        capsys.readouterr()
        status = await asyncio.to_thread(main)
        return CommandResult(status, *capsys.readouterr())

    return run


@pytest.fixture
async def serving_url(database_url: str, connection: asyncpg.Connection, command: Command) -> AsyncIterator[str]:
    """The database's URL for a role of its own that serves; it was given too much before."""
    role = f"Serving-{secrets.token_hex(4)}"
    await connection.execute(f'CREATE ROLE "{role}" LOGIN; GRANT ALL ON journal, patients TO "{role}"')
    assert (await command("migrate", "--serving-role", role)).status == 0
    yield urlunsplit(urlsplit(database_url)._replace(netloc=f"{role}@"))
    await connection.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')
