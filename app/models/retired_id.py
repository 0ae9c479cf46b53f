from sqlalchemy import Column, Table, Text

from app.db.base import ID, Base

retired_ids = Table(
    "retired_ids",
    Base.metadata,
    Column("resource", Text(collation="C"), primary_key=True),
    Column("unique_id", ID, primary_key=True),
)
"""Ids of deleted records. An id once used never returns: two people must not share a history."""
