"""Rate limits, counted in the memory of each worker process."""

import math
import time
from ipaddress import ip_address, ip_network

from cachetools import TTLCache
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from app.errors import TooManyRequestsError

FAILED_AUTH_LIMIT = parse("30/minute")
"""Failed authentications allowed per client network."""


MAX_TRACKED_ADDRESSES = 10_000
"""Maximum number of client networks that have a counter of their own at a time; all others share one."""


class RateLimits:
    """The request limit of each principal and the limit of failed authentications of each address."""

    def __init__(self, request_limit: str | None) -> None:
        """Limit the requests of each principal to `request_limit`, such as `1200/minute`; None for no limit."""
        self._request_limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._request_limit = parse(request_limit) if request_limit else None
        # separate and bounded: counting gets slower with the number of counters, and clients can use many addresses
        self._failure_limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._tracked_networks: TTLCache[str, None] = TTLCache(MAX_TRACKED_ADDRESSES, FAILED_AUTH_LIMIT.get_expiry())

    async def count_request(self, principal: str) -> None:
        """Count a request of a principal.

        Raises:
            TooManyRequestsError: it exceeds the limit.
        """
        if self._request_limit is not None:
            await _hit_or_raise(self._request_limiter, self._request_limit, principal)

    async def count_failure(self, address: str) -> None:
        """Count a failed authentication from an address.

        Raises:
            TooManyRequestsError: it exceeds the limit.
        """
        network = _client_network(address)
        if network not in self._tracked_networks:
            if len(self._tracked_networks) < MAX_TRACKED_ADDRESSES:
                self._tracked_networks[network] = None
            else:
                network = "others"
        await _hit_or_raise(self._failure_limiter, FAILED_AUTH_LIMIT, network)


def _client_network(address: str) -> str:
    """Return the network that a single client controls: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ip_network((parsed, 64), strict=False))  # noqa: PLR2004


async def _hit_or_raise(limiter: SlidingWindowCounterRateLimiter, limit: RateLimitItem, identifier: str) -> None:
    if not await limiter.hit(limit, identifier):
        resets_at, _ = await limiter.get_window_stats(limit, identifier)
        raise TooManyRequestsError(max(1, math.ceil(resets_at - time.time())))
