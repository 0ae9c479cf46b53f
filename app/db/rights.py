"""The rights that the serving role needs, which depend on whether Citus has distributed a table."""

import re
from typing import NamedTuple

from sqlalchemy import Table, text

from app.db.base import serving_rights
from app.db.connection import Connection

_COLUMN_INSERT_PATTERN = re.compile(r"INSERT \([^)]*\)")
_SELECT_CITUS_METADATA = text("SELECT to_regclass('pg_dist_partition') IS NOT NULL")
_SELECT_DISTRIBUTED_TABLES = text(
    "SELECT CAST(logicalrelid AS text) FROM pg_dist_partition WHERE partmethod = 'h' ORDER BY 1"
)


class Grant(NamedTuple):
    """The rights on a table or a sequence that a role needs for serving."""

    rights: str
    """The rights, such as `SELECT, UPDATE (last_used)`."""
    relation: str
    is_sequence: bool = False

    def __str__(self) -> str:
        return f"{self.rights} ON {'SEQUENCE ' if self.is_sequence else ''}{self.relation}"


async def distributed_tables(connection: Connection) -> list[str]:
    """Return the names of the tables whose rows are on the workers of Citus, including partitions."""
    if not (await connection.execute(_SELECT_CITUS_METADATA)).scalar_one():
        return []
    return list((await connection.execute(_SELECT_DISTRIBUTED_TABLES)).scalars())


def serving_grants(table: Table, *, is_distributed: bool) -> list[Grant]:
    """Return what has to be granted on a table for serving.

    Citus adds columns with defaults to each INSERT into a distributed table, and takes their values on behalf of the
    role. So the role needs the right to insert all columns, and to use the sequences of the table.
    """
    rights = serving_rights(table)
    if not is_distributed:
        return [Grant(rights, table.name)]
    sequences = [f"{table.name}_{column.name}_seq" for column in table.columns if column.identity is not None]
    return [
        Grant(_COLUMN_INSERT_PATTERN.sub("INSERT", rights), table.name),
        *(Grant("USAGE", sequence, is_sequence=True) for sequence in sequences),
    ]
