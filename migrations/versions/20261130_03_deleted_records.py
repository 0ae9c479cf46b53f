"""An index of the deletions in the journal, for lists of deleted records."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_03"
down_revision = "20261130_02"

NAME = "ix_journal_resource_time_unique_id"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(op.f(NAME), "journal", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            op.f(NAME),
            "journal",
            ["resource", "time", "unique_id"],
            postgresql_where=sa.text("action = 'deleted'"),
            if_not_exists=True,
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index(op.f(NAME), "journal")
