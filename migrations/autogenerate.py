"""The steps that `make migration` writes, which do not disturb a database in use.

Alembic's own would block writers while a whole table is read: for a constraint that is validated at once, or an index
that is built under a lock. Therefore constraints are added unvalidated (`NOT VALID`: only later writes are checked),
and a second revision validates the existing rows and builds the indexes while reads and writes continue.
"""

from collections.abc import Callable, Iterable
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import render_op
from alembic.autogenerate.rewriter import Rewriter
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.sql.elements import conv

_writer = Rewriter()


@_writer.rewrites(ops.AddColumnOp)
def _complete_text_column(_: object, __: object, operation: ops.AddColumnOp) -> list[ops.MigrateOperation]:
    """Add what Alembic does not detect in a new `text_column`: its length check, and that it has no statistics.

    Statistics would keep values of erased records, and the planner needs only those of the folded columns.
    """
    table, column = operation.table_name, operation.column
    if "max_length" not in column.info:
        return [operation]
    name = conv(f"ck_{table}_{column.name}_length")
    condition = f"char_length({column.name}) <= {column.info['max_length']}"
    return [
        operation,
        ops.CreateCheckConstraintOp(name, table, condition),
        ops.ExecuteSQLOp(f"ALTER TABLE {table} ALTER COLUMN {column.name} SET STATISTICS 0"),
    ]


def exclude_partitions(connection: Connection) -> Callable[..., bool]:
    """Return a filter for names that excludes partitions, which come and go monthly and are not in the models."""
    partition_names = connection.execute(text("SELECT relname FROM pg_class WHERE relispartition")).scalars()
    partitions = frozenset(partition_names)
    connection.commit()  # a snapshot would block others that build an index CONCURRENTLY
    return lambda name, kind, _: kind != "table" or name not in partitions


class _OutsideTransactionOp(ops.MigrateOperation):
    """Operations that PostgreSQL allows only outside of transactions."""

    def __init__(self, operations: Iterable[ops.MigrateOperation]) -> None:
        self.ops = list(operations)


@renderers.dispatch_for(_OutsideTransactionOp)
def _render_autocommit_block(context: AutogenContext, operation: _OutsideTransactionOp) -> list[str]:
    lines = [line for inner in operation.ops for line in render_op(context, inner)]
    return ["with op.get_context().autocommit_block():", *lines, ""]  # the empty line ends the block


def split_revision(context: MigrationContext, revision: Any, directives: list[ops.MigrationScript]) -> None:
    """Split a script into a revision of quick steps and, if necessary, one of slow steps."""
    _writer(context, revision, directives)
    (first_script,) = directives
    assert first_script.upgrade_ops is not None  # noqa: S101  # one database: one container of operations
    assert first_script.downgrade_ops is not None  # noqa: S101
    created_tables = {
        operation.table_name for operation in first_script.upgrade_ops.ops if isinstance(operation, ops.CreateTableOp)
    }
    tables = [operation for operation in first_script.upgrade_ops.ops if isinstance(operation, ops.ModifyTableOps)]
    indexes: list[ops.CreateIndexOp] = []
    validations: list[ops.MigrateOperation] = []
    for table in tables:
        if table.table_name in created_tables:  # not in use yet
            continue
        for operation in list(table.ops):
            if isinstance(operation, ops.CreateIndexOp):
                table.ops.remove(operation)
                indexes.append(operation)
            elif isinstance(operation, ops.CreateCheckConstraintOp | ops.CreateForeignKeyOp):
                operation.kw["postgresql_not_valid"] = True
                validations.append(
                    ops.ExecuteSQLOp(f"ALTER TABLE {table.table_name} VALIDATE CONSTRAINT {operation.constraint_name}")
                )
    if not indexes and not validations:
        return
    drop_indexes: list[ops.MigrateOperation] = [index.reverse() for index in indexes]
    concurrent_steps: list[ops.MigrateOperation] = []
    if indexes:
        concurrent_steps.append(
            _OutsideTransactionOp(step for index in indexes for step in _concurrent_index_steps(index))
        )
    directives.append(
        ops.MigrationScript(
            rev_id=_next_revision_id(first_script.rev_id),
            message=f"{first_script.message}, slow steps",
            upgrade_ops=ops.UpgradeOps([*concurrent_steps, *validations]),
            downgrade_ops=ops.DowngradeOps(drop_indexes),
            head=first_script.rev_id,
        )
    )
    for table_operations in first_script.downgrade_ops.ops:
        if isinstance(table_operations, ops.ModifyTableOps) and table_operations.table_name not in created_tables:
            table_operations.ops = [
                operation for operation in table_operations.ops if not isinstance(operation, ops.DropIndexOp)
            ]


def _concurrent_index_steps(index: ops.CreateIndexOp) -> list[ops.MigrateOperation]:
    """Return steps that can be repeated: a failed attempt leaves an index that is maintained but never used."""
    index.kw["postgresql_concurrently"] = True
    index.if_not_exists = True
    drop = index.reverse()
    drop.if_exists = True
    return [drop, index]


def _next_revision_id(revision: str | None) -> str:
    day, _, number = str(revision).partition("_")
    return f"{day}_{int(number) + 1:02}"
