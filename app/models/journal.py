from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Index, LargeBinary, Table, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSON

from app.db.base import HUMAN_TEXT, ID_TEXT, Base

ACTIONS = ("created", "updated", "deleted", "restored", "erased", "merged", "unmerged")
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
    Column("merge", JSON),
    CheckConstraint(f"action IN ({_ACTION_LIST_SQL})", name="action"),
    CheckConstraint("(record IS NULL) = (action IN ('deleted', 'erased', 'merged'))", name="record"),
    CheckConstraint("merge IS NOT NULL OR action NOT IN ('merged', 'unmerged')", name="merge"),
    Index(None, "resource", "time", "unique_id", postgresql_where=text("action = 'deleted'")),
    Index("ix_journal_merges", "resource", "unique_id", postgresql_where=text("merge IS NOT NULL")),
    Index("ix_journal_merged", "resource", "time", "unique_id", postgresql_where=text("action = 'merged'")),
    info={"serving_rights": "SELECT, INSERT (resource, unique_id, version, action, actor, request_id, record, merge)"},
)
"""The journal: one entry for every change to a record, written in the transaction of the change. Triggers reject every
change to the table except inserts.

`resource` is the name of the record's table. `record` is a snapshot of the record after the change, without null
values. The primary key prevents the reuse of an id, because a new record with this id would need a second version 1.
The indexes of deletions and of merges are for lists of deleted and of merged records, and the one of entries with a
merge for what was merged into a record.

`merge` names the other record if two records were merged, or if this was undone. The entries of the record that was
merged into the other one have the action `merged` with `{"merged_into": id}`, and `unmerged` with
`{"unmerged_from": id}`. Those of the other record have `{"merged_from": id}` and `{"unmerged": id}`.

A trigger maintains a hash chain for each record. `hash` is the SHA-256 of two concatenated values: the `hash` of the
record's previous entry, and the SHA-256 of the other columns of this entry (database function `journal_content`).
`salt` is random, so that no hash confirms a guess of erased data. `erasure` contains the hashes that keep the hash
chains verifiable after an erasure. It is set in the entry of the erasure itself and in the entries that the erasure
redacted (`app.records.erasure`).
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
    "merge",
)
"""Columns of a journal entry that are hashed as the content of the entry. They are in the order of the parameters of
the database function `journal_content`."""
