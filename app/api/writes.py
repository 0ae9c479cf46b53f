"""Requests that change a record, from the validated body to the committed transaction."""

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, cast

from fastapi import Request, Response
from pydantic import BaseModel

from app.api.responses import record_response
from app.api.services import get_services
from app.audit.recorder import RequestAudit
from app.auth.principal import Principal
from app.db.connection import Connection
from app.db.transaction_batching import MAX_BATCH_COST, BatchableWrite
from app.identifiers import is_identifier
from app.records.idempotency import IdempotencyKey
from app.records.preconditions import NO_PRECONDITION, Precondition
from app.records.results import Record
from app.records.service import Service

S = TypeVar("S", bound=Service[Any, Any])
R = TypeVar("R", bound=Record | None)


class WriteRequest(Generic[S]):
    """A request that changes one record. Call `run` to make the change, then `response` to build the response."""

    def __init__(
        self,
        request: Request,
        service_class: type[S],
        *,
        body: BaseModel | None = None,
        unique_id: str | None = None,
        accepts_key: bool = False,
    ) -> None:
        """Prepare a change to the record `unique_id`, or the creation of a record if `unique_id` is None.

        `body` is the validated body; a deletion has none. If `accepts_key` is true, a request that repeats the
        Idempotency-Key of an earlier request changes nothing.

        Raises:
            ValidationFailedError: the request has several Idempotency-Key headers, or the header is malformed.
        """
        self._services = get_services(request)
        self._request = request
        self._service_class = service_class
        self._body = body
        self._unique_id = unique_id
        self._principal = Principal.from_request(request)
        self._audit = RequestAudit.from_request(request)
        # a creation cannot overwrite an earlier state, so it needs no If-Match
        is_required = self._services.settings.require_if_match and unique_id is not None
        self._precondition = Precondition.from_headers(request.headers, required=is_required)
        self._key: IdempotencyKey | None = None
        if accepts_key and body is not None:
            self._key = IdempotencyKey.from_request(request, self._principal, body)
        self._is_replayed = False

    async def run(
        self,
        operation: Callable[[S, Precondition], Awaitable[R]],
        *,
        batched: bool = False,
        check: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> R:
        """Execute `operation` in one transaction, commit the transaction, and return the record.

        `operation` calls a method of the service and returns the record in its new state, or None after a deletion. If
        an earlier request had the same Idempotency-Key, `operation` is not called, and the record that the earlier
        request wrote is returned. The transaction also inserts the audit row and stores the key. `batched` allows
        concurrent requests of the same kind to share a statement. `check` raises an error if the change must not be
        made. It is not called for a repeated request, and precedes the transaction if that is shared.
        """

        async def work(connection: Connection) -> Record | None:
            service = self._service_class(connection, self._principal)
            record = None if self._key is None else await self._key.claim(service.repository)
            self._is_replayed = record is not None
            if record is None:
                if check is not None:
                    await check(connection)
                record = await operation(service, self._precondition)
                if self._key is not None and record is not None:
                    await self._key.store(connection, record)
            await self._audit.insert(connection, None if record is None else record.unique_id)
            return record

        write = self._batchable_write(self._body) if batched and self._body is not None else None
        if write is None:
            record = await self._services.database.transaction_for(self._principal.name, work)
        else:
            if check is not None:
                async with self._services.database.read() as connection:
                    await check(connection)
            record = await self._services.transaction_batcher.run(
                self._principal.name, write, self._service_class.batched_record, work
            )
        self._audit.recorded = True
        self._services.change_watcher.note_commit()
        return cast("R", record)

    def response(self, record: Record, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        """Return the response with `record`, which `run` returned.

        The header `Idempotency-Replayed` is added if the record was written by an earlier request.
        """
        headers = {**(headers or {}), **self.replay_headers}
        if record.warnings:
            headers["Identifier-Warning"] = ", ".join(record.warnings)
        return record_response(self._request, record.document, status, headers)

    @property
    def replay_headers(self) -> dict[str, str]:
        """The headers that say whether `run` returned the result of an earlier request."""
        return {"Idempotency-Replayed": "true"} if self._is_replayed else {}

    def _batchable_write(self, body: BaseModel) -> BatchableWrite | None:
        """Return the change as a single statement, or None if this request needs its own transaction.

        A request with a precondition or an Idempotency-Key executes additional statements. A statement of a restricted
        principal has the principal's hospitals as parameters, so it cannot be executed for several requests at once.
        Other requests would gain nothing from sharing a statement with a costly request, or with a request that is
        rejected because its id is malformed.
        """
        if (
            not self._services.settings.transaction_batching
            or self._principal.hospitals is not None
            or self._precondition != NO_PRECONDITION
            or self._key is not None
            or self._service_class.batch_cost(body) >= MAX_BATCH_COST
            or (self._unique_id is not None and not is_identifier(self._unique_id))
        ):
            return None
        write = (
            self._service_class.batchable_create(body, self._principal)
            if self._unique_id is None
            else self._service_class.batchable_update(self._unique_id, body, self._principal)
        )
        return write and write._replace(row={**write.row, **self._audit.batchable_inputs()})
