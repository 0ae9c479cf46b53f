"""Database errors, as errors of the service to which a client can react."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import asyncpg

from app.errors import ConflictError, UnavailableError

_UNAVAILABLE_CLASSES = ("08", "53", "57", "40003")
"""Prefixes of the SQLSTATEs that mean that the database is unavailable. The first three are the classes "connection
exception", "insufficient resources" and "operator intervention" (a shutdown or a cancellation). The last one is the
SQLSTATE "statement completion unknown"."""
_RETRYABLE_STATES = ("40001", "40P01", "23505")
"""SQLSTATEs of a serialization failure, a deadlock and a unique violation. A transaction that fails with one may
succeed if retried. Statements check before they write whether a key is taken, so that only a concurrent transaction can
violate a unique index, and the next attempt finds what that transaction wrote."""
_LOCK_NOT_AVAILABLE = "55P03"
_QUERY_CANCELED = "57014"
"""SQLSTATE of a statement that exceeds `statement_timeout`, or that an operator cancels."""
READ_ONLY_TRANSACTION = "25006"
"""SQLSTATE of a write in a read-only transaction: the server is a standby. Writes fail until a standby is promoted."""
READ_ONLY_MESSAGE = (
    "The database is read-only: it is a standby, or default_transaction_read_only is on. Use the DATABASE_URL of the "
    "primary (target_session_attrs=read-write finds it among several hosts), or turn the setting off."
)
_LOST_WORKER_STATE = "XX000"
_LOST_WORKER_MESSAGE = "failure on connection marked as essential"
"""Beginning of the message with which Citus reports a lost worker, if not with a connection exception."""
_FOREIGN_KEY_STATES = ("23503", "23001")
"""SQLSTATEs of a foreign key violation and a restrict violation."""


class LockNotAvailableError(UnavailableError):
    """A lock was not available in time, because another transaction held it."""


class OutOfTimeError(UnavailableError):
    """A statement or a transaction was cancelled, because it took too long."""


class ReadOnlyDatabaseError(UnavailableError):
    """A transaction was to write on a standby, or on a database whose transactions are read-only."""

    operator_message = READ_ONLY_MESSAGE


class SerializationError(LockNotAvailableError):
    """PostgreSQL aborted a transaction, because it conflicted with a concurrent transaction."""


_ERRORS_BY_STATE: Mapping[str, type[UnavailableError]] = {
    **dict.fromkeys(_RETRYABLE_STATES, SerializationError),
    _LOCK_NOT_AVAILABLE: LockNotAvailableError,
    _QUERY_CANCELED: OutOfTimeError,
    READ_ONLY_TRANSACTION: ReadOnlyDatabaseError,
}


def translate(error: Exception) -> Exception:
    """Return the error of the service that stands for a database error, or `error` if a client cannot react to it.

    These are:

    - SerializationError: a serialization failure, a deadlock, or the violation of a unique index.
    - LockNotAvailableError: a lock was not available in time.
    - OutOfTimeError: the statement was cancelled.
    - ReadOnlyDatabaseError: the server is a standby, or its transactions are read-only.
    - UnavailableError: the connection is lost, or the server is shutting down or out of resources, or a worker of Citus
      is lost.
    - ConflictError: a foreign key is violated.
    """
    if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError):
        return UnavailableError()  # a ValueError is about the type of a parameter, which is a defect of this service
    if not isinstance(error, asyncpg.PostgresError):
        return error
    sqlstate = error.sqlstate or ""
    is_worker_lost = sqlstate == _LOST_WORKER_STATE and str(error).startswith(_LOST_WORKER_MESSAGE)
    translated: Exception = error
    if sqlstate in _ERRORS_BY_STATE:
        translated = _ERRORS_BY_STATE[sqlstate]()
    elif sqlstate.startswith(_UNAVAILABLE_CLASSES) or is_worker_lost:
        translated = UnavailableError()
    elif sqlstate in _FOREIGN_KEY_STATES:
        translated = ConflictError(
            "A record linked to this one was deleted or linked at the same time. Retry the request."
        )
    return translated


@asynccontextmanager
async def translate_errors() -> AsyncIterator[None]:
    """Replace a database error with the error of the service that `translate` returns for it."""
    try:
        yield
    except Exception as error:
        translated = translate(error)
        if translated is error:
            raise
        raise translated from error
