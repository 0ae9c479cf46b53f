"""Search: names folded into words, the words that names have, and indexes for what lists are filtered and ordered by.

The new columns rewrite the table of patients, which nobody can use meanwhile: about two minutes for a million.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261125_01"
down_revision = "20261123_02"

EXTENSIONS = ("unaccent", "pg_trgm", "fuzzystrmatch")  # all are "trusted": who may CREATE in the database may have them

# what unaccent leaves: letters that have another form in some places, and then what nobody sees or says
REPLACED = {
    "\u03c2": "\u03c3",  # Greek sigma at the end of a word
    "\u0623": "\u0627",  # Arabic alef with hamza above
    "\u0625": "\u0627",  # and below
    "\u0622": "\u0627",  # with madda
    "\u0671": "\u0627",  # wasla
    "\u0649": "\u064a",  # alef maksura: ya
}
REMOVED = (
    "\u00ad\u034f\u061c\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
    "\u0640\u064b\u064c\u064d\u064e\u064f\u0650\u0651\u0652\u0653\u0654\u0655\u0670"  # Arabic vowel marks, tatweel
)
# names in functions are qualified: a restored dump fills its tables and indexes with an empty search_path
FUNCTIONS = {
    # unaccent() is only STABLE, since its rules are a file; where that changes, reindex
    "fold(text)": f"""
    CREATE FUNCTION public.fold(value text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN lower(extensions.unaccent(
        'extensions.unaccent'::regdictionary,
        translate(value, '{"".join(REPLACED)}{REMOVED}', '{"".join(REPLACED.values())}')
    ) COLLATE pg_c_utf8) COLLATE "C"
    """,
    # German and Nordic letters as people type them where a keyboard lacks them
    "transcribe(text)": """
    CREATE FUNCTION public.transcribe(value text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN replace(replace(replace(replace(replace(
        lower(value COLLATE pg_c_utf8), 'ä', 'ae'), 'ö', 'oe'), 'ü', 'ue'), 'ø', 'oe'), 'å', 'aa')
    """,
    # the folded words by which people are found: O'Brien by o, brien and obrien, Lee-Ann and Lee Ann by lee, ann and
    # leeann, van der Merwe by van, der, merwe and vandermerwe, Müller by muller and mueller, JP by jp, j and p
    "spellings(text, text, text, text)": """
    CREATE FUNCTION public.spellings(surname text, first text, initials text, title text) RETURNS tsvector
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
    DECLARE
        names text COLLATE pg_c_utf8 := concat_ws(' ', surname, first, initials, title);
        spelling text COLLATE pg_c_utf8;
        words text COLLATE pg_c_utf8 := '';
    BEGIN
        IF surname ~ '[[:space:]]' THEN
            names := names || ' ' || regexp_replace(surname, '[[:punct:][:space:]]+', '', 'g');
        END IF;
        IF first ~ '[[:space:]]' THEN
            names := names || ' ' || regexp_replace(first, '[[:punct:][:space:]]+', '', 'g');
        END IF;
        IF char_length(initials) > 1 THEN
            names := names || ' ' || regexp_replace(initials, '(.)', '\\1 ', 'g');
        END IF;
        FOREACH spelling IN ARRAY CASE
            WHEN public.transcribe(names) = lower(names) THEN ARRAY[public.fold(names)]
            ELSE ARRAY[public.fold(names), public.fold(public.transcribe(names))]
        END LOOP
            words := words || ' ' || regexp_replace(spelling, '[[:punct:]]+', ' ', 'g')
                || ' ' || regexp_replace(spelling, '[[:punct:]]+', '', 'g');
        END LOOP;
        RETURN array_to_tsvector(array_remove(regexp_split_to_array(words, '[[:space:]]+'), ''));
    END $$
    """,
    # what is left of a word's beginning without none, one or two of its letters: two words with at most two typing
    # errors between them have one of these in common (the Symmetric Delete algorithm, with prefixes of 7)
    "typing_keys(text, integer)": """
    CREATE FUNCTION public.typing_keys(word text, errors integer) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    DECLARE
        keys text[] COLLATE "C" := ARRAY[left(word, 7)];
        shorter text[] COLLATE "C" := keys;
    BEGIN
        FOR step IN 1..errors LOOP
            shorter := ARRAY(
                SELECT DISTINCT overlay(key PLACING '' FROM place FOR 1)
                FROM unnest(shorter) AS key, generate_series(1, char_length(key)) AS place
            );
            keys := keys || shorter;
        END LOOP;
        RETURN array_remove(keys, '');
    END $$
    """,
    "month_of(timestamp with time zone)": """
    CREATE FUNCTION public.month_of(value timestamptz) RETURNS date LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CAST(date_trunc('month', timezone('UTC', value)) AS date)
    """,
    "learn_name_words()": """
    CREATE FUNCTION public.learn_name_words() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        -- in one order: two transactions that have the same new words never wait for each other crosswise
        INSERT INTO public.name_words
        SELECT DISTINCT word FROM written, unnest(tsvector_to_array(patient_search)) AS word ORDER BY word
        ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$
    """,
}
# two, since a trigger on several events gets no rows
TRIGGERS = """
CREATE TRIGGER learn_from_insert AFTER INSERT ON patients REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION learn_name_words();
CREATE TRIGGER learn_from_update AFTER UPDATE ON patients REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION learn_name_words()
"""

FOLDED = (
    "patient_last_name",
    "patient_first_name",
    "patient_email_address",
    "patient_town",
    "patient_region",
    "patient_postal_code",
    "patient_province",
    "patient_country",
    "patient_race",
    "patient_access_medical_care",
)
MANY_VALUES = (
    "patient_last_name_folded",
    "patient_first_name_folded",
    "patient_date_of_birth",
    "date_created",
    "last_updated",
    "patient_mobile_digits",
    "patient_email_address_folded",
    "patient_town_folded",
    "patient_region_folded",
    "patient_postal_code_folded",
)
FEW_VALUES = (
    "patient_province_folded",
    "patient_country_folded",
    "patient_race_folded",
    "patient_access_medical_care_folded",
    "patient_gender",
)
MOMENTS = ("date_created", "last_updated")


def upgrade() -> None:
    op.execute("CREATE SCHEMA IF NOT EXISTS extensions")
    for extension in EXTENSIONS:
        op.execute(f"CREATE EXTENSION IF NOT EXISTS {extension} SCHEMA extensions")
    for function in FUNCTIONS.values():
        op.execute(function)
    op.create_table(
        "name_words",
        sa.Column("word", sa.Text(collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("word", name=op.f("pk_name_words")),
    )
    # in one statement: each by itself would rewrite the table
    folded = ", ".join(
        f'ADD COLUMN {name}_folded text COLLATE "C" GENERATED ALWAYS AS (fold({name})) STORED' for name in FOLDED
    )
    words = "spellings(patient_last_name, patient_first_name, patient_initials, patient_title)"
    op.execute(
        f"ALTER TABLE patients {folded}, ADD COLUMN patient_search tsvector GENERATED ALWAYS AS ({words}) STORED"
    )
    op.execute("INSERT INTO name_words SELECT DISTINCT unnest(tsvector_to_array(patient_search)) FROM patients")
    for trigger in TRIGGERS.split(";"):
        op.execute(trigger)
    op.create_index(
        op.f("ix_name_words_typing_keys_word_2"),
        "name_words",
        [sa.text("typing_keys(word, 2)")],
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
    )
    op.create_index(
        op.f("ix_name_words_word_extensions_gin_trgm_ops"),
        "name_words",
        [sa.text("word extensions.gin_trgm_ops")],
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
    )
    op.create_index(
        op.f("ix_patients_patient_search"),
        "patients",
        ["patient_search"],
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
    )
    for column in MANY_VALUES:
        op.create_index(op.f(f"ix_patients_{column}_unique_id"), "patients", [column, "unique_id"])
    for column in FEW_VALUES:
        op.create_index(op.f(f"ix_patients_{column}"), "patients", [column])
    for column in MOMENTS:
        name = op.f(f"ix_patients_month_of_{column}_unique_id_{column}")
        op.create_index(name, "patients", [sa.text(f"month_of({column})"), "unique_id", column])
    op.execute("ANALYZE patients")
    op.execute("ANALYZE name_words")


def downgrade() -> None:
    for column in MOMENTS:
        op.drop_index(op.f(f"ix_patients_month_of_{column}_unique_id_{column}"), "patients")
    for column in FEW_VALUES:
        op.drop_index(op.f(f"ix_patients_{column}"), "patients")
    for column in MANY_VALUES:
        op.drop_index(op.f(f"ix_patients_{column}_unique_id"), "patients")
    op.execute("DROP TRIGGER learn_from_insert ON patients")
    op.execute("DROP TRIGGER learn_from_update ON patients")
    for column in ("patient_search", *(f"{name}_folded" for name in FOLDED)):
        op.drop_column("patients", column)
    op.drop_table("name_words")
    for signature in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {signature}")
    for extension in EXTENSIONS:
        op.execute(f"DROP EXTENSION {extension}")
    op.execute("DROP SCHEMA extensions")
