"""The change feed: the changes that are not numbered yet, the numbered ones, and the hospitals that they concern.

A trigger of the journal adds a row to `changes_pending` for every entry, in the transaction of the change. When the
transaction has committed, a reader moves the row to `changes` and gives it the next position, with the database
function `number_changes`. Positions therefore follow the order in which changes become visible, so that a reader that
remembers the last position it saw misses nothing.
"""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Identity, Index, Table
from sqlalchemy.dialects.postgresql import ARRAY

from app.db.base import ID_TEXT, Base

MAX_AFFECTED_PATIENTS = 250
"""Maximum number of patients that a change with the action `affected` lists.

The list of their ids then fits into the 20 kB that webhooks should not exceed. The database function `number_changes`
has the same limit.
"""
NUMBERING_BATCH_SIZE = 5_000
"""Maximum number of changes that one call of `number_changes` numbers, which takes about a tenth of a second."""
NUMBERING_LOCK_KEY = 435_544_842_595
"""Key of the advisory lock under which changes are numbered and erased. `number_changes` contains the same number."""
ANY_HOSPITAL = ""
"""Value of `hospital_id` for a change that affects so many patients that their hospitals were not looked up."""

changes_pending = Table(
    "changes_pending",
    Base.metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("resource", ID_TEXT, nullable=False),
    Column("unique_id", ID_TEXT, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("erased_id", ID_TEXT),
    Column("erased_hospitals", ARRAY(ID_TEXT)),
    info={"serving_rights": "SELECT, DELETE, INSERT (resource, unique_id, version)"},
)
"""The changes that have no position yet, one row for each new journal entry, with the entry's key.

`id` increases with each version of a record, because a version is written under a lock of the record. By its index,
numbering takes the first rows without reading those that remain, of which a large import leaves millions.

The journal entry of an erasure has a token in place of the record's id. Its row therefore has the id in `erased_id`, so
that clients can erase their copies, and the ids of the hospitals that the patient was linked to.
"""

changes = Table(
    "changes",
    Base.metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("batch", BigInteger, nullable=False),
    Column("resource", ID_TEXT, nullable=False),
    Column("unique_id", ID_TEXT),
    Column("version", BigInteger, nullable=False),
    Column("action", ID_TEXT, nullable=False),
    Column("time", DateTime(timezone=True), nullable=False),
    Column("source", ID_TEXT),
    Index(None, "resource", "position"),
    info={"serving_rights": "SELECT, INSERT, DELETE"},
)
"""The numbered changes: the position, and the key, the action and the time of a journal entry.

`batch` is a random number that all changes have that were numbered together. A cursor contains the number of its
position. If the row at this position has another number, or is missing, then the database was restored from a backup,
or a server took over that did not have the row, or the row has expired.

If the action is `affected`, the change is about the patients that show a changed record. `unique_id` and `version` then
are those of this record, and `source` is its resource. `unique_id` is null if the record was erased later. The newest
row is never deleted, and there is one from the beginning, so that there always is a position to start from.
"""

hospital_changes = Table(
    "hospital_changes",
    Base.metadata,
    Column("hospital_id", ID_TEXT, primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("before", Boolean),
    Column("after", Boolean),
    Index(None, "position", postgresql_using="brin"),
    info={"serving_rights": "SELECT, INSERT, DELETE"},
)
"""The changes of each hospital's patients, which are all that principals restricted to this hospital get to know.

`before` and `after` say whether the patient was linked to the hospital before and after the change. They are null if
the patient did not exist then.
"""
