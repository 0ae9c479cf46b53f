"""The change feed: a trigger of the journal notes each new entry, and a function gives positions to committed ones."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_10"
down_revision = "20261130_06"

NOTE = """
CREATE FUNCTION public.note_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.changes_pending (resource, unique_id, version)
    SELECT resource, unique_id, version FROM entries;
    RETURN NULL;
END $$
"""
TRIGGER = """
CREATE TRIGGER note_changes AFTER INSERT ON journal REFERENCING NEW TABLE AS entries
FOR EACH STATEMENT EXECUTE FUNCTION note_changes()
"""
# a function, because its statements, unlike one statement, see what was committed until the lock was acquired
NUMBER = """
CREATE FUNCTION public.number_changes(max_changes integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    newest bigint;
    batch_ bigint := hashtextextended(gen_random_uuid()::text, 0);
    numbered_changes integer;
BEGIN
    IF NOT pg_try_advisory_xact_lock(435544842595) THEN -- another reader is numbering them
        RETURN NULL;
    END IF;
    SELECT position INTO newest FROM public.changes ORDER BY position DESC LIMIT 1;
    WITH taken AS (
        DELETE FROM public.changes_pending
        WHERE ctid = ANY (ARRAY(SELECT ctid FROM public.changes_pending ORDER BY id LIMIT max_changes))
        RETURNING *
    ), change AS (
        SELECT taken.id, taken.resource, coalesce(taken.erased_id, taken.unique_id) AS unique_id, taken.version,
            entry.action, entry.time,
            earlier.record IS NOT NULL AND entry.record IS NOT NULL AS is_update,
            CASE WHEN taken.resource = 'patients' THEN coalesce(taken.erased_hospitals, CASE
                WHEN earlier.record IS NOT NULL
                THEN ARRAY(SELECT json_array_elements_text(earlier.record -> 'hospital_ids') COLLATE "C") END
            ) END AS before,
            CASE WHEN taken.resource = 'patients' AND entry.record IS NOT NULL
                THEN ARRAY(SELECT json_array_elements_text(entry.record -> 'hospital_ids') COLLATE "C") END AS after
        FROM taken
        -- of an erased record there is none any more
        JOIN public.journal entry ON entry.resource = taken.resource
            AND entry.unique_id = taken.unique_id AND entry.version = taken.version
        LEFT JOIN public.journal earlier ON earlier.resource = taken.resource
            AND earlier.unique_id = taken.unique_id AND earlier.version = taken.version - 1
    ), affected AS (
        SELECT change.*, CASE
            WHEN cardinality(shown.patients) > 250 THEN ARRAY['']
            ELSE ARRAY(
                SELECT DISTINCT hospital_id FROM public.patient_hospitals WHERE patient_id = ANY (shown.patients)
            ) END AS hospitals
        FROM change, LATERAL (
            SELECT CASE change.resource
                WHEN 'hospitals' THEN ARRAY(
                    SELECT patient_id FROM public.patient_hospitals WHERE hospital_id = change.unique_id LIMIT 251
                )
                WHEN 'doctors' THEN ARRAY(
                    SELECT patient_id FROM public.patient_doctors WHERE doctor_id = change.unique_id LIMIT 251
                )
                WHEN 'profiles' THEN ARRAY(
                    SELECT patients.unique_id FROM public.patients WHERE profile_id = change.unique_id LIMIT 251
                ) END AS patients
            OFFSET 0
        ) shown
        WHERE change.is_update AND cardinality(shown.patients) > 0
    ), numbered AS (
        SELECT newest + row_number() OVER (ORDER BY id, source IS NOT NULL) AS position, every.*
        FROM (
            SELECT id, resource, unique_id, version, action, time, NULL COLLATE "C" AS source, before, after
            FROM change
            UNION ALL
            SELECT id, 'patients', unique_id, version, 'affected', time, resource, hospitals, hospitals FROM affected
        ) every
    ), inserted AS (
        INSERT INTO public.changes (position, batch, resource, unique_id, version, action, time, source)
        SELECT position, batch_, resource, unique_id, version, action, time, source FROM numbered
    ), inserted_for_hospitals AS (
        INSERT INTO public.hospital_changes (hospital_id, position, before, after)
        SELECT hospital_id, position, hospital_id = ANY (before), hospital_id = ANY (after)
        FROM numbered, LATERAL (SELECT DISTINCT unnest(array_cat(before, after))) concerned (hospital_id)
    )
    SELECT count(*) INTO numbered_changes FROM taken;
    RETURN numbered_changes;
END $$
"""
FIRST = """
INSERT INTO changes (position, batch, resource, version, action, time)
VALUES (0, hashtextextended(gen_random_uuid()::text, 0), 'patients', 0, 'created', statement_timestamp())
"""
# the serving role can read planner statistics, which would keep ids of erased records
UNANALYSED_COLUMNS = (("changes_pending", "unique_id"), ("changes_pending", "erased_id"), ("changes", "unique_id"))


def upgrade() -> None:
    op.create_table(
        "changes_pending",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("resource", sa.Text(collation="C"), nullable=False),
        sa.Column("unique_id", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("erased_id", sa.Text(collation="C"), nullable=True),
        sa.Column("erased_hospitals", sa.ARRAY(sa.Text(collation="C")), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes_pending")),
    )
    # every row is deleted soon, and those that are left are read by every poll
    op.execute(
        "ALTER TABLE changes_pending SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)"
    )
    op.create_table(
        "changes",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("resource", sa.Text(collation="C"), nullable=False),
        sa.Column("unique_id", sa.Text(collation="C"), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.Text(collation="C"), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.Text(collation="C"), nullable=True),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_changes")),
    )
    op.create_index(op.f("ix_changes_resource_position"), "changes", ["resource", "position"])
    op.create_table(
        "hospital_changes",
        sa.Column("hospital_id", sa.Text(collation="C"), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("before", sa.Boolean(), nullable=True),
        sa.Column("after", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("hospital_id", "position", name=op.f("pk_hospital_changes")),
    )
    op.create_index(op.f("ix_hospital_changes_position"), "hospital_changes", ["position"], postgresql_using="brin")
    for table, column in UNANALYSED_COLUMNS:
        op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS 0")
    op.execute(FIRST)
    op.execute(NOTE)
    op.execute(NUMBER)
    op.execute(TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER note_changes ON journal")
    op.execute("DROP FUNCTION number_changes(integer)")
    op.execute("DROP FUNCTION note_changes()")
    op.drop_table("hospital_changes")
    op.drop_table("changes")
    op.drop_table("changes_pending")
