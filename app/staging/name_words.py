"""Statements that add the words of imported names to the search vocabulary.

An import collects these words and adds them at its end. For all other writes, triggers add the words (see
`app.models.name_word`).
"""

from sqlalchemy import Column, MetaData, Table, text
from sqlalchemy.sql.elements import TextClause

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

The transaction must collect the words itself, with `STAGE_NAME_WORDS` after each batch or with `STAGE_ALL_NAME_WORDS`,
and add them at its end with `INSERT_STAGED_NAME_WORDS`. Words are added only at the end, because adding a word blocks
other transactions that add the same word until this transaction ends.
"""
_WORDS = "unnest((tsvector_to_array(patient_search))[1 : 60]) AS word"
_ALL_WORDS = f"SELECT DISTINCT {_WORDS} FROM patients {{}}"  # noqa: S608
_HOSPITAL_WORDS = f"""
    SELECT DISTINCT hospital_id, word FROM (
        SELECT hospital_id, {_WORDS} FROM patients JOIN patient_hospitals ON patient_id = patients.unique_id {{}}
    ) AS every_word
    WHERE char_length(word) > 2
"""  # noqa: S608
_BATCH = "JOIN staged_patients ON staged_patients.unique_id = patients.unique_id AND fate IN ('created', 'updated')"
STAGE_NAME_WORDS = (
    text(f"INSERT INTO staged_words {_ALL_WORDS.format(_BATCH)} ON CONFLICT DO NOTHING"),
    text(f"INSERT INTO staged_hospital_words {_HOSPITAL_WORDS.format(_BATCH)} ON CONFLICT DO NOTHING"),
)
"""Statements that collect the words of staged patients in two temporary tables: all words, and words by hospital."""
STAGE_ALL_NAME_WORDS = tuple(
    text(statement)
    for table, words in (
        (STAGED_WORDS_TABLE.name, _ALL_WORDS.format("")),
        (STAGED_HOSPITAL_WORDS_TABLE.name, _HOSPITAL_WORDS.format("")),
    )
    for statement in (f"DROP TABLE {table}", f"CREATE TEMPORARY TABLE {table} ON COMMIT DROP AS {words}")
)
"""Statements that replace the two temporary tables, which are empty, with the words of all patients.

PostgreSQL selects the rows of a new table with parallel processes, but not those that it inserts into a table.
"""


def _insert_name_words(words: str, hospital_words: str) -> tuple[TextClause, TextClause]:
    """Return statements that add selected words to the vocabulary.

    They add words in the same order as the triggers do, so that concurrent transactions cannot deadlock.
    """
    return (
        text(f"INSERT INTO name_words (word) {words} ORDER BY word ON CONFLICT DO NOTHING"),
        text(
            f"INSERT INTO hospital_words (hospital_id, word) {hospital_words} ORDER BY hospital_id, word"
            " ON CONFLICT DO NOTHING"
        ),
    )


INSERT_STAGED_NAME_WORDS = _insert_name_words(
    "SELECT word FROM staged_words", "SELECT hospital_id, word FROM staged_hospital_words"
)
"""Statements that add the collected words to the vocabulary."""
_WRITTEN = "JOIN unnest(CAST(:ids AS text[])) AS written(unique_id) ON written.unique_id = patients.unique_id"
INSERT_WORDS_OF_PATIENTS = _insert_name_words(_ALL_WORDS.format(_WRITTEN), _HOSPITAL_WORDS.format(_WRITTEN))
"""Statements that add the words of the patients with the ids `ids` to the vocabulary."""
