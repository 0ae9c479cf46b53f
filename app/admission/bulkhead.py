"""Admission of expensive work. It limits how much expensive work runs concurrently, in total and per principal.

This is the Bulkhead pattern (Michael Nygard, "Release It!") with fair queueing. A plain semaphore has neither a limit
per principal nor fairness, so the principal that sends the most requests could occupy all slots. This module can be
removed when a library has a semaphore with both features.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from prometheus_client import Gauge

from app.errors import TooManyRequestsError, UnavailableError

ADMISSION_TIMEOUT_SECONDS = 5
"""Maximum number of seconds that expensive work waits for a slot. Work that would have to wait longer is refused."""


class Bulkhead:
    """Grants slots for expensive work, up to a maximum number in total and per principal.

    Waiting principals take turns, so the running and waiting work of one principal does not use up the share of others.
    """

    def __init__(self, max_concurrent: int, max_per_principal: int, waiting_gauge: Gauge | None = None) -> None:
        """Provide `max_concurrent` slots in total and up to `max_per_principal` of them per principal.

        `waiting_gauge`, if given, shows how many calls are waiting for a slot.
        """
        self._waiting_gauge = waiting_gauge
        self._max_concurrent = max_concurrent
        self._max_per_principal = max_per_principal
        self._active: Counter[str] = Counter()
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """Queue of waiting work per principal. The principal that gets the next slot comes first."""

    @property
    def is_idle(self) -> bool:
        """Whether no work is running."""
        return not self._active

    @asynccontextmanager
    async def slot(self, principal: str) -> AsyncIterator[None]:
        """Wait for a slot for the work of a principal, and hold it while the context is entered.

        Raises:
            TooManyRequestsError: no slot was free in time, because the principal's own work occupied its whole share.
            UnavailableError: no slot was free in time, because the work of other principals occupied the slots.
        """
        release = await self.acquire(principal)
        try:
            yield
        finally:
            release()

    def try_acquire(self, principal: str) -> Callable[[], None] | None:
        """Acquire a slot for the work of a principal, without waiting for it.

        If a slot is free, return a function that releases the slot and must be called exactly once. If no slot is free,
        return None.
        """
        if not self._has_capacity(principal):  # free slots go to waiters first, so no waiter is overtaken
            return None
        self._active[principal] += 1
        return partial(self._release, principal)

    async def acquire(self, principal: str) -> Callable[[], None]:
        """Wait for a slot for the work of a principal, and return a function that releases the slot.

        The function must be called exactly once.

        Raises:
            TooManyRequestsError: no slot was free in time, because the principal's own work occupied its whole share.
            UnavailableError: no slot was free in time, because the work of other principals occupied the slots.
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
        """Give free slots to waiting work. The principals take turns."""
        for principal in list(self._queues):
            queue = self._queues[principal]
            while queue and self._has_capacity(principal):
                waiter = queue.popleft()
                if not waiter.done():  # otherwise it was cancelled just before
                    self._active[principal] += 1
                    waiter.set_result(None)
                    self._queues.move_to_end(principal)
                    break
            if not queue:
                del self._queues[principal]
