"""A service that requires credentials, and credentials for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
import httpx
from fastapi import FastAPI

from app.auth import keys
from app.auth.scopes import Scope
from app.db.database import Database
from app.main import create_app
from app.settings import Settings

PATIENTS = "/patients/patients/"
PROFILES = "/profiles/profiles/"
HOSPITALS = "/hospitals/hospitals/"
CLIENT_ADDRESS = "203.0.113.1"
"""Where requests come from, if nothing else is said."""


@asynccontextmanager
async def secured_app(database_url: str, **settings: Any) -> AsyncIterator[FastAPI]:
    """The application in this process, with authentication."""
    app = create_app(Settings.model_validate({"database_url": database_url, "auth": "required", **settings}))
    async with app.router.lifespan_context(app):
        yield app


def client_for(app: FastAPI, credentials: str | None = None, *, address: str = CLIENT_ADDRESS) -> httpx.AsyncClient:
    """A client of the application that sends a key or token as Bearer, if any, from an address."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 50000))
    headers = {} if credentials is None else {"Authorization": f"Bearer {credentials}"}
    return httpx.AsyncClient(transport=transport, base_url="http://patients.test", headers=headers)


async def make_key(
    database_url: str,
    *scopes: Scope,
    name: str = "service",
    hospitals: list[str] | None = None,
    expires: datetime | None = None,
) -> str:
    """A key in the database."""
    async with Database(database_url, pool_size=1) as database:
        return await database.transaction(lambda connection: keys.create(connection, name, scopes, hospitals, expires))


async def revoke_key(database_url: str, name: str) -> None:
    async with Database(database_url, pool_size=1) as database:
        assert await database.transaction(lambda connection: keys.revoke(connection, name))


async def count_rows(connection: asyncpg.Connection, table: str) -> int:
    """How many rows a table has."""
    return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))  # noqa: S608  # a test's own name
