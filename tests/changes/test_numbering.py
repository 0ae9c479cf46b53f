"""Numbering: every committed change gets one position, however transactions overlap."""

import random
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import httpx
import pytest

from tests.changes.conftest import CHANGES

INSERT = """
    INSERT INTO journal (resource, unique_id, version, action, actor, record)
    VALUES ('doctors', $1, $2, 'created', 'local', '{}')
"""


class Writer:
    """A session that writes versions of records in transactions, and may roll back parts or all of one."""

    def __init__(self, connection: asyncpg.Connection, name: str, choose: random.Random) -> None:
        self.connection = connection
        self.name = name
        self.choose = choose
        self.committed: list[tuple[str, int]] = []
        self._written: list[tuple[str, int]] = []
        self._transaction: Any = None
        self._transactions = 0

    async def step(self) -> None:
        """Begin, write, number, write in a savepoint, commit or roll back."""
        if self._transaction is None:
            self._transaction = self.connection.transaction()
            await self._transaction.start()
            self._transactions += 1
        action = self.choose.choices(("write", "savepoint", "number", "commit", "roll back"), (4, 2, 1, 2, 1))[0]
        if action == "write":
            await self._write(self._written)
        elif action == "savepoint":
            await self._write_in_savepoint()
        elif action == "number":  # as an erasure does, which has written before
            await self._write(self._written)
            await number(self.connection, 2)
        else:
            await self.end(commits=action == "commit")

    async def end(self, *, commits: bool) -> None:
        """End the transaction, if there is one."""
        if self._transaction is not None:
            await (self._transaction.commit() if commits else self._transaction.rollback())
            self.committed += self._written if commits else []
            self._written, self._transaction = [], None

    async def _write(self, written: list[tuple[str, int]]) -> None:
        key = f"{self.name}-{self._transactions}"
        version = sum(unique_id == key for unique_id, _ in self._written) + 1
        await self.connection.execute(INSERT, key, version)
        written.append((key, version))

    async def _write_in_savepoint(self) -> None:
        savepoint = self.connection.transaction()
        written: list[tuple[str, int]] = []
        await savepoint.start()
        await self._write(written)
        if self.choose.random() < 0.5:
            await savepoint.commit()
            self._written += written
        else:
            await savepoint.rollback()


async def number(connection: asyncpg.Connection, size: int) -> int | None:
    """Number up to `size` changes, and return how many, or None if another session is numbering."""
    numbered: int | None = await connection.fetchval("SELECT number_changes($1)", size)
    return numbered


@pytest.mark.parametrize("seed", range(4))
async def test_each_committed_change_is_numbered_once(
    database_url: str, connection: asyncpg.Connection, client: httpx.AsyncClient, seed: int
) -> None:
    """In whatever order transactions begin, write, number and end, nothing is lost, doubled or out of order."""
    choose = random.Random(seed)  # noqa: S311  # not a secret
    async with AsyncExitStack() as stack:
        writers = []
        for name in "abcdef":
            session = await asyncpg.connect(database_url)
            stack.push_async_callback(session.close)
            writers.append(Writer(session, name, choose))
        for _ in range(250):
            await choose.choice(writers).step()
            if choose.random() < 0.4:
                await number(connection, choose.choice((1, 3, 100)))
        for writer in writers:
            await writer.end(commits=True)
    response = await client.get(CHANGES, params={"limit": 1000})
    listed = [(change["unique_id"], change["version"]) for change in response.json()]
    assert sorted(listed) == sorted(key for writer in writers for key in writer.committed)
    versions: dict[str, list[int]] = {}
    for unique_id, version in listed:
        versions.setdefault(unique_id, []).append(version)
    assert all(numbers == sorted(numbers) for numbers in versions.values())
    assert await connection.fetchval("SELECT count(*) FROM changes_pending") == 0
