"""Journal entries of imported records that are new. One statement computes the hashes of a whole batch.

The hashes of all other entries are computed by a trigger, row by row. That takes longer than the rest of the insert.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    FromClause,
    Select,
    Table,
    bindparam,
    cast,
    func,
    literal_column,
    null,
    select,
)
from sqlalchemy.dialects.postgresql import insert

from app.models import journal
from app.records.journal_hash import content_hash
from app.statements.documents import ToMany
from app.statements.journal_entries import AUTHOR_COLUMNS, record_snapshot


def insert_first_entries(table: Table, row: FromClause, links: Mapping[str, ToMany]) -> Select[Any]:
    """Return a statement that inserts the first journal entry of each row of `row`, and returns their number.

    `row` contains new rows of `table` as they are stored, of ids without entries. The author of the entries is in bind
    parameters with the names of `AUTHOR_COLUMNS`. No entry is inserted for an id for which the journal has got entries
    meanwhile.
    """
    values: dict[str, ColumnElement[Any]] = {
        "resource": literal_column(f"'{table.name}'"),
        "unique_id": row.c.unique_id,
        "version": row.c.version,
        "action": literal_column("'created'"),
        "time": func.clock_timestamp(),
        "record": record_snapshot(table, row, links),
        "salt": func.gen_random_uuid(),
        **{name.name: bindparam(name.name, type_=name.type) for name in AUTHOR_COLUMNS},
    }
    # a subquery with volatile functions is evaluated once per row, so that the hash is that of the inserted values
    columns = (_value(values, column).label(column.name) for column in journal.c if column.name != "hash")
    entry = select(*columns).subquery("entry")
    # the first entry of a record has no previous hash
    rows = select(*entry.c, func.sha256(content_hash(entry)))
    # only the primary key detects that another transaction has just inserted an entry for the same id
    statement = insert(journal).from_select([*entry.c.keys(), "hash"], rows).on_conflict_do_nothing()
    entries = statement.returning(journal.c.unique_id).cte("inserted")
    return select(func.count()).select_from(entries)


def _value(values: Mapping[str, ColumnElement[Any]], column: Column[Any]) -> ColumnElement[Any]:
    return values.get(column.name, cast(null(), column.type))
