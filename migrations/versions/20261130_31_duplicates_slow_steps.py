"""Duplicates: an index of the beginnings of addresses."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_31"
down_revision = "20261130_30"

INDEX = "ix_patients_left_fold_patient_physical_address_8"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(INDEX, "patients", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            INDEX,
            "patients",
            [sa.text('"left"(fold(patient_physical_address), 8)')],
            if_not_exists=True,
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index(INDEX, "patients")
