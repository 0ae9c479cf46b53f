"""An index of the journal's entries with a merge: FHIR resources name the patients that were merged into them."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_60"
down_revision = "20261130_52"

INDEX = "ix_journal_merges"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(INDEX, "journal", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            INDEX,
            "journal",
            ["resource", "unique_id"],
            postgresql_where=sa.text("merge IS NOT NULL"),
            if_not_exists=True,
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index(INDEX, "journal")
