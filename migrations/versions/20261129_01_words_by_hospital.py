"""Search: words of names by hospital, so that a limited principal's searches depend on its own patients alone.

Words that no patient has any more are removed in the background, and not only when a person is erased. The functions
belong to the owner of the tables and run with its rights: a role that serves needs no rights to what they write, also
while an older version of the service still runs.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261129_01"
down_revision = "20261125_02"

_TRIGGER = "RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS"
_LATER = "current_setting('patients.learn_words', true) = 'later'"
"""An import learns the words at its end by itself (app/search/dictionary.py)."""

# each inserts in one order: two transactions that have the same new words never wait for each other in a circle
FUNCTIONS = {
    "learn_name_words()": f"""
    CREATE OR REPLACE FUNCTION public.learn_name_words() {_TRIGGER} $$
    BEGIN
        IF {_LATER} THEN
            RETURN NULL;
        END IF;
        INSERT INTO public.name_words (word)
        SELECT DISTINCT word FROM written, unnest(tsvector_to_array(patient_search)) AS word ORDER BY word
        ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$
    """,
    "learn_hospital_words()": f"""
    CREATE FUNCTION public.learn_hospital_words() {_TRIGGER} $$
    BEGIN
        IF {_LATER} THEN
            RETURN NULL;
        END IF;
        INSERT INTO public.hospital_words (hospital_id, word)
        SELECT DISTINCT hospital_id, word
        FROM written JOIN public.patients ON unique_id = patient_id, unnest(tsvector_to_array(patient_search)) AS word
        ORDER BY hospital_id, word
        ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$
    """,
    "relearn_words()": f"""
    CREATE FUNCTION public.relearn_words() {_TRIGGER} $$
    DECLARE
        renamed text[] := ARRAY(
            SELECT unique_id FROM former JOIN written USING (unique_id)
            WHERE former.patient_search <> written.patient_search
        );
    BEGIN
        IF renamed = '{{}}' THEN
            RETURN NULL;
        END IF;
        INSERT INTO public.stale_words
        SELECT DISTINCT word
        FROM former JOIN written USING (unique_id), unnest(tsvector_to_array(former.patient_search)) AS word
        WHERE unique_id = ANY (renamed) AND word <> ALL (tsvector_to_array(written.patient_search));
        IF {_LATER} THEN
            RETURN NULL;
        END IF;
        INSERT INTO public.name_words (word)
        SELECT DISTINCT word FROM written, unnest(tsvector_to_array(patient_search)) AS word
        WHERE unique_id = ANY (renamed) ORDER BY word
        ON CONFLICT DO NOTHING;
        INSERT INTO public.hospital_words (hospital_id, word)
        SELECT DISTINCT hospital_id, word
        FROM written JOIN public.patient_hospitals ON patient_id = unique_id,
            unnest(tsvector_to_array(patient_search)) AS word
        WHERE unique_id = ANY (renamed) ORDER BY hospital_id, word
        ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$
    """,
    "doubt_words()": f"""
    CREATE FUNCTION public.doubt_words() {_TRIGGER} $$
    BEGIN
        INSERT INTO public.stale_words
        SELECT DISTINCT word FROM former, unnest(tsvector_to_array(patient_search)) AS word;
        RETURN NULL;
    END $$
    """,
    # a patient that is deleted is not there any more when its links go: then doubt_words() has its words
    "doubt_hospital_words()": f"""
    CREATE FUNCTION public.doubt_hospital_words() {_TRIGGER} $$
    BEGIN
        INSERT INTO public.stale_words
        SELECT DISTINCT word
        FROM former JOIN public.patients ON unique_id = patient_id, unnest(tsvector_to_array(patient_search)) AS word;
        RETURN NULL;
    END $$
    """,
    # of some words, those that no patient has (without a hospital), and those that no patient of a hospital has; what
    # thousands of patients have is no hospital's secret, and not worth the search
    "unused_words(text[])": """
    CREATE FUNCTION public.unused_words(words text[]) RETURNS TABLE (hospital_id text, word text)
    LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, public
    SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
    #variable_conflict use_column
    BEGIN
        RETURN QUERY
        WITH asked AS (
            SELECT DISTINCT word FROM unnest(words) AS word
        ), holding AS MATERIALIZED (
            SELECT word, unique_id FROM asked, LATERAL (
                SELECT unique_id FROM public.patients
                WHERE patient_search @@ quote_literal(asked.word)::tsquery LIMIT 2001
            ) AS one
        ), counted AS (
            SELECT word, count(unique_id) AS patients FROM asked LEFT JOIN holding USING (word) GROUP BY word
        ), linked AS MATERIALIZED (
            SELECT DISTINCT word, hospital_id FROM holding JOIN public.patient_hospitals ON patient_id = unique_id
        )
        SELECT NULL, word FROM counted WHERE patients = 0
        UNION ALL
        SELECT hospital_id, word FROM public.hospital_words JOIN counted USING (word)
        WHERE patients <= 2000 AND NOT EXISTS (
            SELECT FROM linked WHERE linked.word = counted.word AND linked.hospital_id = hospital_words.hospital_id
        );
    END $$
    """,
    # writers learn words under locks that these exclude: none is forgotten that a patient is just about to have
    "forget_words(text[])": """
    CREATE FUNCTION public.forget_words(words text[]) RETURNS void
    LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    BEGIN
        LOCK TABLE public.name_words, public.hospital_words IN SHARE ROW EXCLUSIVE MODE;
        WITH unused AS MATERIALIZED (
            SELECT * FROM public.unused_words(words)
        ), forgotten AS (
            DELETE FROM public.name_words WHERE word IN (SELECT word FROM unused WHERE hospital_id IS NULL)
        )
        DELETE FROM public.hospital_words WHERE (hospital_id, word) IN (SELECT hospital_id, word FROM unused);
        DELETE FROM public.stale_words WHERE word = ANY (words);
    END $$
    """,
    # some words at a time, by one session at a time; how many there were to look at
    "forget_stale_words()": """
    CREATE FUNCTION public.forget_stale_words() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    DECLARE
        doubtful text[];
        unused text[];
    BEGIN
        IF NOT pg_try_advisory_xact_lock(hashtextextended('stale_words', 0)) THEN
            RETURN 0;
        END IF;
        WITH taken AS (
            DELETE FROM public.stale_words
            WHERE ctid = ANY (ARRAY(SELECT ctid FROM public.stale_words LIMIT 50)) RETURNING word
        )
        SELECT array_agg(word) INTO doubtful FROM taken;
        unused := ARRAY(SELECT DISTINCT word FROM public.unused_words(doubtful));
        IF unused <> '{}' THEN
            PERFORM public.forget_words(unused);
        END IF;
        RETURN coalesce(cardinality(doubtful), 0);
    END $$
    """,
}
# one for each event, since a trigger on several events gets no rows
TRIGGERS = {
    "patients": {
        "learn_from_update": "AFTER UPDATE ON patients REFERENCING OLD TABLE AS former NEW TABLE AS written "
        "FOR EACH STATEMENT EXECUTE FUNCTION relearn_words()",
        "doubt_after_delete": "AFTER DELETE ON patients REFERENCING OLD TABLE AS former "
        "FOR EACH STATEMENT EXECUTE FUNCTION doubt_words()",
    },
    "patient_hospitals": {
        "learn_from_insert": "AFTER INSERT ON patient_hospitals REFERENCING NEW TABLE AS written "
        "FOR EACH STATEMENT EXECUTE FUNCTION learn_hospital_words()",
        "doubt_after_delete": "AFTER DELETE ON patient_hospitals REFERENCING OLD TABLE AS former "
        "FOR EACH STATEMENT EXECUTE FUNCTION doubt_hospital_words()",
    },
}
FORMER_LEARN = """
CREATE OR REPLACE FUNCTION public.learn_name_words() RETURNS trigger LANGUAGE plpgsql SECURITY INVOKER AS $$
BEGIN
    IF current_setting('patients.learn_words', true) = 'later' THEN
        RETURN NULL;
    END IF;
    INSERT INTO public.name_words
    SELECT DISTINCT word FROM written, unnest(tsvector_to_array(patient_search)) AS word ORDER BY word
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$
"""
FORMER_TRIGGER = """
CREATE TRIGGER learn_from_update AFTER UPDATE ON patients REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION learn_name_words()
"""


def _since() -> sa.Column[object]:
    now = sa.text("statement_timestamp()")
    return sa.Column("since", sa.DateTime(timezone=True), server_default=now, nullable=False)


def upgrade() -> None:
    op.add_column("name_words", _since())
    op.create_table(
        "hospital_words",
        sa.Column("word", sa.Text(collation="C"), nullable=False),
        sa.Column("hospital_id", sa.Text(collation="C"), nullable=False),
        _since(),
        sa.PrimaryKeyConstraint("word", "hospital_id", name=op.f("pk_hospital_words")),
    )
    op.create_index(
        op.f("ix_hospital_words_hospital_id_word_since"), "hospital_words", ["hospital_id", "word", "since"]
    )
    op.create_table("stale_words", sa.Column("word", sa.Text(collation="C"), nullable=False))
    for function in FUNCTIONS.values():
        op.execute(function)
    op.execute("REVOKE EXECUTE ON FUNCTION forget_words(text[]) FROM PUBLIC")
    op.execute("DROP TRIGGER learn_from_update ON patients")
    for triggers in TRIGGERS.values():
        for name, trigger in triggers.items():
            op.execute(f"CREATE TRIGGER {name} {trigger}")


def downgrade() -> None:
    for table, triggers in TRIGGERS.items():
        for name in triggers:
            op.execute(f"DROP TRIGGER {name} ON {table}")
    op.execute(FORMER_LEARN)
    op.execute(FORMER_TRIGGER)
    for signature in reversed([*FUNCTIONS][1:]):
        op.execute(f"DROP FUNCTION {signature}")
    op.drop_table("stale_words")
    op.drop_table("hospital_words")
    op.drop_column("name_words", "since")
