from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    func,
    literal_column,
)
from sqlalchemy.dialects.postgresql import ARRAY

from app.db.base import HUMAN_TEXT, ID_TEXT, Base

WRITABLE_COLUMNS = ("principal", "method", "route", "status", "resource", "ids", "request_id", "reason", "version")
"""The columns that the service writes; the database sets the others."""

audit = Table(
    "audit",
    Base.metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("time", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("principal", ID_TEXT, nullable=False),
    Column("method", ID_TEXT, nullable=False),
    Column("route", ID_TEXT, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("resource", ID_TEXT, nullable=False),
    Column("ids", ARRAY(ID_TEXT), nullable=False),
    Column("request_id", ID_TEXT),
    Column("reason", HUMAN_TEXT),
    Column("version", BigInteger),
    PrimaryKeyConstraint("time", "id"),
    Index(None, "principal", "time", "id"),
    info={
        "serving_rights": f"SELECT, INSERT ({', '.join(WRITABLE_COLUMNS)})",
        "serving_function": "add_audit_months()",
    },
    postgresql_partition_by="RANGE (time)",
)
"""Every request for patients and profiles, with a row for each part of a list; triggers reject all but inserts.

A partition holds a month, so that old rows can be dropped; `add_audit_months()` adds the partitions needed next.

`ids` are the records that were shown or changed or, for a refused request, that it asked for; `resource` is their
resource. `version` is the version that the request created of a record, as in the journal; null if it changed nothing.
"""
IS_SINGLE_RECORD = func.cardinality(audit.c.ids) == literal_column("1")
HAS_MANY_RECORDS = func.cardinality(audit.c.ids) > literal_column("1")
# access to single records in the order of time: a page is an index range, however many there are; lists by their ids
Index("ix_audit_one", audit.c.ids[literal_column("1")], audit.c.time, audit.c.id, postgresql_where=IS_SINGLE_RECORD)
Index("ix_audit_many", audit.c.ids, postgresql_using="gin", postgresql_where=HAS_MANY_RECORDS)
