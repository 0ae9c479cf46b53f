"""Alembic's environment: the async engine, one migrator at a time, and no waiting for locks that traffic holds."""

import asyncio
import os

from alembic import context
from alembic.autogenerate.rewriter import Rewriter
from alembic.operations import ops
from sqlalchemy import Connection, text
from sqlalchemy.sql.elements import conv

import app.models  # noqa: F401  # declares the tables
from app.db.base import Base
from app.db.migrate import ADVISORY_LOCK
from app.db.session import create_engine

writer = Rewriter()


@writer.rewrites(ops.AddColumnOp)
def with_length(_: object, __: object, operation: ops.AddColumnOp) -> list[ops.MigrateOperation]:
    """Have autogenerate write the length check of a new column, which Alembic does not see."""
    column = operation.column
    if "max_length" not in column.info:
        return [operation]
    name = conv(f"ck_{operation.table_name}_{column.name}_length")
    condition = f"char_length({column.name}) <= {column.info['max_length']}"
    return [operation, ops.CreateCheckConstraintOp(name, operation.table_name, condition)]


def run(connection: Connection) -> None:
    # at session level and outside a transaction: held over all revisions, each of which is committed by itself
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
    # a migration that waits for a lock makes all traffic behind it wait too: better that it fails and is run again
    connection.execute(text("SET lock_timeout = '5s'"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transaction_per_migration=True,
        process_revision_directives=writer,
    )
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    engine = create_engine(context.config.attributes.get("url") or os.environ["DATABASE_URL"], pool_size=1)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(main())
