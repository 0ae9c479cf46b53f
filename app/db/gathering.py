"""What requests want of the database in the same moment, done for all of them by one statement."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

from app.db.session import STALLED
from app.errors import UnavailableError

W = TypeVar("W")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Asked(Generic[W, R]):
    wanted: W
    result: asyncio.Future[R]
    context: Context


class Gathering(Generic[W, R]):
    """Collects what is wanted while a statement runs; the next does all of it. Nobody waits for others to come."""

    def __init__(
        self, work: Callable[[list[W]], Awaitable[Sequence[R]]], *, most: int, weight: Callable[[W], int] = lambda _: 1
    ) -> None:
        """Have `work` done, which answers a result for each in their order, of up to `most` at once by `weight`."""
        self._work = work
        self._most = most
        self._weight = weight
        self._waiting: list[_Asked[W, R]] = []
        self._working: asyncio.Task[None] | None = None

    async def ask(self, wanted: W) -> R:
        """Have it done; the result.

        Raises:
            UnavailableError: the database is away or too busy.
            sqlalchemy.exc.DBAPIError: it refuses what was wanted in the same moment.
        """
        asked: _Asked[W, R] = _Asked(wanted, asyncio.get_running_loop().create_future(), copy_context())
        self._waiting.append(asked)
        if self._working is None:
            self._begin()
        return await asked.result

    def _begin(self) -> None:
        batch = self._next()
        # what is logged and traced of the statement belongs to who has waited longest
        self._working = asyncio.create_task(self._do(batch), context=batch[0].context)

    async def _do(self, batch: list["_Asked[W, R]"]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            results = await self._work([asked.wanted for asked in batch])
        except Exception as error:  # noqa: BLE001  # whoever waits raises it
            if loop.time() - began > STALLED:  # who came since then would wait as long again
                batch += self._waiting
                self._waiting = []
            for asked in batch:
                if not asked.result.done():
                    asked.result.set_exception(_another(error))
        else:
            for asked, result in zip(batch, results, strict=True):
                if not asked.result.done():  # else its client has gone
                    asked.result.set_result(result)
        finally:
            for asked in batch:
                asked.result.cancel()  # nobody waits for work that was cancelled
            self._working = None
            if self._waiting:
                self._begin()

    def _next(self) -> list["_Asked[W, R]"]:
        """Take those who have waited longest, at least one."""
        number, weight = 0, 0
        for asked in self._waiting:
            weight += self._weight(asked.wanted)
            if number and weight > self._most:
                break
            number += 1
        batch, self._waiting = self._waiting[:number], self._waiting[number:]
        return batch


def _another(error: Exception) -> Exception:
    """The same error for another request: one that is raised again and again grows with each."""
    if not isinstance(error, UnavailableError):
        return error
    another = UnavailableError()
    another.__cause__ = error.__cause__
    return another
