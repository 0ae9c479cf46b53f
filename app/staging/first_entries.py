"""Journal entries of imported records that are new. One statement computes the hashes of a whole batch.

The hashes of all other entries are computed by a trigger, row by row. That takes longer than the rest of the insert.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    FromClause,
    Insert,
    Table,
    Uuid,
    bindparam,
    cast,
    func,
    insert,
    literal_column,
    null,
    select,
)

from app.models import journal
from app.records.journal_hash import content_hash
from app.statements.documents import ToMany
from app.statements.journal_entries import AUTHOR_COLUMNS, record_snapshot


def insert_first_entries(table: Table, row: FromClause, links: Mapping[str, ToMany]) -> Insert:
    """Return a statement that inserts the first journal entry of each row of `row`.

    `row` contains new rows of `table` as they are stored, of ids without entries. The author of the entries is in bind
    parameters with the names of `AUTHOR_COLUMNS`. The statement violates the journal's primary key if the journal has
    got entries for an id meanwhile.
    """
    values: dict[str, ColumnElement[Any]] = {
        "resource": literal_column(f"'{table.name}'"),
        "unique_id": row.c.unique_id,
        "version": row.c.version,
        "action": literal_column("'created'"),
        "time": func.clock_timestamp(),
        "record": record_snapshot(table, row, links),
        "salt": _salt(row.c.unique_id),
        **{name.name: bindparam(name.name, type_=name.type) for name in AUTHOR_COLUMNS},
    }
    # a subquery with volatile functions is evaluated once per row, so that the hash is that of the inserted values
    columns = (_value(values, column).label(column.name) for column in journal.c if column.name != "hash")
    entry = select(*columns).subquery("entry")
    # the first entry of a record has no previous hash
    rows = select(*entry.c, func.sha256(content_hash(entry)))
    return insert(journal).from_select([*entry.c.keys(), "hash"], rows)


def _salt(unique_id: ColumnElement[str]) -> ColumnElement[Any]:
    """Return a salt for the entry of an id: the beginning of the SHA-256 of a secret of the statement and the id.

    Nobody can compute the salt, because the secret has 244 random bits and is not stored. A random number for each
    entry would take three times as long: it is a system call, unless PostgreSQL is built with OpenSSL.
    """
    half = func.uuid_send(func.gen_random_uuid())
    secret = select(half.op("||")(half)).scalar_subquery()  # evaluated once, because it refers to no row
    digest = func.sha256(secret.op("||")(func.convert_to(unique_id, literal_column("'UTF8'"))))
    beginning = func.substring(digest, literal_column("1"), literal_column("16"))
    return cast(func.encode(beginning, literal_column("'hex'")), Uuid)


def _value(values: Mapping[str, ColumnElement[Any]], column: Column[Any]) -> ColumnElement[Any]:
    return values.get(column.name, cast(null(), column.type))
