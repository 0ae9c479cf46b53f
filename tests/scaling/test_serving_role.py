"""The settings that `migrate --serving-role` stores with the role, for sessions through a pooler."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from app.db.pool import SESSION_SETTINGS
from tests.processes import run_cli
from tests.support import database_url_for


def url_for_role(url: str, role: str) -> str:
    return urlunsplit(urlsplit(url)._replace(netloc=f"{role}@"))


async def session_settings(url: str) -> dict[str, str]:
    """Return the settings of a session that sets none itself."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT lower(name), setting FROM pg_settings WHERE lower(name) = ANY($1)", list(SESSION_SETTINGS)
        )
        return {name: str(setting) for name, setting in rows}
    finally:
        await connection.close()


@pytest.fixture
async def owner_and_serving_role(
    database_url: str, connection: asyncpg.Connection
) -> AsyncIterator[tuple[str, str, str]]:
    """Return the URL of an empty database owned by an ordinary role, this role, and a role created by another one."""
    owner, serving = (f"{name}_{secrets.token_hex(4)}" for name in ("owner", "serving"))
    await connection.execute(f"CREATE ROLE {owner} LOGIN; CREATE ROLE {serving} LOGIN")
    await connection.execute(f"CREATE DATABASE {owner} OWNER {owner}")
    yield url_for_role(database_url_for(database_url, owner), owner), owner, serving
    await connection.execute(f"DROP DATABASE {owner} WITH (FORCE)")
    await connection.execute(f"DROP ROLE {serving}")
    await connection.execute(f"DROP ROLE {owner}")


async def test_migrate_sets_timeouts_for_the_serving_role(
    owner_and_serving_role: tuple[str, str, str], connection: asyncpg.Connection
) -> None:
    """If the owner may alter the role, its sessions in this database, and in no other, get all settings."""
    url, owner, serving = owner_and_serving_role
    await connection.execute(
        f"ALTER ROLE {owner} CREATEROLE; GRANT {serving} TO {owner} WITH ADMIN TRUE, INHERIT FALSE"
    )
    elsewhere = url_for_role(database_url_for(url, "patients"), serving)
    before = await session_settings(elsewhere)
    done = await asyncio.to_thread(run_cli, "migrate", "--serving-role", serving, DATABASE_URL=url)
    assert (done.returncode, done.stderr) == (0, "")
    assert await session_settings(url_for_role(url, serving)) == SESSION_SETTINGS
    assert await session_settings(elsewhere) == before
    await connection.execute(f"ALTER ROLE {serving} IN DATABASE {owner} SET statement_timeout = '1ms'")
    done = await asyncio.to_thread(run_cli, "journal", "verify", DATABASE_URL=url_for_role(url, serving))
    assert done.returncode == 0, done.stderr


async def test_migrate_prints_settings_that_the_owner_may_not_alter(
    owner_and_serving_role: tuple[str, str, str], connection: asyncpg.Connection
) -> None:
    """If the owner may not alter the role, it still gets its rights, and the remaining statements are printed."""
    url, _, serving = owner_and_serving_role
    done = await asyncio.to_thread(run_cli, "migrate", "--serving-role", serving, DATABASE_URL=url)
    assert done.returncode == 0
    assert done.stderr.startswith(f"Done: {serving} can serve.\nThe rest is not an error; ")
    assert await session_settings(url_for_role(url, serving)) != SESSION_SETTINGS
    statements = [line for line in done.stderr.splitlines() if line.startswith("ALTER ROLE")]
    assert len(statements) == len(SESSION_SETTINGS)
    for statement in statements:
        await connection.execute(statement)
    assert await session_settings(url_for_role(url, serving)) == SESSION_SETTINGS
    done = await asyncio.to_thread(run_cli, "migrate", "--serving-role", serving, DATABASE_URL=url)
    assert (done.returncode, done.stderr) == (0, ""), "nothing is left to do"
    serving_connection = await asyncpg.connect(url_for_role(url, serving))
    assert await serving_connection.fetchval("SELECT count(*) FROM patients") == 0
    await serving_connection.close()
