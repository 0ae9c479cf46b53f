from sqlalchemy import Column, LargeBinary, Table

from app.db.base import ID_TEXT, Base

service_secrets = Table(
    "secrets",
    Base.metadata,
    Column("name", ID_TEXT, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    info={"serving_rights": "SELECT"},
)
"""Secrets that only the processes of the service use. The secret named `cursors` is the key that encrypts and
authenticates pagination cursors."""
