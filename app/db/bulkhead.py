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

    def __init__(self, places: int, places_of_one: int, waiting: Gauge | None = None) -> None:
        """Admit so much at once; `waiting` is told how much waits."""
        self._gauge = waiting
        self._places = places
        self._places_of_one = places_of_one
        self._under_way: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """The queue of each principal, the one first whose turn is next."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way

    @asynccontextmanager
    async def place(self, principal: str) -> AsyncIterator[None]:
        """Hold a place for the work of a principal.

        Raises:
            TooManyRequestsError: the principal's own work keeps its places for too long.
            UnavailableError: the work of others does.
        """
        leave = await self.enter(principal)
        try:
            yield
        finally:
            leave()

    def enter_at_once(self, principal: str) -> Callable[[], None] | None:
        """Take a place, if there is one; the function that gives it back, to be called once."""
        if not self._has_room(principal):  # else nobody waits that could have it
            return None
        self._under_way[principal] += 1
        return partial(self._leave, principal)

    async def enter(self, principal: str) -> Callable[[], None]:
        """Take a place, as soon as there is one; the function that gives it back, to be called once.

        Raises:
            TooManyRequestsError, UnavailableError: as `place` does.
        """
        leave = self.enter_at_once(principal)
        if leave is not None:
            return leave
        await self._wait(principal)
        return partial(self._leave, principal)

    def _has_room(self, principal: str) -> bool:
        return self._under_way.total() < self._places and self._under_way[principal] < self._places_of_one

    async def _wait(self, principal: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(principal, deque()).append(turn)
        try:
            with nullcontext() if self._gauge is None else self._gauge.track_inprogress():
                async with asyncio.timeout(ADMISSION_TIMEOUT_SECONDS):
                    await turn
        except BaseException as error:
            if turn.cancelled():
                self._forget(principal, turn)
            else:
                self._leave(principal)  # the place had just been given
            if not isinstance(error, TimeoutError):
                raise
            own = self._under_way[principal] >= self._places_of_one
            raise (TooManyRequestsError(1) if own else UnavailableError()) from None

    def _forget(self, principal: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(principal)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[principal]

    def _leave(self, principal: str) -> None:
        self._under_way[principal] -= 1
        if not self._under_way[principal]:
            del self._under_way[principal]
        self._admit()

    def _admit(self) -> None:
        """Give what is free to those that wait, in turns."""
        for principal in list(self._waiting):
            queue = self._waiting[principal]
            while queue and self._has_room(principal):
                turn = queue.popleft()
                if not turn.done():  # else its request has just been given up
                    self._under_way[principal] += 1
                    turn.set_result(None)
                    self._waiting.move_to_end(principal)
                    break
            if not queue:
                del self._waiting[principal]
