"""What requests want of the database in the same moment, done for all of them at once."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

from app.db.session import STALLED
from app.errors import UnavailableError

TURNS = 3
"""Of the event loop, in which those come along whose requests are here already: microseconds where there are none."""

W = TypeVar("W")
R = TypeVar("R")


@dataclass(eq=False, slots=True)
class _Batch:
    """What is done at once. It does not hold who asked, who hold it: nothing would be freed at its end."""

    task: asyncio.Task[None] | None = None
    left: int = 0
    """Of those who asked, how many have not given up."""


@dataclass(eq=False, slots=True)
class _Asked(Generic[W, R]):
    wanted: W
    result: asyncio.Future[R]
    context: Context
    batch: _Batch | None = None


class Gathering(Generic[W, R]):
    """Collects what is wanted while work is done; the next work is all of it. Nobody waits for who is not here yet."""

    def __init__(
        self,
        work: Callable[[list[W]], Awaitable[Sequence[R]]],
        *,
        most: int,
        weight: Callable[[W], int] = lambda _: 1,
        touched: Callable[[W], Collection[Hashable]] = lambda _: (),
        patience: float | None = None,
    ) -> None:
        """Have `work` done, which answers a result for each in their order, of up to `most` at once by `weight`.

        Two that have something `touched` in common follow each other. Who waits longer than `patience`, in seconds,
        for what is being done does not wait for it any more.
        """
        self._work = work
        self._most = most
        self._weight = weight
        self._touched = touched
        self._patience = patience
        self._waiting: list[_Asked[W, R]] = []
        self._current: _Batch | None = None

    async def ask(self, wanted: W) -> R:
        """Have it done; the result. What everybody who asked for it has given up is stopped.

        Raises:
            UnavailableError: the database is away or too busy.
            sqlalchemy.exc.DBAPIError: it refuses what was wanted in the same moment.
        """
        asked: _Asked[W, R] = _Asked(wanted, asyncio.get_running_loop().create_future(), copy_context())
        self._waiting.append(asked)
        self._go_on()
        try:
            return await asked.result
        finally:
            if asked.result.cancelled():
                self._give_up(asked)

    def _go_on(self) -> None:
        if self._waiting and self._current is None:
            self._current = batch = _Batch()
            # what is logged and traced of it belongs to who has waited longest
            batch.task = asyncio.create_task(self._do(batch), context=self._waiting[0].context)

    def _end(self, batch: _Batch) -> None:
        if self._current is batch:
            self._current = None
            self._go_on()

    async def _do(self, batch: _Batch) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        timer = None if self._patience is None else loop.call_later(self._patience, self._end, batch)
        taken: list[_Asked[W, R]] = []
        try:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            taken = self._take(batch)
            results = await self._work([asked.wanted for asked in taken]) if taken else ()
        except Exception as error:  # noqa: BLE001  # whoever waits raises it
            if self._current is batch and loop.time() - began > STALLED and isinstance(error, UnavailableError):
                taken += self._waiting  # for this; they would wait as long again
                self._waiting = []
            _fail(taken, error)
        else:
            for asked, result in zip(taken, results, strict=True):
                if not asked.result.done():  # else its client has gone
                    asked.result.set_result(result)
        finally:
            if timer is not None:
                timer.cancel()
            for asked in taken:
                asked.result.cancel()  # nobody waits for work that was cancelled
            self._end(batch)

    def _take(self, batch: _Batch) -> list[_Asked[W, R]]:
        """Take those who have waited longest, at least one. Who is too heavy is not overtaken."""
        taken: list[_Asked[W, R]] = []
        left: list[_Asked[W, R]] = []
        touched: set[Hashable] = set()
        weight = 0
        for asked in self._waiting:
            touches = self._touched(asked.wanted)
            free = touched.isdisjoint(touches)
            touched.update(touches)
            if free:
                weight += self._weight(asked.wanted)
            if free and (weight <= self._most or not taken):
                asked.batch = batch
                taken.append(asked)
            else:
                left.append(asked)
        self._waiting = left
        batch.left = len(taken)
        return taken

    def _give_up(self, asked: _Asked[W, R]) -> None:
        batch = asked.batch
        if batch is None:
            self._waiting = [other for other in self._waiting if other is not asked]
            return
        batch.left -= 1
        if not batch.left and batch.task is not None:
            batch.task.cancel()


def _fail(taken: list[_Asked[W, R]], error: Exception) -> None:
    for asked in taken:
        if not asked.result.done():
            asked.result.set_exception(_another(error))


def _another(error: Exception) -> Exception:
    """The same error for another request: one that is raised again and again grows with each."""
    if not isinstance(error, UnavailableError):
        return error
    another = UnavailableError()
    another.__cause__ = error.__cause__
    return another
