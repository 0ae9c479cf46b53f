"""Search: a long transaction may learn the words of its names at its end, and holds up nobody who has the same."""

from alembic import op

revision = "20261125_02"
down_revision = "20261125_01"

LEARN = """
CREATE OR REPLACE FUNCTION public.learn_name_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN{later}
    -- in one order: two transactions that have the same new words never wait for each other crosswise
    INSERT INTO public.name_words
    SELECT DISTINCT word FROM written, unnest(tsvector_to_array(patient_search)) AS word ORDER BY word
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$
"""
LATER = """
    -- whoever says so learns them itself (app/search/words.py)
    IF current_setting('patients.learn_words', true) = 'later' THEN
        RETURN NULL;
    END IF;"""


def upgrade() -> None:
    op.execute(LEARN.format(later=LATER))


def downgrade() -> None:
    op.execute(LEARN.format(later=""))
