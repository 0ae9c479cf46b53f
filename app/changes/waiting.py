"""Waiting for changes: one query per process and interval, however many clients wait."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import asyncpg
import structlog

from app.changes.numbering import FeedPosition, FeedState
from app.changes.reading import ChangeFeed, FeedQuery
from app.errors import UnavailableError
from app.models.change import ANY_HOSPITAL
from app.observability.metrics import CHANGES_WAITING

log = structlog.get_logger()

POLL_INTERVAL_SECONDS = 0.25
"""Seconds between two polls while anybody waits. Changes of other processes are noticed with this delay."""
MIN_POLL_INTERVAL_SECONDS = 0.02
"""Minimum number of seconds between two polls, however fast this process commits changes."""


@dataclass(eq=False, slots=True)
class _Waiter:
    query: FeedQuery
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def is_concerned(self, resources: frozenset[str], hospitals: frozenset[str]) -> bool:
        if self.query.hospitals is not None:
            return ANY_HOSPITAL in hospitals or not self.query.hospitals.isdisjoint(hospitals)
        return self.query.resources is None or not self.query.resources.isdisjoint(resources)


class ChangeWatcher:
    """Wakes the clients of this process that wait for changes which concern them.

    While anybody waits, it polls for changes and numbers them. It holds no connection between two polls.
    """

    def __init__(self, feed: ChangeFeed, is_stopping: Callable[[], bool]) -> None:
        """Watch `feed` until `is_stopping` returns true. After that, `wait` returns at once."""
        self._feed = feed
        self._is_stopping = is_stopping
        self._waiters: set[_Waiter] = set()
        self._committed = asyncio.Event()
        self._state: FeedState | None = None
        """The state of the feed at the last poll, or None if no client waits."""
        self._task: asyncio.Task[None] | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether the process is stopping, so that no client should wait any more."""
        return self._is_stopping()

    @property
    def state(self) -> FeedState | None:
        """The state of the feed at the last poll, or None if no client waits."""
        return self._state

    def note_commit(self) -> None:
        """Poll at once if anybody waits, because this process has committed a change."""
        self._committed.set()

    async def wait(self, query: FeedQuery, newest: FeedPosition, timeout_seconds: float) -> FeedState | None:
        """Wait until changes after the position `newest` may concern `query`, and return the state of the feed then.

        After `timeout_seconds`, or if the process is stopping, return the state at the last poll or None.
        """
        if self._is_stopping():
            return None
        if self._state is not None and self._state.newest.position > newest.position:
            return self._state
        waiter = _Waiter(query)
        self._waiters.add(waiter)
        if self._task is None:
            self._state = FeedState(newest, is_pending=False, is_standby=False)
            self._task = asyncio.create_task(self._poll_while_needed(self._state))
        try:
            with CHANGES_WAITING.track_inprogress(), suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await waiter.woken.wait()
            return self._state
        finally:
            self._waiters.discard(waiter)

    async def _poll_while_needed(self, state: FeedState) -> None:
        try:
            while self._waiters and not self._is_stopping():
                try:
                    state = await self._poll(state)
                except (UnavailableError, asyncpg.PostgresError) as error:
                    log.warning("changes not polled", error=type(error).__name__)
                await asyncio.sleep(MIN_POLL_INTERVAL_SECONDS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_INTERVAL_SECONDS):
                        await self._committed.wait()
                self._committed.clear()
        finally:
            self._task = self._state = None
            for waiter in self._waiters:
                waiter.woken.set()

    async def _poll(self, seen: FeedState) -> FeedState:
        """Number and read the changes since `seen`, wake the concerned waiters, and return the state of the feed."""
        state = await self._feed.numbering.refresh()
        if state.newest.position > seen.newest.position:
            concerned = await self._feed.concerned(seen.newest.position, state.newest.position)
            waiters = [waiter for waiter in self._waiters if waiter.is_concerned(*concerned)]
        else:
            # after a restore or a failover, every cursor may have expired
            waiters = list(self._waiters) if state.newest != seen.newest and not state.is_standby else []
        self._state = state
        for waiter in waiters:
            waiter.woken.set()
        return state
