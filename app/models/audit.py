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
"""Columns of the audit table that the service writes. The database sets the other columns."""

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
"""The audit of all requests for patients and profiles. Triggers reject every change to the table except inserts.

A list response that is sent in parts has one row for each part. Each partition contains the rows of one month, so that
old rows can be removed by dropping their partition. The database function `add_audit_months()` adds the partitions that
are needed next.

`ids` contains the ids of the records that the request showed or changed. For a refused request, it contains the ids of
the records that the request asked for. `resource` is the resource of these records. `version` is the new version of the
record after the change, the same as in the journal. It is null if the request changed nothing.
"""
IS_SINGLE_RECORD = func.cardinality(audit.c.ids) == literal_column("1")
HAS_MANY_RECORDS = func.cardinality(audit.c.ids) > literal_column("1")
# Rows about a single record are indexed by record and time, so that a page of them is one range of the index, however
# many rows there are. Rows about several records are indexed by each of their ids.
Index("ix_audit_one", audit.c.ids[literal_column("1")], audit.c.time, audit.c.id, postgresql_where=IS_SINGLE_RECORD)
Index("ix_audit_many", audit.c.ids, postgresql_using="gin", postgresql_where=HAS_MANY_RECORDS)
