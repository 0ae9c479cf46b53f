from sqlalchemy import ARRAY, Column, DateTime, LargeBinary, Table, func

from app.db.base import HUMAN_TEXT, ID_TEXT, Base

api_keys = Table(
    "api_keys",
    Base.metadata,
    Column("name", HUMAN_TEXT, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("scopes", ARRAY(ID_TEXT), nullable=False),
    Column("hospitals", ARRAY(ID_TEXT)),
    Column("created", DateTime(timezone=True), nullable=False, server_default=func.statement_timestamp()),
    Column("expires", DateTime(timezone=True)),
    Column("revoked", DateTime(timezone=True)),
    Column("last_used", DateTime(timezone=True)),
    info={"serving_rights": "SELECT, UPDATE (last_used)"},
)
"""API keys of services. Only the SHA-256 digest of a key is stored. A name is never reused, because journal entries
identify an actor by the name of its key."""
