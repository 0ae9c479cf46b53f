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
"""Every change of every record, written in the transaction of the change; triggers reject all but inserts.

`resource` is the table's name; `record` is a snapshot of the record after the change, without null values.
The primary key prevents an id from being reused, because there cannot be a second version 1.

A trigger maintains the hash chain of a record: `hash` is the SHA-256 of the hash before it and of the SHA-256 of the
other columns (`journal_content`). `salt` is random, so that no hash confirms a guess of erased data. `erasure` is what
an erasure leaves so that the hash chain continues: in its own entry and in those that it redacted
(`app.records.erasure`).
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
"""The columns that are hashed as an entry's content, in the order of the parameters of `journal_content`."""
