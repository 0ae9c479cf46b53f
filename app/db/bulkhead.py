"""Admission of expensive work: how much of it is under way at once, in all and for each principal."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from prometheus_client import Gauge

from app.errors import TooManyRequestsError, UnavailableError

ADMISSION_TIMEOUT_SECONDS = 5
"""How long expensive work waits for its turn."""


class Bulkhead:
    """Admits expensive work up to a number at once, and up to a smaller number for each principal.

    This is the bulkhead pattern, with fair queueing: principals that wait take turns, and what one has under way, or
    has waiting, takes no place from another. A plain semaphore would be taken whole by the principal that asks most.
    """

    def __init__(self, max_concurrent: int, max_per_principal: int, waiting_gauge: Gauge | None = None) -> None:
        """Admit so much at once; `waiting` is told how much waits."""
        self._waiting_gauge = waiting_gauge
        self._max_concurrent = max_concurrent
        self._max_per_principal = max_per_principal
        self._active: Counter[str] = Counter()
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """The queue of each principal, the one first whose turn is next."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._active

    @asynccontextmanager
    async def slot(self, principal: str) -> AsyncIterator[None]:
        """Hold a place for the work of a principal.

        Raises:
            TooManyRequestsError: the principal's own work keeps its places for too long.
            UnavailableError: the work of others does.
        """
        release = await self.acquire(principal)
        try:
            yield
        finally:
            release()

    def try_acquire(self, principal: str) -> Callable[[], None] | None:
        """Take a place, if there is one; the function that gives it back, to be called once."""
        if not self._has_capacity(principal):  # else nobody waits that could have it
            return None
        self._active[principal] += 1
        return partial(self._release, principal)

    async def acquire(self, principal: str) -> Callable[[], None]:
        """Take a place, as soon as there is one; the function that gives it back, to be called once.

        Raises:
            TooManyRequestsError, UnavailableError: as `place` does.
        """
        release = self.try_acquire(principal)
        if release is not None:
            return release
        await self._wait_for_slot(principal)
        return partial(self._release, principal)

    def _has_capacity(self, principal: str) -> bool:
        return self._active.total() < self._max_concurrent and self._active[principal] < self._max_per_principal

    async def _wait_for_slot(self, principal: str) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(principal, deque()).append(waiter)
        try:
            with nullcontext() if self._waiting_gauge is None else self._waiting_gauge.track_inprogress():
                async with asyncio.timeout(ADMISSION_TIMEOUT_SECONDS):
                    await waiter
        except BaseException as error:
            if waiter.cancelled():
                self._remove_waiter(principal, waiter)
            else:
                self._release(principal)  # the place had just been given
            if not isinstance(error, TimeoutError):
                raise
            is_own_limit = self._active[principal] >= self._max_per_principal
            raise (TooManyRequestsError(1) if is_own_limit else UnavailableError()) from None

    def _remove_waiter(self, principal: str, waiter: asyncio.Future[None]) -> None:
        queue = self._queues.get(principal)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._queues[principal]

    def _release(self, principal: str) -> None:
        self._active[principal] -= 1
        if not self._active[principal]:
            del self._active[principal]
        self._admit_waiters()

    def _admit_waiters(self) -> None:
        """Give what is free to those that wait, in turns."""
        for principal in list(self._queues):
            queue = self._queues[principal]
            while queue and self._has_capacity(principal):
                waiter = queue.popleft()
                if not waiter.done():  # else its request has just been given up
                    self._active[principal] += 1
                    waiter.set_result(None)
                    self._queues.move_to_end(principal)
                    break
            if not queue:
                del self._queues[principal]
