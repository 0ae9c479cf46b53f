"""The audit by month, so that what is old is dropped and not deleted; no row is moved, and nobody is held up for long.

What there is becomes the first partition, up to the beginning of a month that is at least a week away: a CHECK tells
PostgreSQL so beforehand, and holds until this revision is done. Should it give up for want of a lock, run it again
within that week.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "20261129_03"
down_revision = "20261129_02"

ENDS = """
DO $$
DECLARE
    ends timestamptz := timezone('UTC', date_trunc('month', timezone('UTC', now()) + interval '7 days' + interval '1 month'));
BEGIN
    EXECUTE format('ALTER TABLE public.audit ADD CONSTRAINT ck_audit_before CHECK (time < %L) NOT VALID', ends);
END $$
"""
ATTACH = """
DO $$
DECLARE
    ends text := (
        SELECT substring(pg_get_constraintdef(oid) FROM '''([^'']+)''') FROM pg_constraint
        WHERE conname = 'ck_audit_before' AND conrelid = 'public.audit_before'::regclass
    );
BEGIN
    EXECUTE format(
        'ALTER TABLE public.audit ATTACH PARTITION public.audit_before FOR VALUES FROM (MINVALUE) TO (%L)', ends
    );
    ALTER TABLE public.audit_before DROP CONSTRAINT ck_audit_before;
END $$
"""
# who is no owner may have months added, and nothing else of it: hence the fixed search_path, and no parameter
ADD_MONTHS = r"""
CREATE FUNCTION public.add_audit_months() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '1s'
AS $$
DECLARE
    needed_until timestamptz := date_trunc('month', clock_timestamp()) + interval '4 months';
    begins timestamptz;
    ends timestamptz;
    month text;
    others text;
    added integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(418564368756) THEN -- another process is at it
        RETURN added;
    END IF;
    SELECT coalesce(
        max(CAST(substring(pg_get_expr(relpartbound, oid) FROM 'TO \(''([^'']+)''\)') AS timestamptz)),
        date_trunc('month', clock_timestamp())
    )
    INTO begins
    FROM pg_inherits JOIN pg_class ON oid = inhrelid
    WHERE inhparent = 'public.audit'::regclass;
    IF begins >= needed_until THEN
        RETURN added;
    END IF;
    -- attaching needs it too; rows that come meanwhile to a month that is missing wait for this
    LOCK TABLE public.audit_default IN ACCESS EXCLUSIVE MODE;
    WHILE begins < needed_until LOOP
        ends := begins + interval '1 month';
        month := to_char(begins, '"audit_"YYYY_MM');
        -- not PARTITION OF, which would lock out all who read and write
        EXECUTE format('CREATE TABLE public.%I (LIKE public.audit INCLUDING DEFAULTS INCLUDING INDEXES)', month);
        FOR others IN
            SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
            FROM pg_class, aclexplode(relacl) WHERE oid = to_regclass(format('public.%I', month)) AND grantee <> relowner
        LOOP
            EXECUTE format('REVOKE ALL ON public.%I FROM %s', month, others); -- what default privileges give
        END LOOP;
        PERFORM set_config('patients.erasing', 'yes', true);
        EXECUTE format(
            'WITH moved AS (DELETE FROM public.audit_default WHERE time >= $1 AND time < $2 RETURNING *)'
            ' INSERT INTO public.%I SELECT * FROM moved',
            month
        ) USING begins, ends;
        PERFORM set_config('patients.erasing', '', true);
        EXECUTE format(
            'CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON public.%I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_audit_change()',
            month
        );
        EXECUTE format(
            'ALTER TABLE public.audit ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', month, begins, ends
        );
        begins := ends;
        added := added + 1;
    END LOOP;
    RETURN added;
END $$
"""
RIGHTS = """
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT privilege_type AS kind, NULL AS of_column, grantee
        FROM pg_class, aclexplode(relacl) WHERE oid = 'public.{old}'::regclass AND grantee <> relowner
        UNION ALL
        SELECT privilege_type, format('(%I)', attname), grantee
        FROM pg_attribute, aclexplode(attacl) WHERE attrelid = 'public.{old}'::regclass
    LOOP
        EXECUTE format(
            'GRANT %1$s %2$s ON public.{new} TO %3$s; REVOKE %1$s %2$s ON public.{old} FROM %3$s',
            given.kind,
            given.of_column,
            CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(given.grantee)) END
        );
    END LOOP;
END $$
"""
MAY_ADD_MONTHS = """
DO $$
DECLARE
    role oid;
BEGIN
    REVOKE ALL ON FUNCTION public.add_audit_months() FROM PUBLIC;
    FOR role IN
        SELECT DISTINCT grantee FROM pg_attribute, aclexplode(attacl)
        WHERE attrelid = 'public.audit'::regclass AND privilege_type = 'INSERT' AND grantee <> 0
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION public.add_audit_months() TO %I', pg_get_userbyid(role));
    END LOOP;
END $$
"""
TRIGGER = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()
"""
INDEXES = ("ix_audit_many", "ix_audit_one", "ix_audit_principal_time_id")


def upgrade() -> None:
    op.execute("ALTER TABLE audit DROP CONSTRAINT IF EXISTS ck_audit_before")
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS pk_audit_before")
        op.execute("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS pk_audit_before ON audit (time, id)")
        op.execute(ENDS)
        op.execute("ALTER TABLE audit VALIDATE CONSTRAINT ck_audit_before")
    op.execute("ALTER TABLE audit RENAME TO audit_before")
    op.execute("ALTER SEQUENCE audit_id_seq RENAME TO audit_before_id_seq")
    for index in INDEXES:
        op.execute(f"ALTER INDEX {index} RENAME TO {index.replace('audit', 'audit_before')}")
    op.execute("DROP INDEX ix_audit_time_id")
    op.execute("ALTER TABLE audit_before DROP CONSTRAINT pk_audit")
    op.execute("ALTER TABLE audit_before ADD CONSTRAINT pk_audit_before PRIMARY KEY USING INDEX pk_audit_before")
    _create(("time", "id"), postgresql_partition_by="RANGE (time)")
    op.execute("SELECT setval('audit_id_seq', last_value, is_called) FROM audit_before_id_seq")
    op.execute("ALTER TABLE audit_before ALTER id DROP IDENTITY")
    op.execute(TRIGGER.format(table="audit"))
    op.execute(RIGHTS.format(old="audit_before", new="audit"))
    op.execute(ATTACH)
    op.execute("CREATE TABLE audit_default (LIKE audit INCLUDING DEFAULTS INCLUDING INDEXES)")
    op.execute(TRIGGER.format(table="audit_default"))
    op.execute("ALTER TABLE audit ATTACH PARTITION audit_default DEFAULT")
    op.execute(ADD_MONTHS)
    op.execute(MAY_ADD_MONTHS)
    op.execute("SELECT add_audit_months()")


def downgrade() -> None:
    op.execute("DROP FUNCTION add_audit_months()")
    op.execute("ALTER TABLE audit RENAME TO audit_by_month")
    op.execute("ALTER SEQUENCE audit_id_seq RENAME TO audit_by_month_id_seq")
    for index in ("pk_audit", *INDEXES):
        op.execute(f"ALTER INDEX {index} RENAME TO {index.replace('audit', 'audit_by_month')}")
    _create(("id",))
    op.create_index(op.f("ix_audit_time_id"), "audit", ["time", "id"])
    op.execute("INSERT INTO audit OVERRIDING SYSTEM VALUE SELECT * FROM audit_by_month")
    op.execute("SELECT setval('audit_id_seq', last_value, is_called) FROM audit_by_month_id_seq")
    op.execute(TRIGGER.format(table="audit"))
    op.execute(RIGHTS.format(old="audit_by_month", new="audit"))
    op.drop_table("audit_by_month")


def _create(key: Sequence[str], **options: Any) -> None:
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
        sa.PrimaryKeyConstraint(*key, name=op.f("pk_audit")),
        **options,
    )
    many, one = (sa.text(f"cardinality(ids) {sign} 1") for sign in (">", "="))
    op.create_index("ix_audit_many", "audit", ["ids"], postgresql_using="gin", postgresql_where=many)
    op.create_index("ix_audit_one", "audit", [sa.literal_column("(ids[1])"), "time", "id"], postgresql_where=one)
    op.create_index(op.f("ix_audit_principal_time_id"), "audit", ["principal", "time", "id"])
