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
"""The address that requests come from by default."""


def create_secured_app(database_url: str, **settings: Any) -> FastAPI:
    """Return the application with authentication."""
    return create_app(Settings.model_validate({"database_url": database_url, "auth": "required", **settings}))


@asynccontextmanager
async def secured_app(database_url: str, **settings: Any) -> AsyncIterator[FastAPI]:
    """Run the application with authentication in this process."""
    app = create_secured_app(database_url, **settings)
    async with app.router.lifespan_context(app):
        yield app


def client_for(app: FastAPI, credentials: str | None = None, *, address: str = CLIENT_ADDRESS) -> httpx.AsyncClient:
    """Return a client that connects from `address` and sends `credentials`, if any, as a Bearer token."""
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
    """Create a key in the database and return it."""
    async with Database(database_url, pool_size=1) as database:
        return await database.transaction(lambda connection: keys.create(connection, name, scopes, hospitals, expires))


async def revoke_key(database_url: str, name: str) -> None:
    async with Database(database_url, pool_size=1) as database:
        assert await database.transaction(lambda connection: keys.revoke(connection, name))


async def count_rows(connection: asyncpg.Connection, table: str) -> int:
    """Return the number of rows in a table."""
    return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))  # noqa: S608  # a test's own name
