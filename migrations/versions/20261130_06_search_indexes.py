"""Indexes for the search: words by how they sound, and the ends of mobile numbers, e-mail addresses and ids."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "20261130_06"
down_revision = "20261130_05"

GIN: dict[str, Any] = {"postgresql_using": "gin", "postgresql_with": {"fastupdate": "off"}}
# all reverse by code points and compare by bytes, so that the end of a value is the beginning of a key
INDEXES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("ix_name_words_extensions_daitch_mokotoff_word", "name_words", "extensions.daitch_mokotoff(word)", GIN),
    ("ix_patients_reverse_patient_mobile_digits", "patients", "reverse(patient_mobile_digits)", {}),
    ("ix_patients_reverse_patient_email_address_folded", "patients", "reverse(patient_email_address_folded)", {}),
    ("ix_patients_reverse_lower_unique_id", "patients", "reverse(lower(unique_id))", {}),
]


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, table, key, options in INDEXES:
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
            op.create_index(name, table, [sa.text(key)], if_not_exists=True, postgresql_concurrently=True, **options)


def downgrade() -> None:
    for name, table, _, _ in INDEXES:
        op.drop_index(name, table)
