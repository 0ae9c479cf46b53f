"""Merges: an entry of the journal can say that its record was merged with another one, or that this was undone.

Its hash covers this. Entries without a merge have the same hash as before.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261130_50"
down_revision = "20261130_40"

CONTENT = """
CREATE FUNCTION public.journal_content(
    salt uuid, resource text, unique_id text, version bigint, action text, "time" timestamptz, actor text,
    request_id text, reason text, record json, erasure json, merge json
) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE
RETURN sha256(convert_to((CASE WHEN merge IS NULL
    THEN json_build_array(
        salt, resource, unique_id, version, action, (extract(epoch FROM "time") * 1000000)::bigint, actor,
        request_id, reason, erasure::text
    )
    ELSE json_build_array(
        salt, resource, unique_id, version, action, (extract(epoch FROM "time") * 1000000)::bigint, actor,
        request_id, reason, erasure::text, merge::text
    ) END)::text || coalesce(record::text, ''), 'UTF8'))
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
    NEW.hash := sha256(previous || public.journal_content(
        NEW.salt, NEW.resource, NEW.unique_id, NEW.version, NEW.action, NEW.time, NEW.actor, NEW.request_id,
        NEW.reason, NEW.record, NEW.erasure{merge}
    ));
    RETURN NEW;
END $$
"""
ACTIONS = "'created', 'updated', 'deleted', 'restored', 'erased'"


def replace_checks(actions: str, without_record: str, without_merge: str | None) -> None:
    """Replace the checks of the journal. Existing entries meet them, and are checked in the next revision."""
    for name, condition in (
        ("ck_journal_action", f"action IN ({actions})"),
        ("ck_journal_record", f"(record IS NULL) = (action IN ({without_record}))"),
    ):
        op.execute(f"ALTER TABLE journal DROP CONSTRAINT {name}")
        op.create_check_constraint(op.f(name), "journal", condition, postgresql_not_valid=True)
    if without_merge is not None:
        op.create_check_constraint(op.f("ck_journal_merge"), "journal", without_merge, postgresql_not_valid=True)


def upgrade() -> None:
    op.add_column("journal", sa.Column("merge", postgresql.JSON(), nullable=True))
    replace_checks(
        f"{ACTIONS}, 'merged', 'unmerged'",
        "'deleted', 'erased', 'merged'",
        "merge IS NOT NULL OR action NOT IN ('merged', 'unmerged')",
    )
    op.execute(CONTENT)
    op.execute(CHAIN.format(merge=", NEW.merge"))


def downgrade() -> None:
    op.execute(CHAIN.format(merge=""))
    op.execute(
        "DROP FUNCTION journal_content(uuid, text, text, bigint, text, timestamptz, text, text, text, json, json, json)"
    )
    op.execute("ALTER TABLE journal DROP CONSTRAINT ck_journal_merge")
    replace_checks(ACTIONS, "'deleted', 'erased'", None)
    op.drop_column("journal", "merge")
