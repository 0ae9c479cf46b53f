"""Admission of expensive work: limits on how much of it runs concurrently, in total and for each principal.

This is the Bulkhead pattern (Michael Nygard, "Release It!") with fair queueing. A plain semaphore lacks both a limit
for each principal and fairness: the principal that asks most could take all of it. This module can go when a library
has a semaphore with both.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from prometheus_client import Gauge

from app.errors import TooManyRequestsError, UnavailableError

ADMISSION_TIMEOUT_SECONDS = 5
"""Seconds that expensive work waits for a slot before it is refused."""


class Bulkhead:
    """Admits expensive work up to a number of concurrent slots, and up to a smaller number for each principal.

    Principals that wait take turns, so the work that one has running or waiting does not use up the share of another.
    """

    def __init__(self, max_concurrent: int, max_per_principal: int, waiting_gauge: Gauge | None = None) -> None:
        """Admit `max_concurrent` in total and `max_per_principal` for each; `waiting_gauge` counts those that wait."""
        self._waiting_gauge = waiting_gauge
        self._max_concurrent = max_concurrent
        self._max_per_principal = max_per_principal
        self._active: Counter[str] = Counter()
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """The queue of each principal, in the order of their turns."""

    @property
    def is_idle(self) -> bool:
        """Whether no work is running."""
        return not self._active

    @asynccontextmanager
    async def slot(self, principal: str) -> AsyncIterator[None]:
        """Hold a slot for the work of a principal.

        Raises:
            TooManyRequestsError: the principal's own work occupies its slots for too long.
            UnavailableError: the work of others occupies the slots for too long.
        """
        release = await self.acquire(principal)
        try:
            yield
        finally:
            release()

    def try_acquire(self, principal: str) -> Callable[[], None] | None:
        """Acquire a slot if one is free and return the function that releases it, to be called once; otherwise None."""
        if not self._has_capacity(principal):  # with capacity, there is no waiter to overtake
            return None
        self._active[principal] += 1
        return partial(self._release, principal)

    async def acquire(self, principal: str) -> Callable[[], None]:
        """Acquire a slot as soon as one is free and return the function that releases it, to be called once.

        Raises:
            TooManyRequestsError, UnavailableError: as in `slot`.
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
                self._release(principal)  # the slot was granted just before
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
        """Give free slots to those that wait, one principal after another."""
        for principal in list(self._queues):
            queue = self._queues[principal]
            while queue and self._has_capacity(principal):
                waiter = queue.popleft()
                if not waiter.done():  # else it was cancelled just before
                    self._active[principal] += 1
                    waiter.set_result(None)
                    self._queues.move_to_end(principal)
                    break
            if not queue:
                del self._queues[principal]
