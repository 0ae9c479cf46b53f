"""What requests want of the database in the same moment, done for all of them by one statement."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from app.db.session import STALLED
from app.errors import UnavailableError

W = TypeVar("W")
R = TypeVar("R")


class Gathering(Generic[W, R]):
    """Collects what is wanted while a statement runs; the next does all of it. Nobody waits for others to come."""

    def __init__(
        self, work: Callable[[list[W]], Awaitable[Sequence[R]]], *, most: int, weight: Callable[[W], int] = lambda _: 1
    ) -> None:
        """Have `work` done, which answers a result for each in their order, of up to `most` at once by `weight`."""
        self._work = work
        self._most = most
        self._weight = weight
        self._waiting: list[tuple[W, asyncio.Future[R]]] = []
        self._working: asyncio.Task[None] | None = None

    async def ask(self, wanted: W) -> R:
        """Have it done; the result.

        Raises:
            UnavailableError: the database is away or too busy.
            sqlalchemy.exc.DBAPIError: it refuses what was wanted in the same moment.
        """
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, result))
        if self._working is None:
            self._working = asyncio.create_task(self._work_on())
        return await result

    async def _work_on(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = self._next()
            began = loop.time()
            try:
                results = await self._work([wanted for wanted, _ in batch])
            except Exception as error:  # noqa: BLE001  # whoever waits raises it
                if loop.time() - began > STALLED:  # who came since then would wait as long again
                    batch += self._waiting
                    self._waiting = []
                for _, result in batch:
                    if not result.done():
                        result.set_exception(_another(error))
                continue
            for (_, result), done in zip(batch, results, strict=True):
                if not result.done():  # else its client has gone
                    result.set_result(done)
        self._working = None

    def _next(self) -> list[tuple[W, asyncio.Future[R]]]:
        """Take those who have waited longest, at least one."""
        number, weight = 0, 0
        for wanted, _ in self._waiting:
            weight += self._weight(wanted)
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
