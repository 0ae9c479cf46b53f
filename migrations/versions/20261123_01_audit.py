"""The audit."""

import sqlalchemy as sa
from alembic import op

revision = "20261123_01"
down_revision = "20261122_03"

APPEND_ONLY = """
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'TRUNCATE' AND current_setting('patients.erasing', true) = 'yes' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'the audit is append-only'
        USING ERRCODE = 'insufficient_privilege', HINT = 'patients-api audit prune removes what is old.';
END
$$
"""
TRIGGER = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()
"""


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("principal", sa.Text(collation="C"), nullable=False),
        sa.Column("method", sa.Text(collation="C"), nullable=False),
        sa.Column("route", sa.Text(collation="C"), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("resource", sa.Text(collation="C"), nullable=False),
        sa.Column("ids", sa.ARRAY(sa.Text(collation="C")), nullable=False),
        sa.Column("request_id", sa.Text(collation="C"), nullable=True),
        sa.Column("reason", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(
        "ix_audit_many",
        "audit",
        ["ids"],
        unique=False,
        postgresql_using="gin",
        postgresql_where=sa.text("cardinality(ids) > 1"),
    )
    op.create_index(
        "ix_audit_one",
        "audit",
        [sa.literal_column("(ids[1])"), "time", "id"],
        unique=False,
        postgresql_where=sa.text("cardinality(ids) = 1"),
    )
    op.create_index(op.f("ix_audit_principal_time_id"), "audit", ["principal", "time", "id"], unique=False)
    op.create_index(op.f("ix_audit_time_id"), "audit", ["time", "id"], unique=False)
    op.execute(APPEND_ONLY)
    op.execute(TRIGGER)


def downgrade() -> None:
    op.drop_table("audit")
    op.execute("DROP FUNCTION refuse_audit_change()")
