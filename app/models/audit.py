from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, SmallInteger, Table, func
from sqlalchemy.dialects.postgresql import ARRAY

from app.db.base import ID, PEOPLE_TEXT, Base

audit = Table(
    "audit",
    Base.metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("time", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("principal", ID, nullable=False),
    Column("method", ID, nullable=False),
    Column("route", ID, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("resource", ID, nullable=False),
    Column("ids", ARRAY(ID), nullable=False),
    Column("request_id", ID),
    Column("reason", PEOPLE_TEXT),
    Index(None, "principal", "id"),
    Index(None, "ids", postgresql_using="gin"),
    # rows come in the order of time, nearly: a range of pages for a range of time takes next to no place
    Index(None, "time", postgresql_using="brin"),
    info={
        "serving_rights": "SELECT, INSERT (principal, method, route, status, resource, ids, request_id, reason)",
    },
)
"""Every request for patients and profiles, and a row for each part of a list; triggers refuse all but inserts.

`resource` says of what `ids` are: those that were shown or changed, or of a refused request, that it asked for.
"""
