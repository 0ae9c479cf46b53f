"""What `make migration` writes: steps that a database in use does not notice.

Alembic's own would hold writers up while a table is read as a whole: for a constraint that is checked at once, for an
index that is built under a lock. So constraints come unchecked (`NOT VALID`: what is written from now on obeys), and a
second revision checks the rows that were there and builds the indexes, while everybody reads and writes.
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
def _with_length(_: object, __: object, operation: ops.AddColumnOp) -> list[ops.MigrateOperation]:
    """Have the length check of a new column written, which Alembic does not see."""
    column = operation.column
    if "max_length" not in column.info:
        return [operation]
    name = conv(f"ck_{operation.table_name}_{column.name}_length")
    condition = f"char_length({column.name}) <= {column.info['max_length']}"
    return [operation, ops.CreateCheckConstraintOp(name, operation.table_name, condition)]


def modelled(connection: Connection) -> Callable[..., bool]:
    """Which names of a database the models have: not those of partitions, which come and go with the months."""
    named = connection.execute(text("SELECT relname FROM pg_class WHERE relispartition")).scalars()
    partitions = frozenset(named)
    connection.commit()  # a snapshot would hold up who builds an index CONCURRENTLY
    return lambda name, kind, _: kind != "table" or name not in partitions


class _OutsideTransactionOp(ops.MigrateOperation):
    """Operations that PostgreSQL does outside of transactions only."""

    def __init__(self, operations: Iterable[ops.MigrateOperation]) -> None:
        self.ops = list(operations)


@renderers.dispatch_for(_OutsideTransactionOp)
def _render(context: AutogenContext, operation: _OutsideTransactionOp) -> list[str]:
    lines = [line for inner in operation.ops for line in render_op(context, inner)]
    return ["with op.get_context().autocommit_block():", *lines, ""]  # the empty line ends the block


def process(context: MigrationContext, revision: Any, directives: list[ops.MigrationScript]) -> None:
    """Split what is to be written into a revision that is done in a moment and, where needed, one that is not."""
    _writer(context, revision, directives)
    (first,) = directives
    assert first.upgrade_ops is not None  # noqa: S101  # one database: one container of operations
    assert first.downgrade_ops is not None  # noqa: S101
    made = {operation.table_name for operation in first.upgrade_ops.ops if isinstance(operation, ops.CreateTableOp)}
    tables = [operation for operation in first.upgrade_ops.ops if isinstance(operation, ops.ModifyTableOps)]
    indexes: list[ops.CreateIndexOp] = []
    checks: list[ops.MigrateOperation] = []
    for table in tables:
        if table.table_name in made:  # nobody uses it yet
            continue
        for operation in list(table.ops):
            if isinstance(operation, ops.CreateIndexOp):
                table.ops.remove(operation)
                indexes.append(operation)
            elif isinstance(operation, ops.CreateCheckConstraintOp | ops.CreateForeignKeyOp):
                operation.kw["postgresql_not_valid"] = True
                checks.append(
                    ops.ExecuteSQLOp(f"ALTER TABLE {table.table_name} VALIDATE CONSTRAINT {operation.constraint_name}")
                )
    if not indexes and not checks:
        return
    undo: list[ops.MigrateOperation] = [index.reverse() for index in indexes]
    later: list[ops.MigrateOperation] = []
    if indexes:
        later.append(_OutsideTransactionOp(step for index in indexes for step in _concurrently(index)))
    directives.append(
        ops.MigrationScript(
            rev_id=_next(first.rev_id),
            message=f"{first.message}, what takes its time",
            upgrade_ops=ops.UpgradeOps([*later, *checks]),
            downgrade_ops=ops.DowngradeOps(undo),
            head=first.rev_id,
        )
    )
    for undone in first.downgrade_ops.ops:
        if isinstance(undone, ops.ModifyTableOps) and undone.table_name not in made:
            undone.ops = [operation for operation in undone.ops if not isinstance(operation, ops.DropIndexOp)]


def _concurrently(index: ops.CreateIndexOp) -> list[ops.MigrateOperation]:
    """Steps that can be repeated: an attempt that fails leaves an index that is kept up, and never used."""
    index.kw["postgresql_concurrently"] = True
    index.if_not_exists = True
    drop = index.reverse()
    drop.if_exists = True
    return [drop, index]


def _next(revision: str | None) -> str:
    day, _, number = str(revision).partition("_")
    return f"{day}_{int(number) + 1:02}"
