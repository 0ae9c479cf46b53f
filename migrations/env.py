"""Alembic's environment: the async engine, one migrator at a time, and no waiting for locks that traffic holds."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, text

import app.models  # noqa: F401  # declares the tables
from app.db.base import Base
from app.db.connecting import create_engine
from app.db.migrate import await_turn
from migrations.autogenerate import modelled, process

LOCK_TIMEOUT = "SET lock_timeout = '5s'"
"""A migration that waits for a lock makes all traffic behind it wait too: better that it fails and is run again."""


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transaction_per_migration=True,
        process_revision_directives=process,
        include_name=modelled(connection),
    )
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    engine = create_engine(context.config.attributes.get("url") or os.environ["DATABASE_URL"], pool_size=1)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.run_sync(await_turn)
        await connection.execute(text(LOCK_TIMEOUT))
        await connection.commit()
        await connection.execution_options(isolation_level="READ COMMITTED")
        await connection.run_sync(run)
    await engine.dispose()


def write_sql() -> None:
    """Write what the revisions would execute, for who reads or checks it; asks no database."""
    context.configure(
        dialect_name="postgresql",
        target_metadata=Base.metadata,
        literal_binds=True,
        transaction_per_migration=True,
    )
    context.execute(LOCK_TIMEOUT)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    write_sql()
else:
    asyncio.run(main())
