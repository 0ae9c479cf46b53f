"""Transaction batching: concurrent writes share one statement, which is a transaction by itself.

The pattern is group commit, extended to statements. In PostgreSQL's own group commit, transactions share only the flush
to disk. But most of a transaction's cost is due to its statements, not to the rows that they write: writing eight
patients together costs a third of writing them one by one. This module can be removed if clients send their writes in
bulk, or if the throughput it adds is no longer needed.

A statement that writes takes several rows as its input (`input_rows`), one for each request. Requests do not affect
each other's results: if the statement fails, for any reason, it has stored nothing, and each request runs again in a
transaction of its own.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from cachetools import TTLCache
from sqlalchemy import (
    CTE,
    ColumnClause,
    ColumnElement,
    Executable,
    Row,
    bindparam,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSON

from app.db.batching import Batcher
from app.db.connection import Connection
from app.db.database import SHORT_LOCK_TIMEOUT, Database, Work
from app.db.errors import LockNotAvailableError
from app.errors import ServiceError, UnavailableError

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


def input_rows(
    *columns: ColumnClause[Any], max_rows: int | None = MAX_BATCH_COST, short_lock_timeout: bool = False
) -> CTE:
    """Return a CTE with the input rows of a statement.

    The statement gets the rows as its parameter `rows`, which is a list of mappings from column names to values. A
    statement may get up to `max_rows` rows, or any number of rows if `max_rows` is None. With `short_lock_timeout`, the
    statement fails if it has to wait long for a lock, because other requests wait for it.
    """
    rows = func.json_to_recordset(bindparam("rows", type_=JSON)).table_valued(*columns).render_derived(with_types=True)
    statement = select(*rows.c)
    if short_lock_timeout:
        timeout: ColumnElement[str] = literal_column(f"'{SHORT_LOCK_TIMEOUT}'")
        # set when the rows are read, which is before anything is locked
        is_set = func.set_config(literal_column("'lock_timeout'"), timeout, literal_column("true")) == timeout
        # of rows that meet an equality, PostgreSQL's planner expects one, so it joins them without hash tables
        return statement.where(is_set).cte("given")
    # PostgreSQL's planner expects as many rows as the limit allows
    limit: ColumnElement[int] | None = None if max_rows is None else literal_column(str(max_rows))
    return statement.limit(limit).cte("given")


async def execute_row(
    connection: Connection,
    statement: Executable,
    row: Mapping[str, Any],
    shared_parameters: Mapping[str, Any] | None = None,
) -> Row[Any] | None:
    """Execute `statement` with `row` as its only input row and return the result row, if there is one."""
    result = await connection.execute(statement, {"rows": [row], **(shared_parameters or {})})
    return result.one_or_none()


class BatchableWrite(NamedTuple):
    """A change to one record that is a single statement, which may make the changes of several requests."""

    statement: Executable
    """The statement. It returns a row with the `unique_id` of each input row, or fails and stores nothing."""
    row: Mapping[str, Any]
    """The input row, with the `unique_id` of the record."""
    conflict_keys: frozenset[str]
    """The ids of the records that the change may lock. Changes with a common id run one after another."""
    cost: int
    """The cost of the change. An ordinary one has the cost 1."""


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


class _Failure(NamedTuple):
    """Stands for the result of a write whose statement failed and has certainly stored nothing."""

    write_count: int
    """Number of writes that the statement made."""
    spent_seconds: float
    """Seconds that the statement took."""


class TransactionBatcher:
    """Makes changes in batches: changes requested while a statement runs share the next one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batchers: dict[Hashable, Batcher[BatchableWrite, Row[Any] | _Failure]] = {}
        self._rejections = _RejectionTracker()

    async def run(self, principal: str, write: BatchableWrite, read_row: Callable[[Row[Any]], T], work: Work[T]) -> T:
        """Make a change on behalf of a principal and return its result, which `read_row` takes from the result row.

        The statement may also make other changes, up to a total cost of `MAX_BATCH_COST`. If it fails, `work` makes the
        change in a transaction of its own. It does so from the beginning if writes of the principal were rejected
        recently.
        """
        try:
            if self._rejections.may_batch(principal):
                # while a change may still run, the next one to the same record waits here, and not for its lock
                async with self._batcher_for(write.statement).hold(write) as outcome:
                    if not isinstance(outcome, _Failure):
                        result = read_row(outcome)
                    elif outcome.write_count == 1:  # as many of these run as batches, so they need no share of the pool
                        result = await self._database.transaction(work, spent_seconds=outcome.spent_seconds)
                    else:
                        result = await self._database.transaction_for(
                            principal, work, spent_seconds=outcome.spent_seconds
                        )
            else:
                result = await self._database.transaction_for(principal, work)
        except ServiceError as error:
            self._rejections.record(principal, rejected=not isinstance(error, UnavailableError))
            raise
        self._rejections.record(principal, rejected=False)
        return result

    def _batcher_for(self, statement: Executable) -> Batcher[BatchableWrite, Row[Any] | _Failure]:
        if (batcher := self._batchers.get(statement)) is None:
            batcher = self._batchers[statement] = Batcher(
                self._run_batch,
                max_cost=MAX_BATCH_COST,
                cost=attrgetter("cost"),
                conflict_keys=attrgetter("conflict_keys"),
                overlap_after=OVERLAP_AFTER_SECONDS,
            )
        return batcher

    async def _run_batch(self, writes: list[BatchableWrite]) -> Sequence[Row[Any] | _Failure]:
        began = time.monotonic()
        try:
            rows = await self._database.write(writes[0].statement, {"rows": [write.row for write in writes]})
        except Exception as error:
            if isinstance(error, UnavailableError) and not isinstance(error, LockNotAvailableError):
                raise  # the statement may have stored everything, so a retry could store its changes twice
            # whichever request caused the error gets it when it runs alone
            return [_Failure(len(writes), time.monotonic() - began)] * len(writes)
        rows_by_id = {row.unique_id: row for row in rows}
        return [rows_by_id[write.row["unique_id"]] for write in writes]
