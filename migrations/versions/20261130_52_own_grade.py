"""Duplicates: the grade that two records have by themselves, which restricted principals get.

The planner keeps no statistics of reasons, which people write, and of what is never filtered.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261130_52"
down_revision = "20261130_51"

COLUMNS_WITHOUT_STATISTICS = ("reason", "fingerprint", "agrees", "differs")


def upgrade() -> None:
    op.add_column("duplicates", sa.Column("own_grade", sa.Text(collation="C"), nullable=True))
    op.execute("UPDATE duplicates SET own_grade = grade WHERE through_id IS NULL")
    for column in COLUMNS_WITHOUT_STATISTICS:
        op.execute(f"ALTER TABLE duplicates ALTER COLUMN {column} SET STATISTICS 0")


def downgrade() -> None:
    for column in COLUMNS_WITHOUT_STATISTICS:
        op.execute(f"ALTER TABLE duplicates ALTER COLUMN {column} SET STATISTICS DEFAULT")
    op.drop_column("duplicates", "own_grade")
