"""Merges: the checks of the journal are valid for older entries too, and merged records have an index."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_51"
down_revision = "20261130_50"

CHECKS = ("ck_journal_action", "ck_journal_record", "ck_journal_merge")
INDEX = "ix_journal_merged"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name in CHECKS:
            op.execute(f"ALTER TABLE journal VALIDATE CONSTRAINT {name}")
        op.drop_index(INDEX, "journal", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            INDEX,
            "journal",
            ["resource", "time", "unique_id"],
            postgresql_where=sa.text("action = 'merged'"),
            if_not_exists=True,
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index(INDEX, "journal")
