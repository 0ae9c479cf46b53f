"""SQL expressions for the hash chain of the journal, shared by its verification and by erasures."""

from datetime import datetime

from sqlalchemy import BigInteger, ColumnElement, FromClause, LargeBinary, Text, cast, func, literal_column

from app.models.journal import HASHED_COLUMNS


def content_hash(entry: FromClause) -> ColumnElement[bytes]:
    """Return the hash of an entry's content."""
    return func.journal_content(*(entry.c[name] for name in HASHED_COLUMNS), type_=LargeBinary)


def hex_text(value: ColumnElement[bytes]) -> ColumnElement[str]:
    """Return a hash in hexadecimal, as JSON contains it."""
    return func.encode(value, literal_column("'hex'"), type_=Text)


def epoch_microseconds(time: ColumnElement[datetime]) -> ColumnElement[int]:
    """Return a timestamp as microseconds since 1970 in UTC, as JSON contains it."""
    return cast(func.extract("epoch", time) * literal_column("1000000"), BigInteger)
