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

from app.db.batching import Batcher
from app.db.database import Database, LockNotAvailableError, TransactionRunner, Work, set_local
from app.errors import ConflictError, ServiceError, UnavailableError

T = TypeVar("T")
MAX_BATCH_COST = 16
"""Requests that share a transaction."""
OVERLAP_AFTER_SECONDS = 0.05
"""Seconds that a request waits for a transaction that it does not share."""
SUCCESSES_PER_REJECTION = 5
"""Changes of a principal that have to be accepted for each that was refused, before it shares transactions again."""
MAX_COUNTED_REJECTIONS = 10
"""Refusals that are held against a principal at once."""
REJECTION_TTL_SECONDS = 10
"""How long refusals are held against a principal that asks for nothing more."""
MAX_TRACKED_PRINCIPALS = 10_000
"""Principals whose refusals are remembered."""
_SET_SHORT_LOCK_TIMEOUT = set_local({"lock_timeout": "100ms"})
"""Who waits for somebody's lock does so by itself, and holds up nobody."""


def input_rows(*columns: ColumnClause[Any], max_rows: int | None = MAX_BATCH_COST) -> CTE:
    """The rows that a statement is given as `:rows`, up to `most` if there is a limit, as a part of it."""
    rows = func.json_to_recordset(bindparam("rows", type_=JSON)).table_valued(*columns).render_derived(with_types=True)
    # the limit is what PostgreSQL plans for
    return select(*rows.c).limit(None if max_rows is None else literal_column(str(max_rows))).cte("given")


async def execute_row(
    connection: AsyncConnection,
    statement: Executable,
    row: Mapping[str, Any],
    shared_parameters: Mapping[str, Any] | None = None,
) -> Row[Any] | None:
    """Execute a statement for one row that it is `given`, which has a `unique_id`; what it answers of this.

    The `context` is parameters that are no row's. Statements that have such are not executed for several at once.
    """
    if isinstance(connection, _BatchedConnection) and not shared_parameters:
        return await connection.execute_row(statement, row)
    result = await connection.execute(statement, {"rows": [row], **(shared_parameters or {})})
    return result.one_or_none() if result.returns_rows else None


class _PendingStatement(NamedTuple):
    """A statement that one of those who share a transaction has come to."""

    statement: Executable
    parameters: Any
    row: Mapping[str, Any] | None
    """That it is executed for, if it takes any number."""
    result: asyncio.Future[Any]


class _BatchedConnection(AsyncConnection):
    """The connection of a transaction that several share: nothing is executed before everybody has come to something.

    So those who do the same come to the same statement, though some have had more to do before.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection.engine, connection.sync_connection)
        self._running_count = 0
        self._pending: list[_PendingStatement] = []
        self._all_waiting = asyncio.Event()
        self._has_failed = False

    async def execute(self, statement: Any, parameters: Any = None) -> Any:  # type: ignore[override]
        """Execute a statement, in its turn."""
        return await self._enqueue(statement, parameters, None)

    async def execute_row(self, statement: Executable, row: Mapping[str, Any]) -> Row[Any] | None:
        """Execute a statement for a row, with whoever comes to the same; what it answers of this row."""
        result: Row[Any] | None = await self._enqueue(statement, None, row)
        return result

    async def _enqueue(self, statement: Executable, parameters: Any, row: Mapping[str, Any] | None) -> Any:
        pending = _PendingStatement(statement, parameters, row, asyncio.get_running_loop().create_future())
        self._pending.append(pending)
        self._note_waiting()
        return await pending.result

    def _note_waiting(self) -> None:
        self._running_count -= 1
        if not self._running_count:
            self._all_waiting.set()

    async def run_transactions(self, transactions: Sequence["_PendingTransaction"]) -> list[Any]:
        """Do all of it; what each comes to.

        Raises:
            _RefusedError: something of it was refused.
        """
        await super().execute(_SET_SHORT_LOCK_TIMEOUT)
        self._running_count = len(transactions)
        tasks = [
            asyncio.create_task(self._run_transaction(change.work), context=change.context) for change in transactions
        ]
        try:
            while True:
                await self._all_waiting.wait()
                self._all_waiting.clear()
                if self._has_failed:
                    raise _BatchFailedError
                if not self._pending:
                    return [task.result() for task in tasks]
                await self._execute_largest_group()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_transaction(self, work: Work[T]) -> T:
        try:
            return await work(self)
        except Exception:
            self._has_failed = True
            raise
        finally:
            self._note_waiting()

    async def _execute_largest_group(self) -> None:
        """Execute the statement that most have come to: the others may come to it, too."""
        groups: dict[Any, dict[Any, _PendingStatement]] = {}
        for pending in self._pending:
            if pending.row is None:
                groups[id(pending)] = {None: pending}
            else:  # of two that are for the same record, the second is executed later
                groups.setdefault(pending.statement, {}).setdefault(pending.row.get("unique_id", id(pending)), pending)
        group = max(groups.values(), key=len)
        first, *_ = group.values()
        rows = [pending.row for pending in group.values()]
        result = await super().execute(first.statement, first.parameters if first.row is None else {"rows": rows})
        rows_by_id = {row.unique_id: row for row in result} if first.row is not None and result.returns_rows else {}
        executed = set(map(id, group.values()))
        self._pending = [pending for pending in self._pending if id(pending) not in executed]
        self._running_count += len(group)
        for unique_id, pending in group.items():
            pending.result.set_result(result if pending.row is None else rows_by_id.get(unique_id))


class _BatchFailedError(Exception):
    """Some of what was to be done together was refused, for whatever reason."""


@dataclass(frozen=True, slots=True)
class _PendingTransaction:
    work: Work[Any]
    conflict_keys: frozenset[str]
    cost: int
    context: Context


class _Sentinel(Enum):
    """What becomes of what was not done together."""

    RETRY_ALONE = 0


class _RejectionTracker:
    """How much of what a principal asks for is refused: in a shared transaction that is done twice, by all that share.

    Each refusal weighs as much as `ACCEPTED_FOR_REFUSED` changes that are accepted, so a client that is refused now and
    then hardly notices; one that is refused always shares nothing.
    """

    def __init__(self) -> None:
        self._required_successes: TTLCache[str, int] = TTLCache(MAX_TRACKED_PRINCIPALS, REJECTION_TTL_SECONDS)
        """Changes that have to be accepted first, by principal."""

    def may_batch(self, principal: str) -> bool:
        return not self._required_successes.get(principal)

    def record(self, principal: str, *, rejected: bool) -> None:
        required = self._required_successes.get(principal, 0)
        if rejected:
            self._required_successes[principal] = min(
                required + SUCCESSES_PER_REJECTION, MAX_COUNTED_REJECTIONS * SUCCESSES_PER_REJECTION
            )
        elif required:
            self._required_successes[principal] = required - 1


class TransactionBatcher:
    """Runs transactions, those that are asked for while another one runs together."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batchers: dict[Hashable, Batcher[_PendingTransaction, Any]] = {}
        self._rejections = _RejectionTracker()

    def transaction(
        self, principal: str, kind: Hashable, conflict_keys: frozenset[str], cost: int = 1
    ) -> TransactionRunner:
        """A transaction that is run with others of its `kind`, of all together `MOST` by weight.

        No two have in common what is `touched`: the ids of records that may be locked, which happens in their order.
        A principal whose changes were refused just now gets one of its own.
        """

        async def transaction(work: Work[T], /) -> T:
            result: T | _Sentinel = _Sentinel.RETRY_ALONE
            try:
                if self._rejections.may_batch(principal):
                    result = await self._batcher_for(kind).submit(
                        _PendingTransaction(work, conflict_keys, cost, copy_context())
                    )
                if isinstance(result, _Sentinel):
                    result = await self._database.transaction_for(principal)(work)
            except ServiceError as error:
                self._rejections.record(principal, rejected=not isinstance(error, UnavailableError))
                raise
            self._rejections.record(principal, rejected=False)
            return result

        return transaction

    def _batcher_for(self, kind: Hashable) -> Batcher[_PendingTransaction, Any]:
        if (batcher := self._batchers.get(kind)) is None:
            batcher = self._batchers[kind] = Batcher(
                self._run_batch,
                max_cost=MAX_BATCH_COST,
                cost=attrgetter("cost"),
                conflict_keys=attrgetter("conflict_keys"),
                overlap_after=OVERLAP_AFTER_SECONDS,
            )
        return batcher

    async def _run_batch(self, transactions: list[_PendingTransaction]) -> Sequence[Any]:
        if len(transactions) == 1:
            return [await self._database.transaction(transactions[0].work)]
        is_committing = False

        async def run_transactions(connection: AsyncConnection) -> list[Any]:
            nonlocal is_committing
            results = await _BatchedConnection(connection).run_transactions(transactions)
            is_committing = True
            return results

        try:
            return await self._database.transaction(run_transactions, max_attempts=1)
        except Exception as error:
            if not _is_safe_to_retry(error, is_committing=is_committing):
                raise  # done again it might be done twice
            return [_Sentinel.RETRY_ALONE] * len(transactions)  # whoever's error it is meets it again


def _is_safe_to_retry(error: Exception, *, is_committing: bool) -> bool:
    """Whether it is certain that a transaction has stored nothing, and another may succeed."""
    if isinstance(error, UnavailableError):
        return isinstance(error, LockNotAvailableError)
    has_sqlstate = isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) is not None
    return not is_committing or has_sqlstate or isinstance(error, ConflictError)
