"""Fixtures that tests of the journal share."""

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
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str


Command = Callable[..., Awaitable[CommandResult]]


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a `patients-api` command in this process, by default on the test's database."""

    async def run(*arguments: str, url: str = database_url) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["patients-api", *arguments])
        monkeypatch.setitem(os.environ, "DATABASE_URL", url)
        capsys.readouterr()
        status = await asyncio.to_thread(main)
        return CommandResult(status, *capsys.readouterr())

    return run


@pytest.fixture
async def serving_url(database_url: str, connection: asyncpg.Connection, command: Command) -> AsyncIterator[str]:
    """Return the URL for a serving role that had excessive rights before `migrate --serving-role`."""
    role = f"Serving-{secrets.token_hex(4)}"
    await connection.execute(f'CREATE ROLE "{role}" LOGIN; GRANT ALL ON journal, patients TO "{role}"')
    assert (await command("migrate", "--serving-role", role)).status == 0
    yield urlunsplit(urlsplit(database_url)._replace(netloc=f"{role}@"))
    await connection.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')
