from sqlalchemy import Column, LargeBinary, Table

from app.db.base import ID_TEXT, Base

service_secrets = Table(
    "secrets",
    Base.metadata,
    Column("name", ID_TEXT, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    info={"serving_rights": "SELECT"},
)
"""What all processes of the service have to know, and nobody else: `cursors`, the key of cursors."""
