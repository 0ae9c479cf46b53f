"""The trail: a durable row for each request for patients and profiles, before its answer leaves."""

import asyncio
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import Request
from sqlalchemy import (
    ARRAY,
    ColumnClause,
    Executable,
    SmallInteger,
    Text,
    and_,
    case,
    column,
    exists,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.db.batching import Batcher
from app.db.database import Database, TransactionRunner, Work
from app.db.transaction_batching import execute_row, input_rows
from app.identifiers import is_identifier
from app.models import audit, journal
from app.models.audit import WRITABLE_COLUMNS

T = TypeVar("T")

MAX_IDS_PER_STATEMENT = 10_000
"""Ids in the rows of one statement: about a tenth of a second of work for the index."""

_INPUT_COLUMNS: list[ColumnClause[Any]] = [
    column("principal", Text),
    column("method", Text),
    column("route", Text),
    column("status", SmallInteger),
    column("resource", Text),
    column("ids", ARRAY(Text)),
    column("request_id", Text),
    column("reason", Text),
]
COUNT_METHOD = "COUNT"
"""The method in a row of its own, which has the records that a number in the answer tells of."""
READ_METHODS = ("GET", "HEAD", COUNT_METHOD)
FIRST_ERROR_STATUS = 400
"""Statuses from here on are refusals: nothing was seen or changed."""


def _insert_statement() -> Executable:
    # one statement for any number of rows, so that it is planned once; arrays of arrays would have to be rectangular
    rows = input_rows(*_INPUT_COLUMNS, max_rows=None)
    row, entry = rows.c, journal.c
    requested_id = func.unnest(row.ids).column_valued("asked")
    # what is no record's id may be anything that somebody typed
    record_exists = exists().where(entry.resource == row.resource, entry.unique_id == requested_id)
    ids = case(
        (row.status < FIRST_ERROR_STATUS, row.ids),
        else_=func.array(select(requested_id).where(record_exists).scalar_subquery()),
    )
    written_version = (
        select(func.max(entry.version))
        .where(entry.resource == row.resource, entry.unique_id == row.ids[literal_column("1")])
        .where(entry.actor == row.principal, entry.request_id == row.request_id, entry.time >= func.now())
    )
    version = case(
        (
            and_(*(row.method != method for method in READ_METHODS), row.status < FIRST_ERROR_STATUS),
            written_version.scalar_subquery(),
        )
    )
    values = {**{name.name: row[name.name] for name in _INPUT_COLUMNS}, "ids": ids, "version": version}
    return insert(audit).from_select(
        WRITABLE_COLUMNS, select(*(values[name] for name in WRITABLE_COLUMNS)).select_from(rows)
    )


_INSERT_AUDIT_ROWS = _insert_statement()
AuditRow = dict[str, Any]


async def insert_audit_row(connection: AsyncConnection, row: AuditRow) -> None:
    """Write a row in the transaction of `connection`."""
    await execute_row(connection, _INSERT_AUDIT_ROWS, row)


class AuditRecorder:
    """Writes the rows of requests that wait at the same moment in one statement, which is a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batcher = Batcher(self._write_batch, max_cost=MAX_IDS_PER_STATEMENT, cost=lambda row: len(row["ids"]))

    async def write(self, row: AuditRow) -> None:
        """Write a row; it is durable when this returns.

        Raises:
            UnavailableError: the database is away or too busy.
            sqlalchemy.exc.DBAPIError: it refuses the row.
        """
        await self._batcher.submit(row)

    async def _write_batch(self, rows: list[AuditRow]) -> list[None]:
        await self._database.write(_INSERT_AUDIT_ROWS, {"rows": rows})
        return [None] * len(rows)


@dataclass
class RequestAudit:
    """What a request comes to see or to change: what is to be written of it, and whether it was."""

    recorder: AuditRecorder
    request_state: MutableMapping[str, Any]
    """The request's: what is known of it so far."""
    audited: bool
    """Whether it is written at all."""
    ids: Sequence[str]
    """Of the records that the answer shows, or that the path names."""
    success_status: int
    """The status of the answer if all goes well."""
    reason: str | None = None
    recorded: bool = field(default=False, init=False)
    counted_ids: Sequence[str] = field(default=(), init=False)
    """Of the records that a number in the answer tells of."""

    @classmethod
    def from_request(cls, request: Request) -> "RequestAudit":
        """That of a request at hand."""
        request_audit: RequestAudit = request.scope["state"]["access"]
        return request_audit

    @property
    def method(self) -> str:
        """By which it was asked: HEAD too, which is served as GET."""
        method: str = self.request_state["method"]
        return method

    @property
    def principal_name(self) -> str | None:
        """The name of who asks, as far as it is known."""
        principal: Principal | None = self.request_state.get("principal")
        return principal.name if principal is not None else self.request_state.get("who")

    def build_row(self, status: int) -> AuditRow:
        """The row of a request that is answered with `status`."""
        return {
            "principal": self.principal_name,
            "method": self.method,
            "route": self.request_state["route"],
            "status": status,
            "resource": self.request_state["route"].split("/")[1],
            "ids": list(self.ids),
            "request_id": self.request_state["request_id"],
            "reason": self.reason,
        }

    def break_glass(self, reason: str) -> None:
        """Note why the principal looks across the walls. That is put on record whatever the settings say."""
        self.reason = reason
        self.audited = True

    def note_counted_ids(self, ids: Sequence[str]) -> None:
        """Note of which records a number tells that leaves with the next part of the list."""
        self.counted_ids = ids

    async def record_page(self, ids: Sequence[str]) -> None:
        """Write down that a part of a list is about to leave which tells of these records, if only by headers."""
        self.ids = ids
        self.recorded = False
        await self.record(self.success_status)

    async def run_audited(
        self,
        transaction: TransactionRunner,
        work: Work[T],
        ids_of_result: Callable[[T], Sequence[str]] | None = None,
    ) -> T:
        """Do the `work` of a change and write it down, in one transaction; `about` tells whose ids, if no path does."""

        async def audited_work(connection: AsyncConnection) -> T:
            result = await work(connection)
            if self.audited:
                # kept in the row only: should the transaction fail, there is no such record
                ids = self.ids if ids_of_result is None else ids_of_result(result)
                await insert_audit_row(connection, {**self.build_row(self.success_status), "ids": list(ids)})
            return result

        result = await transaction(audited_work)
        self.recorded = True
        return result

    async def record(self, status: int) -> None:
        """Write down, unless that has been done, that the request is about to be answered with `status`."""
        if self.audited and not self.recorded:
            row = self.build_row(status)
            if self.counted_ids:
                count_row = {**row, "method": COUNT_METHOD, "ids": list(self.counted_ids)}
                await asyncio.gather(self.recorder.write(count_row), self.recorder.write(row))
            else:
                await self.recorder.write(row)
        self.recorded = True
        self.counted_ids = ()

    async def record_denial(self, status: int) -> None:
        """Write down that a principal is about to be refused; not that it asks too often, or that the service fails."""
        if (
            self.principal_name is not None
            and status < HTTPStatus.INTERNAL_SERVER_ERROR
            and status not in _UNAUDITED_STATUSES
        ):
            await self.record(status)


_UNAUDITED_STATUSES = {HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS}


def command_row(principal: Principal, resource: str, ids: Sequence[str]) -> AuditRow:
    """The row of a command that shows records."""
    return {
        "principal": principal.name,
        "method": "RUN",
        "route": principal.name,
        "status": int(HTTPStatus.OK),
        "resource": resource,
        "ids": list(ids),
    }


def requested_ids(request: Request) -> Sequence[str]:
    """The id that the path of a request names, if it does and a record could have it."""
    unique_id = request.path_params.get("unique_id")
    return [unique_id] if unique_id is not None and is_identifier(unique_id) else []
