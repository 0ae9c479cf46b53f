"""An index of words of names by the time at which they were added, by which processes find those that are new."""

from alembic import op

revision = "20261130_75"
down_revision = "20261130_60"

INDEX = "ix_name_words_since"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(INDEX, "name_words", if_exists=True, postgresql_concurrently=True)
        op.create_index(INDEX, "name_words", ["since"], if_not_exists=True, postgresql_concurrently=True)


def downgrade() -> None:
    op.drop_index(INDEX, "name_words")
