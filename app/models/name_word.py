"""The vocabulary: folded words of patients' names. Misspelled words are looked up in it, never among patients.

Triggers add the words of each record written, and note in `stale_words` those that a patient no longer has; words that
no patient has any more are deleted in the background (`app.search.unused_words`).
"""

from sqlalchemy import Column, DateTime, Index, PrimaryKeyConstraint, Table, func, literal_column

from app.db.base import ID_TEXT, NO_FASTUPDATE, Base


def _since_column() -> Column[object]:
    """Return a column for the time since which some patient has had the word without interruption."""
    return Column("since", DateTime(timezone=True), nullable=False, server_default=func.statement_timestamp())


name_words = Table(
    "name_words",
    Base.metadata,
    Column("word", ID_TEXT, primary_key=True),
    _since_column(),
    info={"serving_rights": "SELECT, INSERT"},
)
"""The words of all patients, each once."""
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

hospital_words = Table(
    "hospital_words",
    Base.metadata,
    Column("hospital_id", ID_TEXT),
    Column("word", ID_TEXT),
    _since_column(),
    PrimaryKeyConstraint("hospital_id", "word", postgresql_include=["since"]),
    info={"serving_rights": "SELECT, INSERT"},
)
"""The words of each hospital's patients: a principal restricted to hospitals searches only these."""

stale_words = Table(
    "stale_words",
    Base.metadata,
    Column("word", ID_TEXT, nullable=False, index=True),
    info={"serving_rights": "SELECT", "serving_function": "forget_stale_words(text[])"},
)
"""Queue of words that some patient, or some patient of a hospital, no longer has, and that may be unused."""
