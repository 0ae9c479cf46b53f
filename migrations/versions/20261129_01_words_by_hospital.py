"""Search: words of names by hospital, so that a limited principal's searches depend on its own patients alone.

Words that no patient has any more are removed in the background, and not only when a person is erased. The functions
belong to the owner of the tables and run with its rights: a role that serves needs no rights to what they write, also
while an older version of the service still runs. So nobody else may call them or make triggers of them, and they find
no type or function in a schema that others write to, such as `pg_temp`.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261129_01"
down_revision = "20261125_02"

_TRIGGER = "RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS"
_LATER = "current_setting('patients.learn_words', true) = 'later'"
"""An import learns the words at its end by itself (app/transfer/name_words.py)."""
_HOSPITALS_LATER = "current_setting('patients.learn_hospital_words', true) = 'later'"
"""Those of hospitals too; an import of an older version says this of all words only."""
_WORDS = "unnest((tsvector_to_array({}))[1 : 60]) AS word"
"""The words of one patient: more than any name has are somebody's who fills the dictionary."""
_LONG = "char_length(word) > 2"
"""In hospitals' words there are no initials and short titles: nobody finds a typing error in them."""

# each inserts in one order: two transactions that have the same new words never wait for each other in a circle
FUNCTIONS = {
    "learn_name_words()": f"""
    CREATE OR REPLACE FUNCTION public.learn_name_words() {_TRIGGER} $$
    BEGIN
        IF {_LATER} THEN
            RETURN NULL;
        END IF;
        INSERT INTO public.name_words (word)
        SELECT DISTINCT word FROM written, {_WORDS.format("patient_search")} ORDER BY word
        ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$
    """,
    "learn_hospital_words()": f"""
    CREATE FUNCTION public.learn_hospital_words() {_TRIGGER} $$
    BEGIN
        IF {_HOSPITALS_LATER} THEN
            RETURN NULL;
        END IF;
        INSERT INTO public.hospital_words (hospital_id, word)
        SELECT DISTINCT hospital_id, word
        FROM written JOIN public.patients ON unique_id = patient_id, {_WORDS.format("patient_search")}
        WHERE {_LONG} ORDER BY hospital_id, word
        ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$
    """,
    # row by row, since most updates change no name: for these a trigger of statements would keep both versions of a row
    "relearn_words()": f"""
    CREATE FUNCTION public.relearn_words() {_TRIGGER} $$
    DECLARE
        former text[] := (tsvector_to_array(OLD.patient_search))[1 : 60];
        current text[] := (tsvector_to_array(NEW.patient_search))[1 : 60];
        gained text[] := ARRAY(SELECT word FROM unnest(current) AS word WHERE word <> ALL (former) ORDER BY word);
    BEGIN
        INSERT INTO public.stale_words SELECT word FROM unnest(former) AS word WHERE word <> ALL (current);
        IF gained = '{{}}' THEN
            RETURN NULL;
        END IF;
        IF {_LATER} IS NOT TRUE THEN
            INSERT INTO public.name_words (word) SELECT unnest(gained) ON CONFLICT DO NOTHING;
        END IF;
        IF {_HOSPITALS_LATER} IS NOT TRUE THEN
            INSERT INTO public.hospital_words (hospital_id, word)
            SELECT hospital_id, word FROM public.patient_hospitals, unnest(gained) AS word
            WHERE patient_id = NEW.unique_id AND {_LONG} ORDER BY hospital_id, word
            ON CONFLICT DO NOTHING;
        END IF;
        RETURN NULL;
    END $$
    """,
    "doubt_words()": f"""
    CREATE FUNCTION public.doubt_words() {_TRIGGER} $$
    BEGIN
        INSERT INTO public.stale_words
        SELECT DISTINCT word FROM former, {_WORDS.format("patient_search")};
        RETURN NULL;
    END $$
    """,
    # a patient that is deleted is not there any more when its links go: then doubt_words() has its words
    "doubt_hospital_words()": f"""
    CREATE FUNCTION public.doubt_hospital_words() {_TRIGGER} $$
    BEGIN
        INSERT INTO public.stale_words
        SELECT DISTINCT word
        FROM former JOIN public.patients ON unique_id = patient_id, {_WORDS.format("patient_search")}
        WHERE {_LONG};
        RETURN NULL;
    END $$
    """,
    # of some words, those that no patient has (without a hospital), and those that no patient of a hospital has; what
    # thousands of patients have is no hospital's secret, and not worth the search
    "unused_words(text[])": """
    CREATE FUNCTION public.unused_words(words text[]) RETURNS TABLE (hospital_id text, word text)
    LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
    #variable_conflict use_column
    BEGIN
        RETURN QUERY
        WITH RECURSIVE hospital AS (
            SELECT min(hospital_id) AS id FROM public.hospital_words
            UNION ALL
            SELECT (SELECT min(hospital_id) FROM public.hospital_words WHERE hospital_id > id)
            FROM hospital WHERE id IS NOT NULL
        ), asked AS (
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
        SELECT id, word FROM counted CROSS JOIN hospital
        WHERE patients <= 2000
            AND EXISTS (SELECT FROM public.hospital_words AS held WHERE held.hospital_id = id AND held.word = counted.word)
            AND NOT EXISTS (SELECT FROM linked WHERE linked.word = counted.word AND linked.hospital_id = id);
    END $$
    """,
    # writers learn words under locks that these exclude: none is forgotten that a patient is just about to have
    "forget_words(text[])": """
    CREATE FUNCTION public.forget_words(words text[]) RETURNS void
    LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
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
    # the same, without a lock where all of them are still in use
    "forget_stale_words(text[])": """
    CREATE FUNCTION public.forget_stale_words(words text[]) RETURNS void
    LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    DECLARE
        unused text[];
    BEGIN
        DELETE FROM public.stale_words WHERE word = ANY (words);
        unused := ARRAY(SELECT DISTINCT word FROM public.unused_words(words));
        IF unused <> '{}' THEN
            PERFORM public.forget_words(unused);
        END IF;
    END $$
    """,
}
# one for each event, since a trigger on several events gets no rows
TRIGGERS = {
    "patients": {
        "learn_from_update": "AFTER UPDATE ON patients FOR EACH ROW "
        "WHEN (OLD.patient_search <> NEW.patient_search) EXECUTE FUNCTION relearn_words()",
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
        sa.Column("hospital_id", sa.Text(collation="C"), nullable=False),
        sa.Column("word", sa.Text(collation="C"), nullable=False),
        _since(),
        sa.PrimaryKeyConstraint("hospital_id", "word", name=op.f("pk_hospital_words"), postgresql_include=["since"]),
    )
    op.create_table("stale_words", sa.Column("word", sa.Text(collation="C"), nullable=False))
    op.create_index(op.f("ix_stale_words_word"), "stale_words", ["word"])
    for signature, function in FUNCTIONS.items():
        op.execute(function)
        op.execute(f"REVOKE EXECUTE ON FUNCTION {signature} FROM PUBLIC")
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
