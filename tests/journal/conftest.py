"""What tests of the journal share."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

from app.cli import main


class Done(NamedTuple):
    """What a command came to."""

    status: int
    out: str
    err: str


@pytest.fixture
def command(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Awaitable[Done]]:
    """Runs a command of `patients-api` in this process, on the test's database or another."""

    async def run(*arguments: str, url: str = database_url) -> Done:
        monkeypatch.setattr(sys, "argv", ["patients-api", *arguments])
        monkeypatch.setitem(os.environ, "DATABASE_URL", url)
        capsys.readouterr()
        status = await asyncio.to_thread(main)
        return Done(status, *capsys.readouterr())

    return run
