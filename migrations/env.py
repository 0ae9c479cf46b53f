"""Alembic's environment: the async engine, one migrator at a time, and no long waits for locks."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, text

import app.models  # noqa: F401  # declares the tables
from app.db.base import Base
from app.db.migrate import TRY_MIGRATION_LOCK, acquire_migration_lock, create_engine
from migrations.autogenerate import exclude_partitions, split_revision

SET_LOCK_TIMEOUT = "SET lock_timeout = '5s'"
"""A migration that waits for a lock blocks all traffic behind it, so it had better fail and be run again."""


def run_migrations(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transaction_per_migration=True,
        process_revision_directives=split_revision,
        include_name=exclude_partitions(connection),
        on_version_apply=context.config.attributes.get("on_version_apply"),
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_migrations_online() -> None:
    engine = create_engine(context.config.attributes.get("url") or os.environ["DATABASE_URL"])
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await acquire_migration_lock(lambda: connection.scalar(TRY_MIGRATION_LOCK))
        await connection.execute(text(SET_LOCK_TIMEOUT))
        await connection.commit()
        await connection.execution_options(isolation_level="READ COMMITTED")
        await connection.run_sync(run_migrations)
    await engine.dispose()


def run_migrations_offline() -> None:
    """Print the statements of the revisions for review or checks, without a database."""
    context.configure(
        dialect_name="postgresql",
        target_metadata=Base.metadata,
        literal_binds=True,
        transaction_per_migration=True,
    )
    context.execute(SET_LOCK_TIMEOUT)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    run_migrations_offline()
else:
    asyncio.run(run_migrations_online())
