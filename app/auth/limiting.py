"""Rate limits, in the memory of each worker process."""

import math
import time

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from app.errors import TooManyRequestsError

FAILURES = parse("30/minute")
"""Failed authentications of one address."""


class RateLimits:
    """How often a principal may ask, and how often an address may fail to say who it is."""

    def __init__(self, requests: str | None) -> None:
        """Limit each principal to `requests`, as `1200/minute`; or not at all."""
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._requests = parse(requests) if requests else None

    async def count_request(self, principal: str) -> None:
        """Count a request.

        Raises:
            TooManyRequestsError: it is one too many.
        """
        if self._requests is not None:
            await self._count(self._requests, "request", principal)

    async def count_failure(self, address: str) -> None:
        """Count a failed authentication.

        Raises:
            TooManyRequestsError: it is one too many.
        """
        await self._count(FAILURES, "failure", address)

    async def _count(self, limit: RateLimitItem, *of: str) -> None:
        if not await self._limiter.hit(limit, *of):
            reset, _ = await self._limiter.get_window_stats(limit, *of)
            raise TooManyRequestsError(max(1, math.ceil(reset - time.time())))
