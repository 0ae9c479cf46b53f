"""Transaction batching: concurrent writes share one transaction and its statements.

The pattern is group commit, extended to statements: equal statements of several requests are executed as one. In
PostgreSQL's own group commit, transactions share only the flush to disk. But most of a transaction's cost is due to its
statements, not to the rows that they write: writing eight patients together costs a third of writing them one by one.
This module can be removed if clients send their writes in bulk, or if the throughput it adds is no longer needed.

A statement that writes can take several rows as its input (`input_rows`). It is executed once, with one row for each
request that has reached it (`execute_row`). Requests do not affect each other's results: if anything is rejected, for
any reason, the whole transaction is rolled back, and each request runs again in a transaction of its own.
"""

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import asyncpg
from cachetools import TTLCache
from sqlalchemy import CTE, ColumnClause, Executable, Row, bindparam, func, literal_column, select
from sqlalchemy.dialects.postgresql import JSON

from app.db.batching import Batcher
from app.db.connection import Connection
from app.db.database import SET_SHORT_LOCK_TIMEOUT, Database, LockNotAvailableError, TransactionRunner, Work
from app.errors import ConflictError, ServiceError, UnavailableError

T = TypeVar("T")
MAX_BATCH_COST = 16
"""Maximum total cost of the requests that share a transaction. An ordinary request has the cost 1."""
OVERLAP_AFTER_SECONDS = 0.05
"""Seconds after which the next batch may start although the current batch is still running."""
SUCCESSES_PER_REJECTION = 5
"""Number of writes of a principal that must succeed after each rejected one, before its writes are batched again."""
MAX_COUNTED_REJECTIONS = 10
"""Maximum number of rejections that count against a principal at the same time, however many there were."""
REJECTION_TTL_SECONDS = 10
"""Seconds for which the rejections of a principal count. Each further write of the principal restarts this time."""
MAX_TRACKED_PRINCIPALS = 10_000
"""Maximum number of principals whose rejected writes are counted, which bounds the memory that the counts take."""


def input_rows(*columns: ColumnClause[Any], max_rows: int | None = MAX_BATCH_COST) -> CTE:
    """Return a CTE with the input rows of a statement.

    The statement gets the rows as its parameter `rows`, which is a list of mappings from column names to values. A
    statement may get up to `max_rows` rows, or any number of rows if `max_rows` is None.
    """
    rows = func.json_to_recordset(bindparam("rows", type_=JSON)).table_valued(*columns).render_derived(with_types=True)
    # PostgreSQL's planner expects as many rows as the limit allows
    return select(*rows.c).limit(None if max_rows is None else literal_column(str(max_rows))).cte("given")


async def execute_row(
    connection: Connection,
    statement: Executable,
    row: Mapping[str, Any],
    shared_parameters: Mapping[str, Any] | None = None,
) -> Row[Any] | None:
    """Execute `statement` with `row` as its input row and return the result row with the same `unique_id`, if any.

    In a batch, one execution of the statement may process the rows of several requests. `shared_parameters` are
    parameters that are bound once for the whole execution and not per row. Other requests may pass other values for
    them, so the rows of a call with `shared_parameters` are never combined with those of other requests.
    """
    if isinstance(connection, _BatchedConnection) and not shared_parameters:
        return await connection.execute_row(statement, row)
    result = await connection.execute(statement, {"rows": [row], **(shared_parameters or {})})
    return result.one_or_none()


class _PendingStatement(NamedTuple):
    """A statement that one of the requests in a batch waits for."""

    statement: Executable
    parameters: Any
    row: Mapping[str, Any] | None
    """The request's input row for the statement, or None if the statement does not take input rows."""
    result: asyncio.Future[Any]


class _BatchedConnection(Connection):
    """The connection of a transaction that several requests share.

    It executes nothing until each request either waits for a statement or has finished. Requests of the same kind
    therefore execute the same statement together, even if some of them need more statements to get there.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.driver, connection.instrumentation)
        self._running_count = 0
        self._pending: list[_PendingStatement] = []
        self._all_waiting = asyncio.Event()
        self._has_failed = False

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        """Wait until it is the turn of this statement, execute it and return its result."""
        return await self._enqueue(statement, parameters, None)

    async def execute_row(self, statement: Executable, row: Mapping[str, Any]) -> Row[Any] | None:
        """Execute a statement for `row` and for the rows of other waiting requests. Return the result for `row`."""
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
        """Run all transactions of a batch in lock-step and return their results, in the same order.

        Raises:
            _BatchFailedError: the work of a transaction raised an error, for example because a record does not exist.
            asyncpg.PostgresError: PostgreSQL rejected a statement, which aborts the whole batch.
        """
        # a batch that waits longer is rolled back and its requests run alone, so that only the blocked request waits
        await super().execute(SET_SHORT_LOCK_TIMEOUT)
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
        """Execute the statement that the most requests wait for.

        The other statements are not executed yet, because more requests may still reach them.
        """
        groups: dict[Any, dict[Any, _PendingStatement]] = {}
        for pending in self._pending:
            if pending.row is None:
                groups[id(pending)] = {None: pending}
            else:  # if two rows are for the same record, the second row waits
                groups.setdefault(pending.statement, {}).setdefault(pending.row.get("unique_id", id(pending)), pending)
        group = max(groups.values(), key=len)
        first, *_ = group.values()
        rows = [pending.row for pending in group.values()]
        result = await super().execute(first.statement, first.parameters if first.row is None else {"rows": rows})
        rows_by_id = {row.unique_id: row for row in result} if first.row is not None else {}
        executed = set(map(id, group.values()))
        self._pending = [pending for pending in self._pending if id(pending) not in executed]
        self._running_count += len(group)
        for unique_id, pending in group.items():
            pending.result.set_result(result if pending.row is None else rows_by_id.get(unique_id))


class _BatchFailedError(Exception):
    """The work of one of the transactions in a batch raised an error of any kind."""


@dataclass(frozen=True, slots=True)
class _PendingTransaction:
    work: Work[Any]
    conflict_keys: frozenset[str]
    cost: int
    context: Context


class _Sentinel(Enum):
    """Stands for the result of a transaction if its batch was rolled back, so that it has to run again."""

    RETRY_ALONE = 0


class _RejectionTracker:
    """Tracks the rejected writes of each principal, because a rejected write makes all requests of its batch run twice.

    After each rejection, `SUCCESSES_PER_REJECTION` writes must succeed before the principal's writes are batched again.
    A principal with few rejected writes is therefore hardly affected. If all writes of a principal are rejected, its
    writes are not batched.
    """

    def __init__(self) -> None:
        self._required_successes: TTLCache[str, int] = TTLCache(MAX_TRACKED_PRINCIPALS, REJECTION_TTL_SECONDS)
        """Number of writes per principal that must succeed before the principal's writes are batched again."""

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
    """Runs transactions in batches: transactions requested while a batch runs share the next database transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batchers: dict[Hashable, Batcher[_PendingTransaction, Any]] = {}
        self._rejections = _RejectionTracker()

    def transaction(
        self, principal: str, kind: Hashable, conflict_keys: frozenset[str], cost: int = 1
    ) -> TransactionRunner:
        """Return a function that runs work of a principal in a batch with other work of the same `kind`.

        The total `cost` of a batch is at most `MAX_BATCH_COST`. `conflict_keys` are the ids of the records that the
        work may lock. The work must lock them in the order of their ids. Two pieces of work that have a conflict key in
        common never run in the same batch. If writes of the principal were rejected recently, its work is not batched
        and runs in a transaction of its own.
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

        async def run_transactions(connection: Connection) -> list[Any]:
            nonlocal is_committing
            results = await _BatchedConnection(connection).run_transactions(transactions)
            is_committing = True
            return results

        try:
            return await self._database.transaction(run_transactions, max_attempts=1)
        except Exception as error:
            if not _is_safe_to_retry(error, is_committing=is_committing):
                raise  # the batch may be committed, so a retry could store its changes twice
            return [_Sentinel.RETRY_ALONE] * len(transactions)  # only the request that caused the error fails again


def _is_safe_to_retry(error: Exception, *, is_committing: bool) -> bool:
    """Return whether a transaction that failed has certainly stored nothing and may succeed if it is retried."""
    if isinstance(error, UnavailableError):
        return isinstance(error, LockNotAvailableError)
    has_sqlstate = isinstance(error, asyncpg.PostgresError)
    return not is_committing or has_sqlstate or isinstance(error, ConflictError)
