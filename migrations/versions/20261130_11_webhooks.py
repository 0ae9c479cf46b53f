"""The endpoints of webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_11"
down_revision = "20261130_10"


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("unique_id", sa.Text(collation="C"), nullable=False),
        sa.Column("url", sa.Text(collation="pg_c_utf8"), nullable=False),
        sa.Column("events", sa.ARRAY(sa.Text(collation="C")), nullable=False),
        sa.Column("hospitals", sa.ARRAY(sa.Text(collation="C")), nullable=True),
        sa.Column(
            "created", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("previous_secret", sa.LargeBinary(), nullable=True),
        sa.Column("previous_secret_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("state", sa.Text(collation="C"), server_default="active", nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "next_attempt", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.Column("last_delivery", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(collation="C"), nullable=True),
        sa.Column("leased_by", sa.Text(collation="C"), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('active', 'paused', 'failed', 'gone', 'expired')", name=op.f("ck_webhooks_state")
        ),
        sa.PrimaryKeyConstraint("unique_id", name=op.f("pk_webhooks")),
    )


def downgrade() -> None:
    op.drop_table("webhooks")
