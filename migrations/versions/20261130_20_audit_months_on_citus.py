"""Months can be added to an audit that is distributed over the workers of Citus. Elsewhere, nothing changes.

Attaching a month to a distributed audit distributes it, with its trigger, which Citus has to be told to accept. Citus
has no DELETE within an INSERT, and passes on to its workers what SET LOCAL sets, but not what set_config does.
"""

from alembic import op

revision = "20261130_20"
down_revision = "20261130_12"

ADD_MONTHS = r"""
CREATE OR REPLACE FUNCTION public.add_audit_months() RETURNS integer
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
    IF current_setting('citus.version', true) IS NOT NULL THEN
        -- one connection to each worker: the reads below would otherwise be in the way of attaching
        PERFORM set_config('citus.enable_unsafe_triggers', 'on', true),
            set_config('citus.multi_shard_modify_mode', 'sequential', true),
            set_config('citus.propagate_set_commands', 'local', true);
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
        PERFORM FROM public.audit_default WHERE time >= begins AND time < ends LIMIT 1;
        IF FOUND THEN
            EXECUTE format(
                'INSERT INTO public.%I SELECT * FROM public.audit_default WHERE time >= $1 AND time < $2', month
            ) USING begins, ends;
            SET LOCAL patients.erasing = 'yes';
            DELETE FROM public.audit_default WHERE time >= begins AND time < ends;
            SET LOCAL patients.erasing = '';
        END IF;
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


def upgrade() -> None:
    op.execute(ADD_MONTHS)


def downgrade() -> None:
    pass  # what the function does without Citus is the same as before
