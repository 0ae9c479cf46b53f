from sqlalchemy import Column, DateTime, LargeBinary, Table, func

from app.db.base import HUMAN_TEXT, ID_TEXT, Base

idempotency_keys = Table(
    "idempotency_keys",
    Base.metadata,
    Column("principal", ID_TEXT, primary_key=True),
    Column("method", ID_TEXT, primary_key=True),
    Column("path", ID_TEXT, primary_key=True),
    Column("key", ID_TEXT, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("time", DateTime(timezone=True), nullable=False, server_default=func.statement_timestamp(), index=True),
    Column("unique_id", ID_TEXT),
    Column("document", HUMAN_TEXT),
)
"""Responses to requests with an Idempotency-Key. The transaction of a request inserts a row first, and later adds the
response to this row."""
