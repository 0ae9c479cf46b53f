from sqlalchemy import Column, DateTime, LargeBinary, Table, func

from app.db.base import ID, PEOPLE_TEXT, Base

idempotency_keys = Table(
    "idempotency_keys",
    Base.metadata,
    Column("principal", ID, primary_key=True),
    Column("method", ID, primary_key=True),
    Column("path", ID, primary_key=True),
    Column("key", ID, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("time", DateTime(timezone=True), nullable=False, server_default=func.statement_timestamp(), index=True),
    Column("unique_id", ID),
    Column("document", PEOPLE_TEXT),
)
"""Answers to requests that carried an Idempotency-Key. Within its transaction a row is there before its answer is."""
