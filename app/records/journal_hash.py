"""SQL expressions for the hashes in the journal, shared by the verification of the journal and by erasures."""

from datetime import datetime

from sqlalchemy import BigInteger, ColumnElement, FromClause, LargeBinary, Text, cast, func, literal_column

from app.models import journal
from app.models.journal import HASHED_COLUMNS


def content_hash(entry: FromClause) -> ColumnElement[bytes]:
    """Return the SQL expression for the hash of a journal entry's content, which is its `HASHED_COLUMNS`."""
    return func.journal_content(*(entry.c[name] for name in HASHED_COLUMNS), type_=LargeBinary)


def hex_text(value: ColumnElement[bytes]) -> ColumnElement[str]:
    """Return the SQL expression for a hash as hexadecimal text, because JSON has no type for bytes."""
    return func.encode(value, literal_column("'hex'"), type_=Text)


def original_content_hash() -> ColumnElement[str]:
    """Return the SQL expression for the hash, in hexadecimal, of a journal entry's content before any redaction."""
    return func.coalesce(journal.c.erasure.op("->>", return_type=Text())("content"), hex_text(content_hash(journal)))


def epoch_microseconds(time: ColumnElement[datetime]) -> ColumnElement[int]:
    """Return the SQL expression for a timestamp as the number of microseconds since 1970-01-01 00:00 UTC."""
    return cast(func.extract("epoch", time) * literal_column("1000000"), BigInteger)
