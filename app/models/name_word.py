"""The search vocabulary: the words in patients' names, case- and accent-folded. A search for a misspelled word compares
this word with the vocabulary and not with all patients.

When a patient is written, triggers add the patient's words. When a patient no longer has a word, triggers add the word
to `stale_words`. A background task deletes the words that no patient has any more (`app.vocabulary.unused_words`).
"""

from sqlalchemy import Column, DateTime, Index, PrimaryKeyConstraint, Table, func, literal_column

from app.db.base import ID_TEXT, NO_FASTUPDATE, Base


def _since_column() -> Column[object]:
    """Return the column `since`: the time at which the word was added to the table.

    A word that no patient has any more is deleted. If it is added again later, the time is that of the last addition.
    """
    return Column("since", DateTime(timezone=True), nullable=False, server_default=func.statement_timestamp())


name_words = Table(
    "name_words",
    Base.metadata,
    Column("word", ID_TEXT, primary_key=True),
    _since_column(),
    info={"serving_rights": "SELECT, INSERT"},
)
"""The words in the names of all patients. Each word has one row."""
Index(
    "ix_name_words_typing_keys_word_2",
    func.typing_keys(name_words.c.word, literal_column("2")),
    postgresql_using="gin",
    postgresql_with=NO_FASTUPDATE,
)
Index(
    "ix_name_words_word_extensions_gin_trgm_ops",
    name_words.c.word,
    postgresql_using="gin",
    postgresql_ops={"word": "extensions.gin_trgm_ops"},
    postgresql_with=NO_FASTUPDATE,
)
# the words that are new since a process has last read them (`app.matching.similar_words`)
Index(None, name_words.c.since)

# words that sound alike have a code in common
Index(
    "ix_name_words_extensions_daitch_mokotoff_word",
    func.extensions.daitch_mokotoff(name_words.c.word),
    postgresql_using="gin",
    postgresql_with=NO_FASTUPDATE,
)

hospital_words = Table(
    "hospital_words",
    Base.metadata,
    Column("hospital_id", ID_TEXT),
    Column("word", ID_TEXT),
    _since_column(),
    PrimaryKeyConstraint("hospital_id", "word", postgresql_include=["since"]),
    info={"serving_rights": "SELECT, INSERT"},
)
"""The words in the names of each hospital's patients. Each pair of a hospital and a word has one row. A search by a
principal that is restricted to hospitals reads this table instead of `name_words`."""

stale_words = Table(
    "stale_words",
    Base.metadata,
    Column("word", ID_TEXT, nullable=False, index=True),
    info={"serving_rights": "SELECT", "serving_function": "forget_stale_words(text[])"},
)
"""Queue of words that may be unused and must be checked. A word is added when a patient no longer has the word, or when
a patient with the word loses the link to a hospital."""
