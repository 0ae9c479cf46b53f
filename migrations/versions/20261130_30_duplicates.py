"""Duplicates: pairs of patients that may be one person, and the queue of patients that have to be compared.

Triggers fill the queue with the rights of the tables' owner, so that an older version of the service, whose role has no
rights to the queue, can still write patients.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261130_30"
down_revision = "20261130_20"

COMPARED = (
    "patient_first_name",
    "patient_initials",
    "patient_last_name",
    "patient_date_of_birth",
    "patient_gender",
    "patient_mobile_number",
    "patient_email_address",
    "patient_physical_address",
    "patient_address_line_1",
    "patient_town",
    "patient_postal_code",
    "patient_province",
)
_TRIGGER = "RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS"
_NEVER = "current_setting('patients.compare_patients', true) = 'never'"
"""An import with `--duplicates ignore` says so."""
FUNCTIONS = {
    "compare_written_patients()": f"""
    CREATE FUNCTION public.compare_written_patients() {_TRIGGER} $$
    BEGIN
        IF {_NEVER} THEN
            RETURN NULL;
        END IF;
        INSERT INTO public.pending_comparisons SELECT unique_id FROM written;
        RETURN NULL;
    END $$
    """,
    "compare_changed_patient()": f"""
    CREATE FUNCTION public.compare_changed_patient() {_TRIGGER} $$
    BEGIN
        IF {_NEVER} THEN
            RETURN NULL;
        END IF;
        INSERT INTO public.pending_comparisons VALUES (NEW.unique_id);
        RETURN NULL;
    END $$
    """,
}
_CHANGED = " OR ".join(f"OLD.{name} IS DISTINCT FROM NEW.{name}" for name in COMPARED)
TRIGGERS = {
    "compare_after_insert": "AFTER INSERT ON patients REFERENCING NEW TABLE AS written "
    "FOR EACH STATEMENT EXECUTE FUNCTION compare_written_patients()",
    "compare_after_delete": "AFTER DELETE ON patients REFERENCING OLD TABLE AS written "
    "FOR EACH STATEMENT EXECUTE FUNCTION compare_written_patients()",
    # row by row, since most updates change no compared field
    "compare_after_update": f"AFTER UPDATE ON patients FOR EACH ROW WHEN ({_CHANGED}) "
    "EXECUTE FUNCTION compare_changed_patient()",
}


def upgrade() -> None:
    id_text = sa.Text(collation="C")
    op.create_table(
        "duplicates",
        sa.Column("unique_id", id_text, nullable=False),
        sa.Column("one_id", id_text, nullable=False),
        sa.Column("other_id", id_text, nullable=False),
        sa.Column("grade", id_text, nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("agrees", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("differs", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("through_id", id_text, nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("status", id_text, server_default="open", nullable=False),
        sa.Column("found", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False),
        sa.Column("reason", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.CheckConstraint("one_id < other_id", name=op.f("ck_duplicates_order")),
        sa.CheckConstraint("grade IN ('certain', 'probable', 'possible')", name=op.f("ck_duplicates_grade")),
        sa.CheckConstraint("status IN ('open', 'dismissed', 'merged')", name=op.f("ck_duplicates_status")),
        sa.CheckConstraint("char_length(reason) <= 500", name=op.f("ck_duplicates_reason_length")),
        sa.PrimaryKeyConstraint("unique_id", name=op.f("pk_duplicates")),
    )
    op.create_index("uq_duplicates_one_id_other_id", "duplicates", ["one_id", "other_id"], unique=True)
    op.create_index(op.f("ix_duplicates_other_id"), "duplicates", ["other_id"])
    op.create_index(op.f("ix_duplicates_through_id"), "duplicates", ["through_id"])
    op.create_index(op.f("ix_duplicates_status_score_unique_id"), "duplicates", ["status", "score", "unique_id"])
    op.create_table("pending_comparisons", sa.Column("patient_id", id_text, nullable=False))
    op.create_index(op.f("ix_pending_comparisons_patient_id"), "pending_comparisons", ["patient_id"])
    op.create_table(
        "duplicate_scans",
        sa.Column("last_id", id_text, nullable=False),
        sa.PrimaryKeyConstraint("last_id", name=op.f("pk_duplicate_scans")),
    )
    for signature, function in FUNCTIONS.items():
        op.execute(function)
        op.execute(f"REVOKE EXECUTE ON FUNCTION {signature} FROM PUBLIC")
    for name, trigger in TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {name} {trigger}")


def downgrade() -> None:
    for name in TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON patients")
    for signature in FUNCTIONS:
        op.execute(f"DROP FUNCTION {signature}")
    for table in ("duplicate_scans", "pending_comparisons", "duplicates"):
        op.drop_table(table)
