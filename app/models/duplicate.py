"""Pairs of patients that may be one person, and the patients that have yet to be compared with others.

No foreign key refers to patients: a decision on a pair outlives a patient's deletion, because the patient may be
restored, and patients to be compared may be deleted again in the meantime.
"""

from sqlalchemy import ARRAY, CheckConstraint, Column, DateTime, Double, Index, LargeBinary, Table, Text, func

from app.db.base import HUMAN_TEXT, ID_TEXT, Base

duplicates = Table(
    "duplicates",
    Base.metadata,
    Column("unique_id", ID_TEXT, primary_key=True),
    Column("one_id", ID_TEXT, nullable=False),
    Column("other_id", ID_TEXT, nullable=False),
    Column("grade", ID_TEXT, nullable=False),
    Column("own_grade", ID_TEXT),
    Column("score", Double, nullable=False),
    Column("agrees", ARRAY(Text), nullable=False),
    Column("differs", ARRAY(Text), nullable=False),
    Column("through_id", ID_TEXT),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", ID_TEXT, nullable=False, server_default="open"),
    Column("found", DateTime(timezone=True), nullable=False, server_default=func.statement_timestamp()),
    Column("reason", HUMAN_TEXT, info={"max_length": 500}),
    CheckConstraint("one_id < other_id", name="order"),
    CheckConstraint("grade IN ('certain', 'probable', 'possible')", name="grade"),
    CheckConstraint("status IN ('open', 'dismissed', 'merged')", name="status"),
    CheckConstraint("char_length(reason) <= 500", name="reason_length"),
    Index("uq_duplicates_one_id_other_id", "one_id", "other_id", unique=True),
    Index(None, "other_id"),
    Index(None, "through_id"),
    Index(None, "status", "score", "unique_id"),
)
"""Pairs of patients that may be one person. Each pair has one row, in which `one_id` is less than `other_id`.

`own_grade` is the grade that the two have by themselves, if they have one. Other records may have raised `grade`.
`fingerprint` identifies the values that were compared. `through_id` is the patient that both are probably the same as,
if they are a pair only for this reason.
"""

pending_comparisons = Table(
    "pending_comparisons",
    Base.metadata,
    Column("patient_id", ID_TEXT, nullable=False, index=True),
    info={"serving_rights": "SELECT, DELETE"},
)
"""Queue of patients that have to be compared with others. Triggers add each patient that is created or deleted, or of
which a compared field changes."""

duplicate_scans = Table("duplicate_scans", Base.metadata, Column("last_id", ID_TEXT, primary_key=True))
"""The id of the last patient that an unfinished scan of the register has compared. It has at most one row."""
