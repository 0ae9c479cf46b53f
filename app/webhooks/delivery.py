"""Delivery: each process takes over endpoints that no process holds, and sends them the changes of the feed."""

import asyncio
import random
import time
from typing import TYPE_CHECKING

import asyncpg
import structlog

from app.changes.reading import Change, ChangeFeed, FeedQuery
from app.changes.waiting import ChangeWatcher
from app.db.database import Database
from app.errors import FeedExpiredError, UnavailableError
from app.identifiers import new_identifier
from app.observability.metrics import (
    WEBHOOK_ATTEMPTS,
    WEBHOOK_LAG_CHANGES,
    WEBHOOK_LAG_SECONDS,
    WEBHOOK_STOPPED,
)
from app.webhooks.endpoints import Endpoint, Endpoints, Progress
from app.webhooks.messages import Message, change_message, is_selected

if TYPE_CHECKING:
    import httpx

    from app.webhooks.sending import Outcome

log = structlog.get_logger()

POLL_INTERVAL_SECONDS = 5.0
"""Seconds between two attempts to claim endpoints that no process holds."""
IDLE_RENEWAL_SECONDS = 2.0
"""Seconds after which a holder that has nothing to send renews its lease, and reads what commands have changed."""
MAX_SEND_AGE_SECONDS = 1.0
"""Seconds since the last renewal after which the lease is renewed before a message is sent."""
RETRY_DELAYS_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds before each further attempt to deliver a change. After the last one, the endpoint is `failed`."""
MAX_JITTER_RATIO = 0.2
"""Maximum part of a delay that is added to it, so that not all endpoints of a receiver are tried at the same time."""
PAGE_SIZE = 100


class WebhookDelivery:
    """Delivers changes to the endpoints that this process holds."""

    def __init__(self, database: Database, feed: ChangeFeed, watcher: ChangeWatcher) -> None:
        self._endpoints = Endpoints(database, new_identifier("proc"))
        self._feed = feed
        self._watcher = watcher
        self._client: httpx.AsyncClient | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._measured: set[str] = set()
        """The ids of the endpoints that metrics have values for."""

    async def run(self) -> None:
        """Take over endpoints every `POLL_INTERVAL_SECONDS`, until this coroutine is cancelled. Then release them."""
        try:
            while True:
                await asyncio.sleep(POLL_INTERVAL_SECONDS)
                try:
                    await self._start_deliveries()
                except (asyncpg.PostgresError, UnavailableError) as error:
                    log.warning("webhooks not claimed", error=type(error).__name__)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._client is not None:
                await self._client.aclose()

    async def _start_deliveries(self) -> None:
        states = {state.unique_id: state for state in await self._endpoints.states()}
        for unique_id in self._measured | states.keys():
            state = states.get(unique_id)  # of one that was removed, the values become 0
            WEBHOOK_LAG_CHANGES.labels(unique_id).set(state.lag_changes if state else 0)
            is_expected = state is None or state.state == "paused"  # an operator has stopped it, which must not alert
            WEBHOOK_LAG_SECONDS.labels(unique_id).set(max(state.lag_seconds, 0) if state and not is_expected else 0)
            WEBHOOK_STOPPED.labels(unique_id).set(not is_expected and state is not None and state.state != "active")
        self._measured = set(states)
        while states and not self._watcher.is_stopping and (endpoint := await self._endpoints.claim()) is not None:
            task = asyncio.create_task(self._hold(endpoint))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _hold(self, endpoint: Endpoint) -> None:
        """Deliver to an endpoint until there is a reason to stop, and release it."""
        try:
            await self._deliver(endpoint)
        except (asyncpg.PostgresError, UnavailableError) as error:
            log.warning("webhook interrupted", webhook=endpoint.unique_id, error=type(error).__name__)
        finally:
            # if this fails, the lease ends by itself
            await asyncio.gather(self._endpoints.release(endpoint), return_exceptions=True)

    async def _deliver(self, endpoint: Endpoint) -> None:
        query, state, current = FeedQuery(endpoint.hospitals), None, endpoint
        while not self._watcher.is_stopping:
            try:
                page = await self._feed.page(current.unique_id, query, current.feed_position, PAGE_SIZE, state)
            except FeedExpiredError:
                await self._store(current, Progress(current.feed_position, "expired", error="expired"))
                return
            for change in page.changes:
                if is_selected(change, current.events):
                    renewed = await self._deliver_change(current, change)
                    if renewed is None:
                        return
                    current = renewed
            if page.end != current.feed_position:
                renewed = await self._store(current, Progress(page.end))
            else:
                state = await self._watcher.wait(query, page.end, IDLE_RENEWAL_SECONDS)
                renewed = await self._endpoints.renew(current)
            if renewed is None or renewed.state != "active":
                return
            current = renewed

    async def _deliver_change(self, endpoint: Endpoint, change: Change) -> Endpoint | None:
        """Send a change, and store the outcome. Return None unless the next change may be sent."""
        if time.monotonic() - endpoint.renewed_at > MAX_SEND_AGE_SECONDS:
            renewed = await self._endpoints.renew(endpoint)
            if renewed is None or renewed.state != "active":
                return None
            endpoint = renewed
        message = change_message(endpoint.unique_id, change, with_position=endpoint.hospitals is None)
        outcome = await self._send(endpoint, message)
        WEBHOOK_ATTEMPTS.labels(endpoint.unique_id, "failed" if outcome.error else "delivered").inc()
        if outcome.error is None:
            renewed = await self._store(endpoint, Progress(change.feed_position, is_delivered=True))
            return renewed if renewed is not None and renewed.state == "active" else None
        failures = endpoint.failures + 1
        state, delay_seconds = "active", 0.0
        if outcome.is_gone:
            state = "gone"
        elif failures > len(RETRY_DELAYS_SECONDS):
            state = "failed"
        else:
            delay_seconds = max(RETRY_DELAYS_SECONDS[failures - 1], outcome.retry_after_seconds)
            delay_seconds *= 1 + random.uniform(0, MAX_JITTER_RATIO)  # noqa: S311  # not a secret
        await self._store(endpoint, Progress(endpoint.feed_position, state, failures, outcome.error, delay_seconds))
        return None

    async def _send(self, endpoint: Endpoint, message: Message) -> "Outcome":
        from app.webhooks import sending  # noqa: PLC0415  # the HTTP client takes megabytes in each process

        if self._client is None:
            self._client = sending.create_client()
        return await sending.send(self._client, endpoint.url, message, endpoint.secrets)

    async def _store(self, endpoint: Endpoint, progress: Progress) -> Endpoint | None:
        if progress.error is not None:
            log.warning(
                "webhook not delivered",
                webhook=endpoint.unique_id,
                error=progress.error,
                failures=progress.failures,
                state=progress.state,
            )
        return await self._endpoints.renew(endpoint, progress)
