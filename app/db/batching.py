"""Batching of concurrent calls: items submitted while a batch runs form the next batch.

This is the dataloader pattern of graphql/dataloader and aiodataloader. Those libraries dispatch a batch after one tick
of the event loop, even if many batches are still running. They lack four features: backpressure by a limit of one
running batch, cancellation of a batch that no caller waits for any more, joint failure of all waiting items when the
database stalls, and conflict keys. This module can be removed when a library has these features.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Hashable, Sequence
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from app.db.database import STALL_TIMEOUT_SECONDS
from app.errors import UnavailableError

COALESCE_TICKS = 3
"""Number of event-loop iterations before a batch starts, so that requests that were already received can join it.

If there are no such requests, the iterations take microseconds.
"""

W = TypeVar("W")
R = TypeVar("R")


@dataclass(eq=False, slots=True)
class _Batch:
    """A running batch.

    Submissions refer to their batch, but a batch does not refer to its submissions, because a reference cycle would
    keep both in memory until the next garbage collection.
    """

    started_at: float
    """Time at which the batch started, by the event loop's clock."""
    task: asyncio.Task[None] | None = None
    waiter_count: int = 0
    """Number of submissions in this batch that have not been cancelled."""


@dataclass(eq=False, slots=True)
class _Submission(Generic[W, R]):
    item: W
    result: asyncio.Future[R]
    context: Context
    batch: _Batch | None = None


class Batcher(Generic[W, R]):
    """Batches calls: items submitted while a batch runs form the next batch.

    While no batch runs, an item waits only `COALESCE_TICKS` event-loop iterations for further items.
    """

    def __init__(
        self,
        batch_function: Callable[[list[W]], Awaitable[Sequence[R]]],
        *,
        max_cost: int,
        cost: Callable[[W], int] = lambda _: 1,
        conflict_keys: Callable[[W], Collection[Hashable]] = lambda _: (),
        overlap_after: float | None = None,
    ) -> None:
        """Batch calls of `batch_function`, which takes a list of items and returns their results in the same order.

        `max_cost` is the maximum total `cost` of a batch. An item that costs more gets a batch of its own. Two items
        with a common conflict key never run at the same time: the later item waits until the earlier one has ended. If
        a batch takes longer than `overlap_after` seconds, the next batch starts although the first one is still
        running. If `overlap_after` is None, the next batch always waits until the running batch has ended.
        """
        self._batch_function = batch_function
        self._max_cost = max_cost
        self._cost = cost
        self._conflict_keys = conflict_keys
        self._overlap_after = overlap_after
        self._waiting: list[_Submission[W, R]] = []
        self._held_keys: set[Hashable] = set()
        """The conflict keys of the items that run, or whose callers have not left `hold` yet."""
        self._current: _Batch | None = None

    async def submit(self, item: W) -> R:
        """Submit an item and return its result. A batch is cancelled once all calls that wait for it are cancelled.

        Raises:
            UnavailableError: the database is unavailable or too busy.
            asyncpg.PostgresError: the database rejects the batch, possibly because of another caller's item.
        """
        submission = self._enqueue(item)
        try:
            return await submission.result
        finally:
            self._withdraw(submission)

    @asynccontextmanager
    async def hold(self, item: W) -> AsyncIterator[R]:
        """Submit an item and provide its result. The item holds its conflict keys until the caller leaves the context.

        If the database is unavailable for the item, or for what the caller does in the context, the items that wait for
        its keys fail as well, because each of them would wait just as long.

        Raises:
            UnavailableError: the database is unavailable or too busy.
            asyncpg.PostgresError: the database rejects the batch, possibly because of another caller's item.
        """
        submission = self._enqueue(item)
        try:
            yield await submission.result
        except UnavailableError as error:
            if submission.batch is not None and _is_stall(error, submission.batch):
                keys = set(self._conflict_keys(item))
                blocked = {other for other in self._waiting if not keys.isdisjoint(self._conflict_keys(other.item))}
                self._fail_waiting(blocked, error)
            raise
        finally:
            self._withdraw(submission)

    def _enqueue(self, item: W) -> _Submission[W, R]:
        submission: _Submission[W, R] = _Submission(item, asyncio.get_running_loop().create_future(), copy_context())
        self._waiting.append(submission)
        self._start_next_batch()
        return submission

    def _start_next_batch(self) -> None:
        if self._waiting and self._current is None:
            self._current = batch = _Batch(asyncio.get_running_loop().time())
            # the logs and traces of a batch are attributed to the request that has waited longest
            batch.task = asyncio.create_task(self._run_batch(batch), context=self._waiting[0].context)

    def _end_batch(self, batch: _Batch) -> None:
        if self._current is batch:
            self._current = None
            self._start_next_batch()

    async def _run_batch(self, batch: _Batch) -> None:
        loop = asyncio.get_running_loop()
        timer = None if self._overlap_after is None else loop.call_later(self._overlap_after, self._end_batch, batch)
        submissions: list[_Submission[W, R]] = []
        try:
            for _ in range(COALESCE_TICKS):
                await asyncio.sleep(0)
            submissions = self._select_batch(batch)
            if not submissions and self._current is batch:
                self._current = None  # all items wait for held keys: their release starts the next batch
            results = await self._batch_function([submission.item for submission in submissions]) if submissions else ()
        except Exception as error:  # noqa: BLE001  # each caller gets the error
            _fail_submissions(submissions, error)
            if self._current is batch and _is_stall(error, batch):
                self._fail_waiting(set(self._waiting), error)
        else:
            for submission, result in zip(submissions, results, strict=True):
                if not submission.result.done():  # otherwise it was cancelled: its client disconnected
                    submission.result.set_result(result)
        finally:
            if timer is not None:
                timer.cancel()
            for submission in submissions:
                submission.result.cancel()  # only has an effect if the batch was cancelled: callers must not hang
            self._end_batch(batch)

    def _select_batch(self, batch: _Batch) -> list[_Submission[W, R]]:
        """Remove the submissions for `batch` from the queue and return them: none if all of them wait for held keys.

        The submissions that have waited longest are selected first. A submission that has a conflict key in common with
        an earlier one stays in the queue. If the next submission would exceed the maximum cost, no later submission is
        selected in its place, so that costly submissions do not wait forever.
        """
        selected: list[_Submission[W, R]] = []
        remaining: list[_Submission[W, R]] = []
        seen_keys = set(self._held_keys)
        total_cost = 0
        for submission in self._waiting:
            keys = self._conflict_keys(submission.item)
            is_conflict_free = seen_keys.isdisjoint(keys)
            seen_keys.update(keys)
            if is_conflict_free:
                total_cost += self._cost(submission.item)
            if is_conflict_free and (total_cost <= self._max_cost or not selected):
                submission.batch = batch
                self._held_keys.update(keys)
                selected.append(submission)
            else:
                remaining.append(submission)
        self._waiting = remaining
        batch.waiter_count = len(selected)
        return selected

    def _withdraw(self, submission: _Submission[W, R]) -> None:
        """Release what a submission holds when its caller no longer waits for it."""
        batch = submission.batch
        if batch is None:
            if submission.result.cancelled():
                self._waiting = [other for other in self._waiting if other is not submission]
            return
        if submission.result.cancelled():
            batch.waiter_count -= 1
            if not batch.waiter_count and batch.task is not None:
                batch.task.cancel()
        if keys := self._conflict_keys(submission.item):
            self._held_keys.difference_update(keys)
            self._start_next_batch()

    def _fail_waiting(self, submissions: set[_Submission[W, R]], error: Exception) -> None:
        """Fail submissions that wait, because they would otherwise wait just as long for the same error."""
        self._waiting = [submission for submission in self._waiting if submission not in submissions]
        _fail_submissions(submissions, error)


def _is_stall(error: Exception, batch: _Batch) -> bool:
    """Return whether `error` says that the database has not responded to `batch` for a long time."""
    spent_seconds = asyncio.get_running_loop().time() - batch.started_at
    return isinstance(error, UnavailableError) and spent_seconds > STALL_TIMEOUT_SECONDS


def _fail_submissions(submissions: Collection[_Submission[Any, Any]], error: Exception) -> None:
    for submission in submissions:
        if not submission.result.done():
            submission.result.set_exception(_copy_error(error))


def _copy_error(error: Exception) -> Exception:
    """Return the error that one of several callers raises: a copy if it is an `UnavailableError`, otherwise `error`.

    Callers do not share one `UnavailableError`, because its traceback would grow each time a caller raises it.
    """
    if not isinstance(error, UnavailableError):
        return error
    copied = type(error).__new__(type(error), *error.args)
    copied.__dict__.update(error.__dict__)
    copied.__cause__ = error.__cause__
    return copied
