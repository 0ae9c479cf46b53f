from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, LargeBinary, Table, Uuid, func
from sqlalchemy.dialects.postgresql import JSON

from app.db.base import HUMAN_TEXT, ID_TEXT, Base

ACTIONS = ("created", "updated", "deleted", "restored", "erased")
_ACTION_LIST_SQL = ", ".join(f"'{action}'" for action in ACTIONS)

journal = Table(
    "journal",
    Base.metadata,
    Column("resource", ID_TEXT, primary_key=True),
    Column("unique_id", ID_TEXT, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("action", ID_TEXT, nullable=False),
    Column("time", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("actor", ID_TEXT, nullable=False),
    Column("request_id", ID_TEXT),
    Column("reason", HUMAN_TEXT),
    Column("record", JSON),
    Column("salt", Uuid),
    Column("hash", LargeBinary, nullable=False),
    Column("erasure", JSON),
    CheckConstraint(f"action IN ({_ACTION_LIST_SQL})", name="action"),
    CheckConstraint("(record IS NULL) = (action IN ('deleted', 'erased'))", name="record"),
    info={"serving_rights": "SELECT, INSERT (resource, unique_id, version, action, actor, request_id, record)"},
)
"""Every change of every record, written in the transaction of the change; triggers refuse all but inserts.

`resource` is the table's name; `record` is what the record was after the change, without what was null.
The key is what keeps an id from being used again: a second first version has no place.

A trigger chains the entries of a record: `hash` is the SHA-256 of the hash before it and of the SHA-256 of the other
columns (`journal_content`). `salt` is random, so that no hash confirms a guess of what was erased. `erasure` is what an
erasure leaves, so that chains go on: in its own entry and in those that it has redacted (`app.records.erasure`).
"""
HASHED_COLUMNS = (
    "salt",
    "resource",
    "unique_id",
    "version",
    "action",
    "time",
    "actor",
    "request_id",
    "reason",
    "record",
    "erasure",
)
"""What an entry's content is, in the order of the parameters of `journal_content`."""
