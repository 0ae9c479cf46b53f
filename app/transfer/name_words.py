"""Statements that add the words of imported names to the search vocabulary.

An import collects these words and adds them at its end. For all other writes, triggers add the words (see
`app.models.name_word`).
"""

from sqlalchemy import Column, MetaData, Table, text

from app.db.base import ID_TEXT
from app.db.database import set_local

STAGED_WORDS_TABLE, STAGED_HOSPITAL_WORDS_TABLE = (
    Table(
        name,
        MetaData(),
        *(Column(column, ID_TEXT, primary_key=True) for column in columns),
        prefixes=["TEMPORARY"],
        postgresql_on_commit="DROP",
    )
    for name, columns in (("staged_words", ["word"]), ("staged_hospital_words", ["hospital_id", "word"]))
)
DEFER_NAME_WORDS = set_local({"patients.learn_words": "later", "patients.learn_hospital_words": "later"})
"""Statement that stops the triggers from adding words during the rest of the transaction.

The transaction must add the words itself, with `STAGE_NAME_WORDS` after each batch and `INSERT_NAME_WORDS` at its end.
Words are added only at the end, because adding a word blocks other transactions that add the same word until this
transaction ends.
"""
_STAGED_WORDS_SQL = """
    FROM patients JOIN staged_patients USING (unique_id) {links},
        unnest((tsvector_to_array(patient_search))[1 : 60]) AS word
    WHERE fate IN ('created', 'updated') AND char_length(word) > {short}
    ON CONFLICT DO NOTHING
"""
STAGE_NAME_WORDS = (
    text("INSERT INTO staged_words SELECT DISTINCT word" + _STAGED_WORDS_SQL.format(links="", short=0)),
    text(
        "INSERT INTO staged_hospital_words SELECT DISTINCT hospital_id, word"
        + _STAGED_WORDS_SQL.format(links="JOIN patient_hospitals ON patient_id = unique_id", short=2)
    ),
)
"""Statements that collect the words of staged patients in two temporary tables: all words, and words by hospital."""
INSERT_NAME_WORDS = (
    text("INSERT INTO name_words (word) SELECT word FROM staged_words ORDER BY word ON CONFLICT DO NOTHING"),
    text(
        "INSERT INTO hospital_words (hospital_id, word) SELECT hospital_id, word FROM staged_hospital_words"
        " ORDER BY hospital_id, word ON CONFLICT DO NOTHING"
    ),
)
"""Statements that add the collected words to the vocabulary.

The statements add words in the same order as the triggers do, so that concurrent transactions cannot deadlock.
"""
