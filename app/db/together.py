"""Transactions that are asked for in the same moment, done as one.

What a transaction costs is its statements, not the rows these write: for eight patients a third of what it is one by
one. So a statement of a change takes any number of rows (`given`), and is executed for all requests that share the
transaction and have come to it (`execute_for`). Requests know nothing of each other: where anything is refused,
whatever it is, all of it is rolled back, and each is done by itself.
"""

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from cachetools import TTLCache
from sqlalchemy import CTE, ColumnClause, Executable, Row, bindparam, func, literal_column, select
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.gathering import Gathering
from app.db.session import Database, InTheWayError, Transaction, Work, setting_locally
from app.errors import ConflictError, ServiceError, UnavailableError

T = TypeVar("T")
MOST = 16
"""Requests that share a transaction."""
PATIENCE = 0.05
"""Seconds that a request waits for a transaction that it does not share."""
ACCEPTED_FOR_REFUSED = 5
"""Changes of a principal that have to be accepted for each that was refused, before it shares transactions again."""
MOST_REFUSALS = 10
"""Refusals that are held against a principal at once."""
REFUSAL_SECONDS = 10
"""How long refusals are held against a principal that asks for nothing more."""
MOST_PRINCIPALS = 10_000
"""Principals whose refusals are remembered."""
_GIVE_WAY = setting_locally({"lock_timeout": "100ms"})
"""Who waits for somebody's lock does so by itself, and holds up nobody."""


def given(*columns: ColumnClause[Any], most: int | None = MOST) -> CTE:
    """The rows that a statement is given as `:rows`, up to `most` if there is a limit, as a part of it."""
    rows = func.json_to_recordset(bindparam("rows", type_=JSON)).table_valued(*columns).render_derived(with_types=True)
    # the limit is what PostgreSQL plans for
    return select(*rows.c).limit(None if most is None else literal_column(str(most))).cte("given")


async def execute_for(
    connection: AsyncConnection, statement: Executable, row: Mapping[str, Any], context: Mapping[str, Any] | None = None
) -> Row[Any] | None:
    """Execute a statement for one row that it is `given`, which has a `unique_id`; what it answers of this.

    The `context` is parameters that are no row's. Statements that have such are not executed for several at once.
    """
    if isinstance(connection, _Shared) and not context:
        return await connection.execute_for(statement, row)
    result = await connection.execute(statement, {"rows": [row], **(context or {})})
    return result.one_or_none() if result.returns_rows else None


class _Step(NamedTuple):
    """A statement that one of those who share a transaction has come to."""

    statement: Executable
    parameters: Any
    row: Mapping[str, Any] | None
    """That it is executed for, if it takes any number."""
    result: asyncio.Future[Any]


class _Shared(AsyncConnection):
    """The connection of a transaction that several share: nothing is executed before everybody has come to something.

    So those who do the same come to the same statement, though some have had more to do before.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection.engine, connection.sync_connection)
        self._busy = 0
        self._steps: list[_Step] = []
        self._all_have_come = asyncio.Event()
        self._refused = False

    async def execute(self, statement: Any, parameters: Any = None) -> Any:  # type: ignore[override]
        """Execute a statement, in its turn."""
        return await self._come_to(statement, parameters, None)

    async def execute_for(self, statement: Executable, row: Mapping[str, Any]) -> Row[Any] | None:
        """Execute a statement for a row, with whoever comes to the same; what it answers of this row."""
        answered: Row[Any] | None = await self._come_to(statement, None, row)
        return answered

    async def _come_to(self, statement: Executable, parameters: Any, row: Mapping[str, Any] | None) -> Any:
        step = _Step(statement, parameters, row, asyncio.get_running_loop().create_future())
        self._steps.append(step)
        self._pause()
        return await step.result

    def _pause(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._all_have_come.set()

    async def share(self, changes: Sequence["_Change"]) -> list[Any]:
        """Do all of it; what each comes to.

        Raises:
            _RefusedError: something of it was refused.
        """
        await super().execute(_GIVE_WAY)
        self._busy = len(changes)
        tasks = [asyncio.create_task(self._do(change.work), context=change.context) for change in changes]
        try:
            while True:
                await self._all_have_come.wait()
                self._all_have_come.clear()
                if self._refused:
                    raise _RefusedError
                if not self._steps:
                    return [task.result() for task in tasks]
                await self._go_on()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _do(self, work: Work[T]) -> T:
        try:
            return await work(self)
        except Exception:
            self._refused = True
            raise
        finally:
            self._pause()

    async def _go_on(self) -> None:
        """Execute the statement that most have come to: the others may come to it, too."""
        alike: dict[Any, dict[Any, _Step]] = {}
        for step in self._steps:
            if step.row is None:
                alike[id(step)] = {None: step}
            else:  # of two that are for the same record, the second is executed later
                alike.setdefault(step.statement, {}).setdefault(step.row.get("unique_id", id(step)), step)
        steps = max(alike.values(), key=len)
        first, *_ = steps.values()
        rows = [step.row for step in steps.values()]
        result = await super().execute(first.statement, first.parameters if first.row is None else {"rows": rows})
        answered = {row.unique_id: row for row in result} if first.row is not None and result.returns_rows else {}
        done = set(map(id, steps.values()))
        self._steps = [step for step in self._steps if id(step) not in done]
        self._busy += len(steps)
        for unique_id, step in steps.items():
            step.result.set_result(result if step.row is None else answered.get(unique_id))


class _RefusedError(Exception):
    """Some of what was to be done together was refused, for whatever reason."""


@dataclass(frozen=True, slots=True)
class _Change:
    work: Work[Any]
    touched: frozenset[str]
    weight: int
    context: Context


class _Apart(Enum):
    """What becomes of what was not done together."""

    APART = 0


class _Refusals:
    """How much of what a principal asks for is refused: in a shared transaction that is done twice, by all that share.

    Each refusal weighs as much as `ACCEPTED_FOR_REFUSED` changes that are accepted, so a client that is refused now and
    then hardly notices; one that is refused always shares nothing.
    """

    def __init__(self) -> None:
        self._owed: TTLCache[str, int] = TTLCache(MOST_PRINCIPALS, REFUSAL_SECONDS)
        """Changes that have to be accepted first, by principal."""

    def may_share(self, principal: str) -> bool:
        return not self._owed.get(principal)

    def note(self, principal: str, *, refused: bool) -> None:
        owed = self._owed.get(principal, 0)
        if refused:
            self._owed[principal] = min(owed + ACCEPTED_FOR_REFUSED, MOST_REFUSALS * ACCEPTED_FOR_REFUSED)
        elif owed:
            self._owed[principal] = owed - 1


class Together:
    """Runs transactions, those that are asked for while another one runs together."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._gatherings: dict[Hashable, Gathering[_Change, Any]] = {}
        self._refusals = _Refusals()

    def transaction(self, principal: str, kind: Hashable, touched: frozenset[str], weight: int = 1) -> Transaction:
        """A transaction that is run with others of its `kind`, of all together `MOST` by weight.

        No two have in common what is `touched`: the ids of records that may be locked, which happens in their order.
        A principal whose changes were refused just now gets one of its own.
        """

        async def transaction(work: Work[T], /) -> T:
            result: T | _Apart = _Apart.APART
            try:
                if self._refusals.may_share(principal):
                    result = await self._gathering(kind).ask(_Change(work, touched, weight, copy_context()))
                if isinstance(result, _Apart):
                    result = await self._database.transaction_of(principal)(work)
            except ServiceError as error:
                self._refusals.note(principal, refused=not isinstance(error, UnavailableError))
                raise
            self._refusals.note(principal, refused=False)
            return result

        return transaction

    def _gathering(self, kind: Hashable) -> Gathering[_Change, Any]:
        if (gathering := self._gatherings.get(kind)) is None:
            gathering = self._gatherings[kind] = Gathering(
                self._do, most=MOST, weight=attrgetter("weight"), touched=attrgetter("touched"), patience=PATIENCE
            )
        return gathering

    async def _do(self, changes: list[_Change]) -> Sequence[Any]:
        if len(changes) == 1:
            return [await self._database.transaction(changes[0].work)]
        committing = False

        async def share(connection: AsyncConnection) -> list[Any]:
            nonlocal committing
            results = await _Shared(connection).share(changes)
            committing = True
            return results

        try:
            return await self._database.transaction(share, attempts=1)
        except Exception as error:
            if not _rolled_back(error, committing=committing):
                raise  # done again it might be done twice
            return [_Apart.APART] * len(changes)  # whoever's error it is meets it again


def _rolled_back(error: Exception, *, committing: bool) -> bool:
    """Whether it is certain that a transaction has stored nothing, and another may succeed."""
    if isinstance(error, UnavailableError):
        return isinstance(error, InTheWayError)
    refused = isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) is not None
    return not committing or refused or isinstance(error, ConflictError)
