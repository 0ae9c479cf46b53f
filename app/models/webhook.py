from sqlalchemy import ARRAY, BigInteger, CheckConstraint, Column, DateTime, LargeBinary, Table, func

from app.db.base import HUMAN_TEXT, ID_TEXT, Base

webhooks = Table(
    "webhooks",
    Base.metadata,
    Column("unique_id", ID_TEXT, primary_key=True),
    Column("url", HUMAN_TEXT, nullable=False),
    Column("events", ARRAY(ID_TEXT), nullable=False),
    Column("hospitals", ARRAY(ID_TEXT)),
    Column("created", DateTime(timezone=True), nullable=False, server_default=func.statement_timestamp()),
    Column("secret", LargeBinary, nullable=False),
    Column("previous_secret", LargeBinary),
    Column("previous_secret_until", DateTime(timezone=True)),
    Column("state", ID_TEXT, nullable=False, server_default="active"),
    Column("position", BigInteger, nullable=False),
    Column("batch", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False, server_default="0"),
    Column("next_attempt", DateTime(timezone=True), nullable=False, server_default=func.statement_timestamp()),
    Column("last_delivery", DateTime(timezone=True)),
    Column("last_error", ID_TEXT),
    Column("leased_by", ID_TEXT),
    Column("leased_until", DateTime(timezone=True)),
    CheckConstraint("state IN ('active', 'paused', 'failed', 'gone', 'expired')", name="state"),
    info={
        "serving_rights": "SELECT, UPDATE (state, position, batch, failures, next_attempt, last_delivery, last_error, "
        "leased_by, leased_until)"
    },
)
"""The endpoints to which the service sends changes. Only commands, which run as the owner of the tables, add endpoints
and change their URLs and secrets.

`position` and `batch` are the position of the last change in the feed that was delivered or does not match `events`.
`state` says why nothing is sent: an operator has `paused` the endpoint, its last retry has `failed`, it responded that
it is `gone`, or the changes after its position have `expired`. `failures` counts the failed attempts of the change that
is to be delivered, and `last_error` is a code that says what went wrong; responses are not stored.

The process that delivers holds a lease: `leased_by` identifies it, and until `leased_until` no other process delivers.
The secrets are stored as they are, because signing needs them; a key to encrypt them would be stored beside them.
"""
