"""Rate limits, in the memory of each worker process."""

import math
import time
from ipaddress import ip_address, ip_network

from cachetools import TTLCache
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from app.errors import TooManyRequestsError

FAILURES = parse("30/minute")
"""Failed authentications of one address."""


MOST_ADDRESSES = 10_000
"""Addresses that are counted apart; more at the same moment share one count."""


class RateLimits:
    """How often a principal may ask, and how often an address may fail to say who it is."""

    def __init__(self, requests: str | None) -> None:
        """Limit each principal to `requests`, as `1200/minute`; or not at all."""
        self._principals = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._requests = parse(requests) if requests else None
        # apart, and bounded: counting costs more the more there are, and addresses are anybody's to make up
        self._addresses = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._known: TTLCache[str, None] = TTLCache(MOST_ADDRESSES, FAILURES.get_expiry())

    async def count_request(self, principal: str) -> None:
        """Count a request.

        Raises:
            TooManyRequestsError: it is one too many.
        """
        if self._requests is not None:
            await _count(self._principals, self._requests, principal)

    async def count_failure(self, address: str) -> None:
        """Count a failed authentication.

        Raises:
            TooManyRequestsError: it is one too many.
        """
        network = _network(address)
        if network not in self._known:
            if len(self._known) < MOST_ADDRESSES:
                self._known[network] = None
            else:
                network = "others"
        await _count(self._addresses, FAILURES, network)


def _network(address: str) -> str:
    """What one client has: an address of IPv4, 64 bits of one of IPv6."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ip_network((parsed, 64), strict=False))  # noqa: PLR2004


async def _count(limiter: SlidingWindowCounterRateLimiter, limit: RateLimitItem, what: str) -> None:
    if not await limiter.hit(limit, what):
        reset, _ = await limiter.get_window_stats(limit, what)
        raise TooManyRequestsError(max(1, math.ceil(reset - time.time())))
