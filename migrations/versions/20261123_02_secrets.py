"""Secrets that all processes of the service share: the key of cursors."""

import sqlalchemy as sa
from alembic import op

revision = "20261123_02"
down_revision = "20261123_01"


def upgrade() -> None:
    op.create_table(
        "secrets",
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secrets")),
    )
    # 244 random bits, from PostgreSQL's strong source
    op.execute(
        """
        INSERT INTO secrets (name, value)
        SELECT 'cursors', sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
        """
    )


def downgrade() -> None:
    op.drop_table("secrets")
