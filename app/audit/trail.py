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
from app.db.gathering import Gathering
from app.db.session import Database, Transaction, Work
from app.db.together import execute_for, given
from app.models import audit, journal
from app.models.audit import WRITTEN
from app.resource.identifiers import is_identifier

T = TypeVar("T")

MOST_IDS = 10_000
"""Ids in the rows of one statement: about a tenth of a second of work for the index."""

_GIVEN: list[ColumnClause[Any]] = [
    column("principal", Text),
    column("method", Text),
    column("route", Text),
    column("status", SmallInteger),
    column("resource", Text),
    column("ids", ARRAY(Text)),
    column("request_id", Text),
    column("reason", Text),
]
COUNT = "COUNT"
"""The method in a row of its own, which has the records that a number in the answer tells of."""
READS = ("GET", "HEAD", COUNT)
REFUSED = 400
"""Statuses from here on are refusals: nothing was seen or changed."""


def _insert() -> Executable:
    # one statement for any number of rows, so that it is planned once; arrays of arrays would have to be rectangular
    rows = given(*_GIVEN, most=None)
    row, entry = rows.c, journal.c
    asked = func.unnest(row.ids).column_valued("asked")
    # what is no record's id may be anything that somebody typed
    known = exists().where(entry.resource == row.resource, entry.unique_id == asked)
    ids = case((row.status < REFUSED, row.ids), else_=func.array(select(asked).where(known).scalar_subquery()))
    made = (
        select(func.max(entry.version))
        .where(entry.resource == row.resource, entry.unique_id == row.ids[literal_column("1")])
        .where(entry.actor == row.principal, entry.request_id == row.request_id, entry.time >= func.now())
    )
    version = case((and_(*(row.method != read for read in READS), row.status < REFUSED), made.scalar_subquery()))
    values = {**{name.name: row[name.name] for name in _GIVEN}, "ids": ids, "version": version}
    return insert(audit).from_select(WRITTEN, select(*(values[name] for name in WRITTEN)).select_from(rows))


_INSERT = _insert()
Row = dict[str, Any]


async def write(connection: AsyncConnection, row: Row) -> None:
    """Write a row in the transaction of `connection`."""
    await execute_for(connection, _INSERT, row)


class Trail:
    """Writes the rows of requests that wait at the same moment in one statement, which is a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._gathering = Gathering(self._write, most=MOST_IDS, weight=lambda row: len(row["ids"]))

    async def write(self, row: Row) -> None:
        """Write a row; it is durable when this returns.

        Raises:
            UnavailableError: the database is away or too busy.
            sqlalchemy.exc.DBAPIError: it refuses the row.
        """
        await self._gathering.ask(row)

    async def _write(self, rows: list[Row]) -> list[None]:
        await self._database.write(_INSERT, {"rows": rows})
        return [None] * len(rows)


@dataclass
class Access:
    """What a request comes to see or to change: what is to be written of it, and whether it was."""

    trail: Trail
    state: MutableMapping[str, Any]
    """The request's: what is known of it so far."""
    on_record: bool
    """Whether it is written at all."""
    ids: Sequence[str]
    """Of the records that the answer shows, or that the path names."""
    success: int
    """The status of the answer if all goes well."""
    reason: str | None = None
    written: bool = field(default=False, init=False)
    counted: Sequence[str] = field(default=(), init=False)
    """Of the records that a number in the answer tells of."""

    @classmethod
    def of(cls, request: Request) -> "Access":
        """That of a request at hand."""
        access: Access = request.scope["state"]["access"]
        return access

    @property
    def method(self) -> str:
        """By which it was asked: HEAD too, which is served as GET."""
        method: str = self.state["method"]
        return method

    @property
    def principal(self) -> str | None:
        """The name of who asks, as far as it is known."""
        principal: Principal | None = self.state.get("principal")
        return principal.name if principal is not None else self.state.get("who")

    def row(self, status: int) -> Row:
        """The row of a request that is answered with `status`."""
        return {
            "principal": self.principal,
            "method": self.method,
            "route": self.state["route"],
            "status": status,
            "resource": self.state["route"].split("/")[1],
            "ids": list(self.ids),
            "request_id": self.state["request_id"],
            "reason": self.reason,
        }

    def break_glass(self, reason: str) -> None:
        """Note why the principal looks across the walls. That is put on record whatever the settings say."""
        self.reason = reason
        self.on_record = True

    def count(self, ids: Sequence[str]) -> None:
        """Note of which records a number tells that leaves with the next part of the list."""
        self.counted = ids

    async def show(self, ids: Sequence[str]) -> None:
        """Write down that a part of a list is about to leave which tells of these records, if only by headers."""
        self.ids = ids
        self.written = False
        await self.end(self.success)

    async def change(
        self,
        transaction: Transaction,
        work: Work[T],
        about: Callable[[T], Sequence[str]] | None = None,
    ) -> T:
        """Do the `work` of a change and write it down, in one transaction; `about` tells whose ids, if no path does."""

        async def audited(connection: AsyncConnection) -> T:
            result = await work(connection)
            if self.on_record:
                # kept in the row only: should the transaction fail, there is no such record
                ids = self.ids if about is None else about(result)
                await write(connection, {**self.row(self.success), "ids": list(ids)})
            return result

        result = await transaction(audited)
        self.written = True
        return result

    async def end(self, status: int) -> None:
        """Write down, unless that has been done, that the request is about to be answered with `status`."""
        if self.on_record and not self.written:
            row = self.row(status)
            if self.counted:
                of_number = {**row, "method": COUNT, "ids": list(self.counted)}
                await asyncio.gather(self.trail.write(of_number), self.trail.write(row))
            else:
                await self.trail.write(row)
        self.written = True
        self.counted = ()

    async def refuse(self, status: int) -> None:
        """Write down that a principal is about to be refused; not that it asks too often, or that the service fails."""
        if self.principal is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _NOT_REFUSED:
            await self.end(status)


_NOT_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS}


def command_row(principal: Principal, resource: str, ids: Sequence[str]) -> Row:
    """The row of a command that shows records."""
    return {
        "principal": principal.name,
        "method": "RUN",
        "route": principal.name,
        "status": int(HTTPStatus.OK),
        "resource": resource,
        "ids": list(ids),
    }


def requested(request: Request) -> Sequence[str]:
    """The id that the path of a request names, if it does and a record could have it."""
    unique_id = request.path_params.get("unique_id")
    return [unique_id] if unique_id is not None and is_identifier(unique_id) else []
