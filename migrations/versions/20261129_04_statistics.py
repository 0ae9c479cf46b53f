"""No statistics of personal text that the planner never asks for: whoever may read a table reads values there too.

Before PostgreSQL 18 nobody but a superuser can remove statistics that are there. A column that has some keeps them, so
that `ANALYZE` goes on replacing them.
"""

from alembic import op

revision = "20261129_04"
down_revision = "20261129_03"

COLUMNS = {
    "audit": ("reason",),
    "idempotency_keys": ("path", "key", "fingerprint", "unique_id", "document"),
    "journal": ("reason", "salt", "hash"),
    "patients": (
        "patient_email_address",
        "patient_mobile_number",
        "patient_title",
        "patient_first_name",
        "patient_initials",
        "patient_last_name",
        "patient_race",
        "patient_physical_address",
        "patient_address_line_1",
        "patient_town",
        "patient_region",
        "patient_province",
        "patient_country",
        "patient_postal_code",
        "patient_latitude",
        "patient_longitude",
        "patient_access_medical_care",
    ),
    "profiles": ("email", "first_name", "last_name"),
}
"""Those of JSON are none of these: PostgreSQL keeps no values of it."""
STOP = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_stats WHERE schemaname = 'public' AND tablename = '{table}' AND attname = '{column}') THEN
        IF current_setting('server_version_num')::integer < 180000 THEN
            RETURN;
        END IF;
        PERFORM pg_clear_attribute_stats(schemaname, tablename, attname, inherited) FROM pg_stats
        WHERE schemaname = 'public' AND tablename = '{table}' AND attname = '{column}';
    END IF;
    ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS 0;
END $$
"""


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        for column in columns:
            op.execute(STOP.format(table=table, column=column))


def downgrade() -> None:
    for table, columns in COLUMNS.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS -1")
