"""What requests want of the database in the same moment, done for all of them at once."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

from app.db.database import STALL_TIMEOUT_SECONDS
from app.errors import UnavailableError

COALESCE_TICKS = 3
"""Of the event loop, in which those come along whose requests are here already: microseconds where there are none."""

W = TypeVar("W")
R = TypeVar("R")


@dataclass(eq=False, slots=True)
class _Batch:
    """What is done at once. It does not hold who asked, who hold it: nothing would be freed at its end."""

    task: asyncio.Task[None] | None = None
    waiter_count: int = 0
    """Of those who asked, how many have not given up."""


@dataclass(eq=False, slots=True)
class _Submission(Generic[W, R]):
    item: W
    result: asyncio.Future[R]
    context: Context
    batch: _Batch | None = None


class Batcher(Generic[W, R]):
    """Collects what is wanted while work is done; the next work is all of it. Nobody waits for who is not here yet."""

    def __init__(
        self,
        batch_function: Callable[[list[W]], Awaitable[Sequence[R]]],
        *,
        max_cost: int,
        cost: Callable[[W], int] = lambda _: 1,
        conflict_keys: Callable[[W], Collection[Hashable]] = lambda _: (),
        overlap_after: float | None = None,
    ) -> None:
        """Have `work` done, which answers a result for each in their order, of up to `most` at once by `weight`.

        Two that have something `touched` in common follow each other. Who waits longer than `patience`, in seconds,
        for what is being done does not wait for it any more.
        """
        self._batch_function = batch_function
        self._max_cost = max_cost
        self._cost = cost
        self._conflict_keys = conflict_keys
        self._overlap_after = overlap_after
        self._waiting: list[_Submission[W, R]] = []
        self._current: _Batch | None = None

    async def submit(self, item: W) -> R:
        """Have it done; the result. What everybody who asked for it has given up is stopped.

        Raises:
            UnavailableError: the database is away or too busy.
            sqlalchemy.exc.DBAPIError: it refuses what was wanted in the same moment.
        """
        submission: _Submission[W, R] = _Submission(item, asyncio.get_running_loop().create_future(), copy_context())
        self._waiting.append(submission)
        self._start_next_batch()
        try:
            return await submission.result
        finally:
            if submission.result.cancelled():
                self._abandon(submission)

    def _start_next_batch(self) -> None:
        if self._waiting and self._current is None:
            self._current = batch = _Batch()
            # what is logged and traced of it belongs to who has waited longest
            batch.task = asyncio.create_task(self._run_batch(batch), context=self._waiting[0].context)

    def _end_batch(self, batch: _Batch) -> None:
        if self._current is batch:
            self._current = None
            self._start_next_batch()

    async def _run_batch(self, batch: _Batch) -> None:
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        timer = None if self._overlap_after is None else loop.call_later(self._overlap_after, self._end_batch, batch)
        submissions: list[_Submission[W, R]] = []
        try:
            for _ in range(COALESCE_TICKS):
                await asyncio.sleep(0)
            submissions = self._select_batch(batch)
            results = await self._batch_function([submission.item for submission in submissions]) if submissions else ()
        except Exception as error:  # noqa: BLE001  # whoever waits raises it
            if (
                self._current is batch
                and loop.time() - started_at > STALL_TIMEOUT_SECONDS
                and isinstance(error, UnavailableError)
            ):
                submissions += self._waiting  # for this; they would wait as long again
                self._waiting = []
            _fail_submissions(submissions, error)
        else:
            for asked, result in zip(submissions, results, strict=True):
                if not asked.result.done():  # else its client has gone
                    asked.result.set_result(result)
        finally:
            if timer is not None:
                timer.cancel()
            for asked in submissions:
                asked.result.cancel()  # nobody waits for work that was cancelled
            self._end_batch(batch)

    def _select_batch(self, batch: _Batch) -> list[_Submission[W, R]]:
        """Take those who have waited longest, at least one. Who is too heavy is not overtaken."""
        selected: list[_Submission[W, R]] = []
        remaining: list[_Submission[W, R]] = []
        seen_keys: set[Hashable] = set()
        total_cost = 0
        for submission in self._waiting:
            keys = self._conflict_keys(submission.item)
            is_conflict_free = seen_keys.isdisjoint(keys)
            seen_keys.update(keys)
            if is_conflict_free:
                total_cost += self._cost(submission.item)
            if is_conflict_free and (total_cost <= self._max_cost or not selected):
                submission.batch = batch
                selected.append(submission)
            else:
                remaining.append(submission)
        self._waiting = remaining
        batch.waiter_count = len(selected)
        return selected

    def _abandon(self, submission: _Submission[W, R]) -> None:
        batch = submission.batch
        if batch is None:
            self._waiting = [other for other in self._waiting if other is not submission]
            return
        batch.waiter_count -= 1
        if not batch.waiter_count and batch.task is not None:
            batch.task.cancel()


def _fail_submissions(submissions: list[_Submission[W, R]], error: Exception) -> None:
    for submission in submissions:
        if not submission.result.done():
            submission.result.set_exception(_copy_error(error))


def _copy_error(error: Exception) -> Exception:
    """The same error for another request: one that is raised again and again grows with each."""
    if not isinstance(error, UnavailableError):
        return error
    copied = UnavailableError()
    copied.__cause__ = error.__cause__
    return copied
