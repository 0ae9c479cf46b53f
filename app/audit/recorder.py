"""Audit of requests: stores a row for each request about patients or profiles before its response is sent."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

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

from app.auth.principal import Principal
from app.db.batching import Batcher
from app.db.connection import Connection
from app.db.database import Database
from app.db.transaction_batching import execute_row, input_rows
from app.identifiers import is_identifier
from app.models import audit, journal
from app.models.audit import WRITABLE_COLUMNS
from app.request_state import RequestState

if TYPE_CHECKING:  # see `app.auth.principal`
    from fastapi import Request

MAX_IDS_PER_STATEMENT = 10_000
"""Maximum total number of ids in the rows that one statement inserts.

PostgreSQL takes about a tenth of a second to add this many ids to the index.
"""

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
"""Value that replaces the HTTP method in the audit row for a count.

If a response contains a count, it has an additional audit row with this method. The row contains the ids of the records
on which the count depends.
"""
READ_METHODS = ("GET", "HEAD", COUNT_METHOD)
FIRST_ERROR_STATUS = 400
"""Lowest HTTP status of an error. A response with this or a higher status shows no record and changes none."""


def _insert_statement() -> Executable:
    # The statement takes any number of rows, so that it is planned only once. The rows are passed as JSON, because they
    # have different numbers of ids and an SQL array of arrays would have to be rectangular.
    rows = input_rows(*_INPUT_COLUMNS, max_rows=None)
    row, entry = rows.c, journal.c
    requested_id = func.unnest(row.ids).column_valued("asked")
    # For an error response, only ids that the journal contains are stored. Other ids may be text that a person typed.
    is_requested_record = (entry.resource == row.resource, entry.unique_id == requested_id)
    # by default, the innermost of three SELECTs would not refer to the row of the outermost but to all input rows
    record_exists = exists().where(*is_requested_record).correlate_except(journal)
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


async def insert_audit_row(connection: Connection, row: AuditRow) -> None:
    """Insert an audit row in the transaction of `connection`."""
    await execute_row(connection, _INSERT_AUDIT_ROWS, row)


async def insert_audit_rows(connection: Connection, rows: Sequence[AuditRow]) -> None:
    """Insert audit rows in the transaction of `connection`."""
    for start in range(0, len(rows), MAX_IDS_PER_STATEMENT):
        await connection.execute(_INSERT_AUDIT_ROWS, {"rows": rows[start : start + MAX_IDS_PER_STATEMENT]})


class AuditRecorder:
    """Writes audit rows in transactions of its own, separate from those of the requests.

    One statement inserts the rows of concurrent requests.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batcher = Batcher(self._write_batch, max_cost=MAX_IDS_PER_STATEMENT, cost=lambda row: len(row["ids"]))

    async def write(self, row: AuditRow) -> None:
        """Write an audit row. The row is committed when this method returns.

        Raises:
            UnavailableError: the database is unreachable or overloaded.
            asyncpg.PostgresError: the database rejects the row.
        """
        await self._batcher.submit(row)

    async def _write_batch(self, rows: list[AuditRow]) -> list[None]:
        await self._database.write(_INSERT_AUDIT_ROWS, {"rows": rows})
        return [None] * len(rows)


@dataclass
class RequestAudit:
    """The audit of one request: which records the request is about to show or change, and whether this was recorded."""

    recorder: AuditRecorder
    request_state: RequestState
    audited: bool
    """Whether the request is audited. If not, nothing is recorded."""
    ids: Sequence[str]
    """The ids of the records that the response shows, or the id in the request path."""
    success_status: int
    """The HTTP status of the response if the request succeeds."""
    resource: str
    """The name of the resource that the `ids` belong to."""
    reason: str | None = None
    recorded: bool = field(default=False, init=False)
    counted_ids: Sequence[str] = field(default=(), init=False)
    """The ids of the records on which a count in the response depends."""

    @classmethod
    def from_request(cls, request: "Request") -> "RequestAudit":
        """Return the audit of the request that is being served."""
        request_audit: RequestAudit = RequestState.from_scope(request.scope).audit
        return request_audit

    @property
    def method(self) -> str:
        """The HTTP method that the client sent. It may be HEAD, although HEAD requests are served as GET."""
        return self.request_state.method

    @property
    def principal_name(self) -> str | None:
        """The name of the principal that sent the request; None if the principal could not be identified.

        The name is also set if the principal was identified but its request is rejected.
        """
        principal: Principal | None = self.request_state.principal
        return principal.name if principal is not None else self.request_state.principal_name

    def build_row(self, status: int) -> AuditRow:
        """Return the audit row for this request, given the `status` of its response."""
        return {
            "principal": self.principal_name,
            "method": self.method,
            "route": self.request_state.route,
            "status": status,
            "resource": self.resource,
            "ids": list(self.ids),
            "request_id": self.request_state.request_id,
            "reason": self.reason,
        }

    def break_glass(self, reason: str) -> None:
        """Set the reason for emergency access to records outside the principal's hospital scope.

        The request is then audited even if the settings disable the audit of reads.
        """
        self.reason = reason
        self.audited = True

    def note_counted_ids(self, ids: Sequence[str]) -> None:
        """Set the ids of the records on which a count in the response depends.

        The ids are recorded together with the response.
        """
        self.counted_ids = ids

    async def record_page(self, ids: Sequence[str]) -> None:
        """Record that the response, or a part of it, is about to reveal these records.

        Headers alone can also reveal a record. For example, the link to a next page shows that another record matches.
        """
        self.ids = ids
        self.recorded = False
        await self.record(self.success_status)

    async def record_disclosure(self, resource: str, ids: Sequence[str]) -> None:
        """Record that a response is about to reveal records of a resource that is not the route's own."""
        await self.recorder.write({**self.build_row(self.success_status), "resource": resource, "ids": list(ids)})

    async def insert(self, connection: Connection, unique_id: str | None) -> None:
        """Insert the audit row of a change in the transaction that makes the change.

        The caller has to set `recorded` after the commit. `unique_id` is the id of the changed record. If it is
        None or one of `ids`, all `ids` are recorded, by default the one in the request path.
        """
        if self.audited:
            # not stored in `self.ids`, because if the transaction fails, no such record exists
            ids = self.ids if unique_id is None or unique_id in self.ids else [unique_id]
            await insert_audit_row(connection, {**self.build_row(self.success_status), "ids": list(ids)})

    def batchable_inputs(self) -> AuditRow:
        """Return the values of the audit row of a successful change, for `app.statements.standalone`."""
        return {
            "audited": self.audited,
            "method": self.method,
            "route": self.request_state.route,
            "status": self.success_status,
            "resource": self.resource,
        }

    async def record(self, status: int) -> None:
        """Record that a response with this `status` is about to be sent, unless the request is already recorded."""
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
        """Record that the request is about to be rejected with this `status`.

        Nothing is recorded if the principal is unknown, the request is unauthenticated or exceeds a rate limit, or the
        service itself has failed.
        """
        if (
            self.principal_name is not None
            and status < HTTPStatus.INTERNAL_SERVER_ERROR
            and status not in _UNAUDITED_STATUSES
        ):
            await self.record(status)


AUDITED_RESOURCES = ("patients", "profiles")
"""Names of the resources for which reads are audited."""
_UNAUDITED_STATUSES = {HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS}


def command_row(principal: Principal, resource: str, ids: Sequence[str]) -> AuditRow:
    """Return the audit row of a command that shows records. `principal` is named after the command."""
    return {
        "principal": principal.name,
        "method": "RUN",
        "route": principal.name,
        "status": int(HTTPStatus.OK),
        "resource": resource,
        "ids": list(ids),
    }


def requested_ids(request: "Request") -> Sequence[str]:
    """Return the id in the path of the request, as a sequence of one id.

    The sequence is empty if the path contains no id, or an id that no record can have.
    """
    unique_id = request.path_params.get("unique_id")
    return [unique_id] if unique_id is not None and is_identifier(unique_id) else []
