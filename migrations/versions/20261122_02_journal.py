"""The journal, which takes the place of the ids that were not to be used again; answers to idempotent requests."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261122_02"
down_revision = "20261122_01"

APPEND_ONLY = """
CREATE FUNCTION refuse_journal_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'TRUNCATE' AND current_setting('patients.erasing', true) = 'yes' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'the journal is append-only'
        USING ERRCODE = 'insufficient_privilege', HINT = 'patients-api erase removes a person''s data.';
END
$$
"""
TRIGGER = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON journal
FOR EACH STATEMENT EXECUTE FUNCTION refuse_journal_change()
"""


def moment(column: str) -> str:
    """A moment in UTC with six digits or no fraction."""
    return f"""to_char(timezone('UTC', {column}), CASE WHEN {column} = date_trunc('second', {column})
        THEN 'YYYY-MM-DD"T"HH24:MI:SS"Z"' ELSE 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"' END) AS {column}"""


def ids(link: str, key: str) -> str:
    """The ids to which a patient is linked."""
    gathered = f"(SELECT json_agg({key} ORDER BY {key}) FROM {link} WHERE patient_id = patients.unique_id)"
    return f"coalesce({gathered}, '[]'::json) AS {key}s"


DATES = (moment("date_created"), moment("last_updated"))
RECORDS = {
    "hospitals": ("hospital_name", *DATES),
    "doctors": ("doctor_first_name", "doctor_last_name", *DATES),
    "profiles": ("email", "first_name", "last_name", *DATES),
    "patients": (
        "profile_id",
        "patient_email_address",
        "patient_mobile_number",
        "patient_title",
        "patient_first_name",
        "patient_initials",
        "patient_last_name",
        "patient_date_of_birth",
        "patient_gender",
        "patient_race",
        "patient_physical_address",
        "patient_address_line_1",
        "patient_town",
        "patient_region",
        "patient_province",
        "patient_country",
        "patient_postal_code",
        "patient_latitude::text",
        "patient_longitude::text",
        "patient_access_medical_care",
        *DATES,
        ids("patient_hospitals", "hospital_id"),
        ids("patient_doctors", "doctor_id"),
    ),
}


def upgrade() -> None:
    op.create_table(
        "journal",
        sa.Column("resource", sa.Text(collation="C"), nullable=False),
        sa.Column("unique_id", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("action", sa.Text(collation="C"), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("actor", sa.Text(collation="C"), nullable=False),
        sa.Column("request_id", sa.Text(collation="C"), nullable=True),
        sa.Column("reason", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("record", postgresql.JSON(), nullable=True),
        sa.CheckConstraint(
            "action IN ('created', 'updated', 'deleted', 'restored', 'erased')", name=op.f("ck_journal_action")
        ),
        sa.CheckConstraint("(record IS NULL) = (action IN ('deleted', 'erased'))", name=op.f("ck_journal_record")),
        sa.PrimaryKeyConstraint("resource", "unique_id", "version", name=op.f("pk_journal")),
    )
    # nothing may change between being copied and the journal being there
    op.execute(f"LOCK TABLE {', '.join(RECORDS)}, retired_ids IN SHARE ROW EXCLUSIVE MODE")
    # what was there before the journal enters it as it is now
    for resource, fields in RECORDS.items():
        op.execute(
            f"""
            INSERT INTO journal (resource, unique_id, version, action, time, actor, record)
            SELECT '{resource}', {resource}.unique_id, {resource}.version, 'created', {resource}.last_updated,
                'migration', json_strip_nulls(row_to_json(state))
            FROM {resource}, LATERAL (SELECT {", ".join(fields)}) AS state
            """
        )
    op.execute(
        """
        INSERT INTO journal (resource, unique_id, version, action, actor)
        SELECT resource, unique_id, 1, 'deleted', 'migration' FROM retired_ids
        """
    )
    op.execute(APPEND_ONLY)
    op.execute(TRIGGER)
    op.drop_table("retired_ids")
    op.create_table(
        "idempotency_keys",
        sa.Column("principal", sa.Text(collation="C"), nullable=False),
        sa.Column("method", sa.Text(collation="C"), nullable=False),
        sa.Column("path", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False),
        sa.Column("unique_id", sa.Text(collation="C"), nullable=True),
        sa.Column("document", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.PrimaryKeyConstraint("principal", "method", "path", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_time"), "idempotency_keys", ["time"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_idempotency_keys_time"), table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.create_table(
        "retired_ids",
        sa.Column("resource", sa.Text(collation="C"), nullable=False),
        sa.Column("unique_id", sa.Text(collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("resource", "unique_id", name=op.f("pk_retired_ids")),
    )
    op.execute(
        """
        INSERT INTO retired_ids (resource, unique_id)
        SELECT resource, unique_id FROM journal
        GROUP BY resource, unique_id
        HAVING (array_agg(action ORDER BY version DESC))[1] = 'deleted'
        """
    )
    op.drop_table("journal")
    op.execute("DROP FUNCTION refuse_journal_change()")
