"""Clients that follow the change feed."""

import json
from typing import Any

import asyncpg
import httpx

CHANGES = "/changes/"


class Follower:
    """A client that reads the feed page by page, and remembers its cursor."""

    def __init__(self, client: httpx.AsyncClient, cursor: str | None = None, **parameters: Any) -> None:
        self.client = client
        self.cursor = cursor
        self.parameters = parameters

    async def read(self, **parameters: Any) -> list[dict[str, Any]]:
        """Return the next page."""
        after = {} if self.cursor is None else {"after": self.cursor}
        response = await self.client.get(CHANGES, params={**after, **self.parameters, **parameters})
        assert response.status_code == 200, response.text
        self.cursor = response.headers["Next-Cursor"]
        changes: list[dict[str, Any]] = response.json()
        return changes

    async def read_all(self, **parameters: Any) -> list[dict[str, Any]]:
        """Return the changes of all pages up to the first empty one."""
        changes: list[dict[str, Any]] = []
        while page := await self.read(**parameters):
            changes += page
        return changes


def summary(changes: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return the action, the resource, the id and the version of each change."""
    return [tuple(change[name] for name in ("action", "resource", "unique_id", "version")) for change in changes]


async def insert_patients_of(connection: asyncpg.Connection, hospital_id: str, count: int, prefix: str = "pat") -> None:
    """Insert patients of a hospital without journal entries. Their ids are the prefix with numbers from 1."""
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name) SELECT $1 || i, 'Doe' FROM generate_series(1, $2) i",
        prefix,
        count,
    )
    await connection.execute(
        "INSERT INTO patient_hospitals SELECT $1 || i, $2 FROM generate_series(1, $3) i", prefix, hospital_id, count
    )


async def pages_read(connection: asyncpg.Connection, statement: str, *parameters: Any) -> int:
    """Return how many pages of tables and indexes a statement reads. It is executed twice, to load the catalogue."""
    plans = [
        json.loads(await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *parameters))
        for _ in range(2)
    ]
    return sum(plans[1][0]["Plan"][f"Shared {kind} Blocks"] for kind in ("Hit", "Read"))
