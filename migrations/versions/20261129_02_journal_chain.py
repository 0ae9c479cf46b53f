"""The journal as a hash chain: each entry has a hash of its content and of the record's entry before it.

A trigger chains what is written from now on. Older entries are chained a thousand in a transaction, while everybody
reads and writes: about a minute for a million. It can be cut off and run again. Each of them is written anew, so the
table may grow to twice its size until it is vacuumed.
"""

from alembic import op

revision = "20261129_02"
down_revision = "20261129_01"

CONTENT = """
CREATE OR REPLACE FUNCTION public.journal_content(
    salt uuid, resource text, unique_id text, version bigint, action text, "time" timestamptz, actor text,
    request_id text, reason text, record json, erasure json
) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE
RETURN sha256(convert_to(json_build_array(
    salt, resource, unique_id, version, action, (extract(epoch FROM "time") * 1000000)::bigint, actor,
    request_id, reason, erasure::text
)::text || coalesce(record::text, ''), 'UTF8'))
"""
CHAIN = """
CREATE OR REPLACE FUNCTION public.chain_journal_entry() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    newest bigint;
    previous bytea;
BEGIN
    -- only the owner may update: whoever may not is the service, and writes for those who can ask it
    IF NOT has_table_privilege(TG_RELID, 'UPDATE') AND (NEW.action = 'erased' OR NOT (
        NEW.actor IN ('local', 'demo') OR starts_with(NEW.actor, 'oidc:') OR starts_with(NEW.actor, 'key:')
        AND EXISTS (SELECT FROM public.api_keys WHERE name = substr(NEW.actor, 5) COLLATE pg_c_utf8)
    )) THEN
        RAISE EXCEPTION 'this role writes no such entry'
            USING ERRCODE = 'insufficient_privilege', HINT = 'The actor is local, oidc:… or a key that exists.';
    END IF;
    SELECT version, hash INTO newest, previous FROM public.journal
    WHERE resource = NEW.resource AND unique_id = NEW.unique_id ORDER BY version DESC LIMIT 1;
    IF NOT FOUND THEN
        previous := '';
    ELSIF NEW.version <> newest + 1 AND NOT EXISTS (
        -- of a version that is there, the primary key decides
        SELECT FROM public.journal
        WHERE resource = NEW.resource AND unique_id = NEW.unique_id AND version = NEW.version
    ) THEN
        RAISE EXCEPTION 'the journal goes on with version %', newest + 1
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    NEW.salt := gen_random_uuid();
    -- where the entry before it is not chained yet, it has none: the migration chains both
    NEW.hash := sha256(previous || public.journal_content(
        NEW.salt, NEW.resource, NEW.unique_id, NEW.version, NEW.action, NEW.time, NEW.actor, NEW.request_id,
        NEW.reason, NEW.record, NEW.erasure
    ));
    RETURN NEW;
END $$
"""
TRIGGER = """
CREATE OR REPLACE TRIGGER chain BEFORE INSERT ON journal FOR EACH ROW EXECUTE FUNCTION chain_journal_entry()
"""
CHAIN_OLDER = """
DO $$
DECLARE
    entry record;
    resource_ text := '';
    unique_id_ text := '';
    version_ bigint := 0;
    salt_ uuid;
BEGIN
    {before}
    LOOP
        PERFORM set_config('patients.erasing', 'yes', true), set_config('enable_sort', 'off', true);
        FOR entry IN
            SELECT resource, unique_id, version FROM journal
            WHERE hash IS NULL AND (resource, unique_id, version) > (resource_, unique_id_, version_)
            ORDER BY resource, unique_id, version LIMIT 1000
        LOOP
            resource_ := entry.resource;
            unique_id_ := entry.unique_id;
            version_ := entry.version;
            salt_ := gen_random_uuid();
            UPDATE journal
            SET salt = salt_, hash = sha256(
                coalesce((
                    SELECT earlier.hash FROM journal earlier
                    WHERE earlier.resource = resource_ AND earlier.unique_id = unique_id_
                        AND earlier.version < version_
                    ORDER BY earlier.version DESC LIMIT 1
                ), '')
                || journal_content(
                    salt_, resource, unique_id, version, action, time, actor, request_id, reason, record, erasure
                )
            )
            WHERE resource = resource_ AND unique_id = unique_id_ AND version = version_;
        END LOOP;
        EXIT WHEN NOT FOUND;
        {after}
    END LOOP;
    {end}
END $$
"""
LEFT = "ix_journal_unchained"
"""An index of what was written meanwhile, so that chaining it under a lock takes a moment."""


def upgrade() -> None:
    for column in ("salt uuid", "hash bytea", "erasure json"):
        op.execute(f"ALTER TABLE journal ADD COLUMN IF NOT EXISTS {column}")
    op.execute(CONTENT)
    op.execute(CHAIN)
    op.execute(TRIGGER)
    with op.get_context().autocommit_block():
        op.execute(CHAIN_OLDER.format(before="", after="COMMIT;", end=""))
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {LEFT}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {LEFT} ON journal (resource, unique_id, version)"
            " WHERE hash IS NULL"
        )
        op.execute("ALTER TABLE journal DROP CONSTRAINT IF EXISTS ck_journal_hash")
        op.execute(
            CHAIN_OLDER.format(
                # all who have written an entry without a hash have ended, and nobody begins
                before="LOCK TABLE journal IN ACCESS EXCLUSIVE MODE;",
                after="",
                end="ALTER TABLE journal ADD CONSTRAINT ck_journal_hash CHECK (hash IS NOT NULL) NOT VALID;",
            )
        )
        op.execute("ALTER TABLE journal VALIDATE CONSTRAINT ck_journal_hash")
        op.execute("ALTER TABLE journal ALTER COLUMN hash SET NOT NULL")
        op.execute("ALTER TABLE journal DROP CONSTRAINT IF EXISTS ck_journal_hash")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {LEFT}")


def downgrade() -> None:
    op.execute("DROP TRIGGER chain ON journal")
    op.execute("DROP FUNCTION chain_journal_entry()")
    op.execute(
        "DROP FUNCTION journal_content(uuid, text, text, bigint, text, timestamptz, text, text, text, json, json)"
    )
    for column in ("erasure", "hash", "salt"):
        op.drop_column("journal", column)
