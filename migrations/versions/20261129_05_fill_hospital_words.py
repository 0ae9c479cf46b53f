"""Search: learn the words of the hospitals' patients that were there before `hospital_words` was.

In transactions of its own, and as often as it takes: one that is cut off midway begins anew.
"""

from alembic import op

revision = "20261129_05"
down_revision = "20261129_04"

# a transaction for each hospital: writers of the same new words wait for one of these, not for all
FILL = """
DO $$
DECLARE
    hospital text;
BEGIN
    FOR hospital IN SELECT unique_id FROM hospitals ORDER BY unique_id LOOP
        INSERT INTO hospital_words (hospital_id, word)
        SELECT DISTINCT hospital, word
        FROM patient_hospitals JOIN patients ON unique_id = patient_id,
            unnest((tsvector_to_array(patient_search))[1 : 60]) AS word
        WHERE hospital_id = hospital AND char_length(word) > 2 ORDER BY word
        ON CONFLICT DO NOTHING;
        COMMIT;
    END LOOP;
END $$
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(FILL)
        op.execute("ANALYZE hospital_words")
        # until now a word stayed when no patient had it any more: the service looks at all of them, a few at a time
        op.execute("INSERT INTO stale_words SELECT word FROM name_words")


def downgrade() -> None:
    """Nothing to undo: the table goes with the revision that made it."""
