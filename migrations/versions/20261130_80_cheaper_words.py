"""Cheaper words of names: plain names are split without regular expressions, and keys of words are built in loops.

Both functions return the same as before, `typing_keys` with repetitions and in another order, which its GIN index and
the operator `&&` ignore. Indexes and generated columns therefore stay as they are.
"""

from alembic import op

revision = "20261130_80"
down_revision = "20261130_75"

# in plain names, no letter is folded or transcribed, and nothing but full stops at the ends of words has to go
PLAIN = """
        IF names COLLATE "C" ~ '^[A-Za-z0-9 .]*$' AND names COLLATE "C" !~ '[.][^ ]' THEN
            RETURN array_to_tsvector(array_remove(string_to_array(translate(lower(names), '.', ' '), ' '), ''));
        END IF;"""
SPELLINGS = """
CREATE OR REPLACE FUNCTION public.spellings(surname text, first text, initials text, title text) RETURNS tsvector
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
        END IF;{plain}
        FOREACH spelling IN ARRAY CASE
            WHEN public.transcribe(names) = lower(names) THEN ARRAY[public.fold(names)]
            ELSE ARRAY[public.fold(names), public.fold(public.transcribe(names))]
        END LOOP
            words := words || ' ' || regexp_replace(spelling, '[[:punct:]]+', ' ', 'g')
                || ' ' || regexp_replace(spelling, '[[:punct:]]+', '', 'g');
        END LOOP;
        RETURN array_to_tsvector(array_remove(regexp_split_to_array(words, '[[:space:]]+'), ''));
    END $$
"""
# what is left of the first seven letters without none, one or two of them
TYPING_KEYS = """
CREATE OR REPLACE FUNCTION public.typing_keys(word text, errors integer) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    DECLARE
        prefix text COLLATE "C" := left(word, 7);
        shorter text COLLATE "C";
        keys text[] COLLATE "C" := ARRAY[prefix];
    BEGIN
        IF errors > 0 THEN
            FOR place IN 1..char_length(prefix) LOOP
                shorter := left(prefix, place - 1) || substr(prefix, place + 1);
                keys := keys || shorter;
                IF errors > 1 THEN
                    FOR other IN place..char_length(shorter) LOOP
                        keys := keys || (left(shorter, other - 1) || substr(shorter, other + 1));
                    END LOOP;
                END IF;
            END LOOP;
        END IF;
        RETURN array_remove(keys, '');
    END $$
"""
FORMER_TYPING_KEYS = """
CREATE OR REPLACE FUNCTION public.typing_keys(word text, errors integer) RETURNS text[]
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
"""


def upgrade() -> None:
    op.execute(SPELLINGS.format(plain=PLAIN))
    op.execute(TYPING_KEYS)


def downgrade() -> None:
    op.execute(FORMER_TYPING_KEYS)
    op.execute(SPELLINGS.format(plain=""))
