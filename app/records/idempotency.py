"""Idempotency-Key: a repeated request gets the response to the first one and changes nothing.

This follows draft-ietf-httpapi-idempotency-key-header. The first statement of the transaction inserts the key, which is
part of a primary key. A concurrent request with the same key therefore waits until the first request ends. The key is
committed together with the record that the request wrote, or not at all.
"""

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import structlog
from fastapi import Request
from pydantic import BaseModel
from sqlalchemy import bindparam, delete, func, null, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from app.auth.principal import Principal
from app.db.connection import Connection
from app.db.database import Database
from app.errors import ConflictError, FieldError, NotFoundError, UnavailableError, ValidationFailedError
from app.models import idempotency_keys
from app.records.repository import Repository
from app.records.results import Record

log = structlog.get_logger()

KEY_RETENTION = timedelta(hours=24)
"""Age at which a key expires. A request that is sent with an expired key counts as a new request."""
PRUNE_BATCH_SIZE = 1000
"""Maximum number of expired keys that one transaction deletes."""
KEY_PATTERN = r'^(?:[!#-~]{1,255}|"[!#-~]{1,255}")$'
"""Regular expression for the header: 1 to 255 visible ASCII characters except `"`, optionally in double quotes."""

_EXPIRED = idempotency_keys.c.time < func.statement_timestamp() - KEY_RETENTION
_IDENTITY_COLUMNS = idempotency_keys.primary_key.columns
_IS_THIS_KEY = [column == bindparam(column.name, type_=column.type) for column in _IDENTITY_COLUMNS]
_INSERT_STATEMENT = insert(idempotency_keys).values(
    {column.name: bindparam(column.name) for column in (*_IDENTITY_COLUMNS, idempotency_keys.c.fingerprint)}
)
_CLAIM_STATEMENT = _INSERT_STATEMENT.on_conflict_do_update(
    index_elements=list(_IDENTITY_COLUMNS),
    set_={
        "fingerprint": _INSERT_STATEMENT.excluded.fingerprint,
        "time": func.statement_timestamp(),
        "document": null(),
    },
    where=_EXPIRED,
).returning(idempotency_keys.c.key)
_SELECT_STORED = select(idempotency_keys).where(*_IS_THIS_KEY)
_STORE_STATEMENT = (
    update(idempotency_keys)
    .where(*_IS_THIS_KEY)
    .values(unique_id=bindparam("stored_id"), document=bindparam("stored_document"))
)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The Idempotency-Key of a request that the client may repeat.

    The same text from a different principal, or with a different method or path, is a different key.
    """

    principal_name: str
    method: str
    path: str
    key: str
    fingerprint: bytes
    """SHA-256 digest of the body. White space and the order of keys do not affect that of a JSON body."""

    @classmethod
    def from_request(cls, request: Request, principal: Principal, body: BaseModel | bytes) -> "IdempotencyKey | None":
        """Return the key in the Idempotency-Key header of a request, or None if the request has no such header.

        `body` is the validated body of the request, or what stands for a body that is not validated as a whole.

        Raises:
            ValidationFailedError: the request has several such headers, or the header is malformed.
        """
        headers = request.headers.getlist("idempotency-key")
        if not headers:
            return None
        header = headers[0]
        if len(headers) > 1 or re.fullmatch(KEY_PATTERN, header) is None:
            message = "Must be one text of 1 to 255 visible ASCII characters, such as a UUID"
            raise ValidationFailedError([FieldError(("header", "Idempotency-Key"), message, "idempotency_key")])
        content = body if isinstance(body, bytes) else body.model_dump_json(exclude_unset=True).encode()
        if "include" in request.query_params:  # another response belongs to it
            content += request.query_params["include"].encode()
        fingerprint = hashlib.sha256(content).digest()
        return cls(principal.name, request.method, request.scope["path"], header.strip('"'), fingerprint)

    async def claim(self, repository: Repository) -> Record | None:
        """Claim the key and return None, or return the record that an earlier request with the same key wrote.

        Raises:
            ValidationFailedError: the earlier request had a different body.
            ConflictError: the record that the earlier request wrote is gone, or no longer visible to the principal.
        """
        connection = repository.connection
        claim_parameters = {**self._identity, "fingerprint": self.fingerprint}
        if (await connection.execute(_CLAIM_STATEMENT, claim_parameters)).one_or_none() is not None:
            return None
        stored = (await connection.execute(_SELECT_STORED, self._identity)).one()
        if stored.document is not None and stored.fingerprint != self.fingerprint:
            message = "Was sent before with another body; a new request needs a new key"
            raise ValidationFailedError([FieldError(("header", "Idempotency-Key"), message, "idempotency_key_reused")])
        if stored.unique_id is None and stored.document is not None:
            return Record("", stored.document)
        if stored.document is not None:  # the document is None if the record was erased
            with suppress(NotFoundError):
                await repository.get(stored.unique_id)
                return Record(stored.unique_id, stored.document)
        raise ConflictError("What the first request with this Idempotency-Key made is no longer there.")

    async def store(self, connection: Connection, record: Record) -> None:
        """Store `record`, which the request wrote, in the row of this key. Results of many records have no id.

        `connection` must be in the transaction that wrote the record.
        """
        stored_values = {"stored_id": record.unique_id or None, "stored_document": record.document}
        await connection.execute(_STORE_STATEMENT, {**self._identity, **stored_values})

    @property
    def _identity(self) -> dict[str, Any]:
        return {"principal": self.principal_name, "method": self.method, "path": self.path, "key": self.key}


async def delete_expired_keys(database: Database) -> None:
    """Delete the keys that are older than 24 hours, in batches.

    A database error is logged and not raised. The next run deletes the keys that remain.
    """
    batch = select(*idempotency_keys.primary_key).where(_EXPIRED).limit(PRUNE_BATCH_SIZE)
    statement = delete(idempotency_keys).where(
        tuple_(*idempotency_keys.primary_key).in_(batch.with_for_update(skip_locked=True))
    )

    async def work(connection: Connection) -> int:
        return (await connection.execute(statement)).rowcount

    try:
        while await database.transaction(work) == PRUNE_BATCH_SIZE:
            pass
    except (asyncpg.PostgresError, UnavailableError) as error:
        log.warning("expired keys were not removed", error=type(error).__name__)
