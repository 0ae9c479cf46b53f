"""Idempotency-Key: a request that is sent again is answered as it was the first time.

After draft-ietf-httpapi-idempotency-key-header. The key is inserted before all else of the transaction, so that a
repeat waits at the primary key for the first to end; it is stored with what it made, or not at all.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import structlog
from fastapi import Request
from pydantic import BaseModel
from sqlalchemy import delete, func, null, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.db.database import Database
from app.errors import ConflictError, FieldError, NotFoundError, UnavailableError, ValidationFailedError
from app.models import idempotency_keys
from app.records.repository import Record
from app.records.service import Service

log = structlog.get_logger()

KEY_RETENTION = timedelta(hours=24)
PRUNE_BATCH_SIZE = 1000
KEY_PATTERN = r'^(?:[!#-~]{1,255}|"[!#-~]{1,255}")$'
"""A key, quoted or not: visible ASCII characters without quotes inside."""

_EXPIRED = idempotency_keys.c.time < func.statement_timestamp() - KEY_RETENTION


class IdempotentResult(NamedTuple):
    """What a request came to."""

    record: Record
    replayed: bool


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A request that may be sent again."""

    principal_name: str
    method: str
    path: str
    key: str
    fingerprint: bytes
    """Of the body as it was understood: spaces and the order of keys make no other request."""

    @classmethod
    def from_request(cls, request: Request, principal: Principal, body: BaseModel) -> "IdempotencyKey | None":
        """The request's key, if it has one.

        Raises:
            InvalidError: it cannot be used.
        """
        headers = request.headers.getlist("idempotency-key")
        if not headers:
            return None
        header = headers[0]
        if len(headers) > 1 or re.fullmatch(KEY_PATTERN, header) is None:
            message = "Must be one text of 1 to 255 visible ASCII characters, such as a UUID"
            raise ValidationFailedError([FieldError(("header", "Idempotency-Key"), message, "idempotency_key")])
        fingerprint = hashlib.sha256(body.model_dump_json(exclude_unset=True).encode()).digest()
        return cls(principal.name, request.method, request.scope["path"], header.strip('"'), fingerprint)


S = TypeVar("S", bound=Service[Any, Any])


async def execute_idempotently(
    key: IdempotencyKey | None, service: S, work: Callable[[S], Awaitable[Record]]
) -> IdempotentResult:
    """Have `service` do `work`; if the key's request was answered before, do nothing and answer as that was.

    Raises:
        InvalidError: the key came with another body.
        ConflictError: what the first made is gone, or no longer the principal's to see.
    """
    if key is None:
        return IdempotentResult(await work(service), replayed=False)
    columns = idempotency_keys.c
    identity = {"principal": key.principal_name, "method": key.method, "path": key.path, "key": key.key}
    same_key = [columns[name] == value for name, value in identity.items()]
    renewed_values = {"fingerprint": key.fingerprint, "time": func.statement_timestamp(), "document": null()}
    claim = (
        insert(idempotency_keys)
        .values(**identity, fingerprint=key.fingerprint)
        .on_conflict_do_update(index_elements=list(identity), set_=renewed_values, where=_EXPIRED)
        .returning(columns.key)
    )
    if (await service.connection.execute(claim)).one_or_none() is not None:
        record = await work(service)
        await service.connection.execute(update(idempotency_keys).where(*same_key).values(record._asdict()))
        return IdempotentResult(record, replayed=False)
    stored = (await service.connection.execute(select(idempotency_keys).where(*same_key))).one()
    if stored.document is not None and stored.fingerprint != key.fingerprint:
        message = "Was sent before with another body; a new request needs a new key"
        raise ValidationFailedError([FieldError(("header", "Idempotency-Key"), message, "idempotency_key_reused")])
    if stored.document is not None:  # else it was erased
        with suppress(NotFoundError):
            await service.repository.get(stored.unique_id)
            return IdempotentResult(Record(stored.unique_id, stored.document), replayed=True)
    raise ConflictError("What the first request with this Idempotency-Key made is no longer there.")


async def delete_expired_keys(database: Database) -> None:
    """Forget keys that are older than 24 hours, in portions; what cannot be done now is done next time."""
    batch = select(*idempotency_keys.primary_key).where(_EXPIRED).limit(PRUNE_BATCH_SIZE)
    statement = delete(idempotency_keys).where(
        tuple_(*idempotency_keys.primary_key).in_(batch.with_for_update(skip_locked=True))
    )

    async def work(connection: AsyncConnection) -> int:
        return (await connection.execute(statement)).rowcount

    try:
        while await database.transaction(work) == PRUNE_BATCH_SIZE:
            pass
    except (DBAPIError, UnavailableError) as error:
        log.warning("expired keys were not removed", error=type(error).__name__)
