"""The sequence of a change, from a validated request to the committed transaction."""

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, cast

from fastapi import Request, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from app.api.idempotency import IdempotencyKey
from app.api.responses import record_response
from app.api.services import get_services
from app.audit.recorder import RequestAudit
from app.auth.principal import Principal
from app.db.database import TransactionRunner
from app.db.transaction_batching import MAX_BATCH_COST
from app.identifiers import is_identifier
from app.records.preconditions import NO_PRECONDITION, Precondition
from app.records.repository import Record
from app.records.service import Service

S = TypeVar("S", bound=Service[Any, Any])
R = TypeVar("R", bound=Record | None)


class WriteRequest(Generic[S]):
    """One change of a record of a resource. `run` executes it; `response` answers the request afterwards."""

    def __init__(
        self, request: Request, service_class: type[S], *, body: BaseModel | None = None, unique_id: str | None = None
    ) -> None:
        """Describe a change with this body, of the record `unique_id` or, if that is None, of a new one."""
        services = get_services(request)
        self._request = request
        self._service_class = service_class
        self._body = body
        self._unique_id = unique_id
        self._principal = Principal.from_request(request)
        self._audit = RequestAudit.from_request(request)
        # a new record has no earlier state that it could overwrite
        is_required = services.settings.require_if_match and unique_id is not None
        self._precondition = Precondition.from_headers(request.headers, required=is_required)
        self._key: IdempotencyKey | None = None
        self._is_replayed = False

    def accept_idempotency_key(self) -> None:
        """Have a repetition of the request, recognised by its Idempotency-Key, change nothing.

        Raises:
            ValidationFailedError: the header is repeated or malformed.
        """
        assert self._body is not None, "only requests with a body can be told apart"  # noqa: S101
        self._key = IdempotencyKey.from_request(self._request, self._principal, self._body)

    async def run(self, operation: Callable[[S, Precondition], Awaitable[R]], *, batched: bool = False) -> R:
        """Execute the operation and everything that belongs to it in one transaction, and commit it.

        The operation is a method of the service; its result, which is the record as it is then, or None after a
        deletion, is returned. `batched` allows concurrent requests of the same kind to share the transaction.
        """

        async def work(connection: AsyncConnection) -> Record | None:
            service = self._service_class(connection, self._principal)
            record = None if self._key is None else await self._key.claim(service.repository)
            self._is_replayed = record is not None
            if record is None:
                record = await operation(service, self._precondition)
                if self._key is not None and record is not None:
                    await self._key.store(connection, record)
            await self._audit.insert(connection, None if record is None else record.unique_id)
            return record

        transaction = self._batched_transaction() if batched else None
        record = await (transaction or self._own_transaction())(work)
        self._audit.recorded = True
        return cast("R", record)

    def response(self, record: Record, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        """Return the response with the record that `run` has returned."""
        replayed = {"Idempotency-Replayed": "true"} if self._is_replayed else {}
        return record_response(self._request, record.document, status, {**(headers or {}), **replayed})

    def _own_transaction(self) -> TransactionRunner:
        return get_services(self._request).database.transaction_for(self._principal.name)

    def _batched_transaction(self) -> TransactionRunner | None:
        """Return a runner that shares transactions among requests, or None if this request needs its own.

        A request with a precondition or an Idempotency-Key takes statements of its own, for which the others would have
        to wait; the statements of restricted principals have their hospitals as parameters. A request that is costly,
        or rejected at once, does not benefit the others.
        """
        assert self._body is not None  # noqa: S101  # a deletion is not batched
        cost = self._service_class.batch_cost(self._body)
        services = get_services(self._request)
        if (
            not services.settings.transaction_batching
            or self._principal.hospitals is not None
            or self._precondition != NO_PRECONDITION
            or self._key is not None
            or cost >= MAX_BATCH_COST
            or not is_identifier(self._unique_id or "new")
        ):
            return None
        conflict_keys = self._service_class.conflict_keys(self._body)
        if self._unique_id is not None:
            conflict_keys |= {self._unique_id}
        kind = self._request.scope["endpoint"]
        return services.transaction_batcher.transaction(self._principal.name, kind, conflict_keys, cost)
