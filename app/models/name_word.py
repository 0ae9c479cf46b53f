"""The words in names of patients, folded: typing errors are looked up among these, and never among patients.

Triggers add the words of what is written, and note in `stale_words` those that a patient no longer has; what nobody has
any more is removed in the background (`app.search.dictionary`).
"""

from sqlalchemy import Column, DateTime, Index, PrimaryKeyConstraint, Table, func, literal_column

from app.db.base import ID_TEXT, NO_FASTUPDATE, Base


def _since_column() -> Column[object]:
    """Since when some patient has had the word without interruption."""
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
"""The words of each hospital's patients: all that a principal limited to hospitals ever searches."""

stale_words = Table(
    "stale_words",
    Base.metadata,
    Column("word", ID_TEXT, nullable=False, index=True),
    info={"serving_rights": "SELECT", "serving_function": "forget_stale_words(text[])"},
)
"""Words that some patient, or some patient of a hospital, no longer has: they may be nobody's any more. A queue."""
