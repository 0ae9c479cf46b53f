"""The words in the names of profiles, by which they can be searched as hospitals and doctors can.

The new column rewrites the table of profiles, which nobody can use meanwhile: a few seconds for a million.
"""

from alembic import op

revision = "20261130_12"
down_revision = "20261130_11"

COLUMN = "profile_search tsvector GENERATED ALWAYS AS (spellings(last_name, first_name, NULL, NULL)) STORED"
INDEX = "ix_profiles_profile_search"


def upgrade() -> None:
    op.execute(f"ALTER TABLE profiles ADD COLUMN IF NOT EXISTS {COLUMN}")
    with op.get_context().autocommit_block():
        op.drop_index(INDEX, "profiles", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            INDEX,
            "profiles",
            ["profile_search"],
            if_not_exists=True,
            postgresql_concurrently=True,
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
        )


def downgrade() -> None:
    op.drop_column("profiles", "profile_search")
