from sqlalchemy import Column, Index, Table, func, literal_column

from app.db.base import ID, UNBUFFERED, Base

name_words = Table(
    "name_words",
    Base.metadata,
    Column("word", ID, primary_key=True),
    info={"serving_rights": "SELECT, INSERT"},
)
"""The words in names of patients, each once, folded: typing errors are looked up here, and never among patients.

A trigger adds to it what is written to `patients`; what no patient has any more stays until somebody is erased.
"""
Index(
    "ix_name_words_typing_keys_word_2",
    func.typing_keys(name_words.c.word, literal_column("2")),
    postgresql_using="gin",
    postgresql_with=UNBUFFERED,
)
Index(
    "ix_name_words_word_extensions_gin_trgm_ops",
    name_words.c.word,
    postgresql_using="gin",
    postgresql_ops={"word": "extensions.gin_trgm_ops"},
    postgresql_with=UNBUFFERED,
)
