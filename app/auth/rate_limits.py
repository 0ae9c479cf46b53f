"""Rate limits. Each worker process counts in its own memory, so each limit applies per worker."""

import math
import time
from ipaddress import ip_address, ip_network

from cachetools import TTLCache
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from app.errors import TooManyRequestsError

FAILED_AUTH_LIMIT = parse("30/minute")
"""Maximum rate of failed authentications per client IP address, or per /64 network for IPv6."""


MAX_TRACKED_ADDRESSES = 10_000
"""Maximum number of client networks that have their own counter of failed authentications. All others share one."""


class RateLimits:
    """The request limit per principal, and the limit on failed authentications per client IP address."""

    def __init__(self, request_limit: str | None) -> None:
        """Limit the requests per principal to `request_limit`, such as `1200/minute`. None means no limit."""
        self._request_limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._request_limit = parse(request_limit) if request_limit else None
        # a limiter of its own, with a bounded number of counters: clients can use many addresses, and counting becomes
        # slower with each counter
        self._failure_limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._tracked_networks: TTLCache[str, None] = TTLCache(MAX_TRACKED_ADDRESSES, FAILED_AUTH_LIMIT.get_expiry())

    async def count_request(self, principal: str) -> None:
        """Count one request of the principal with this name.

        Raises:
            TooManyRequestsError: the request exceeds the principal's limit.
        """
        if self._request_limit is not None:
            await _hit_or_raise(self._request_limiter, self._request_limit, principal)

    async def count_failure(self, address: str) -> None:
        """Count one failed authentication from a client IP address.

        Raises:
            TooManyRequestsError: the failure exceeds the limit of the address, or of its /64 network for IPv6.
        """
        network = _client_network(address)
        if network not in self._tracked_networks:
            if len(self._tracked_networks) < MAX_TRACKED_ADDRESSES:
                self._tracked_networks[network] = None
            else:
                network = "others"
        await _hit_or_raise(self._failure_limiter, FAILED_AUTH_LIMIT, network)


def _client_network(address: str) -> str:
    """Return the network of addresses that a single client can use.

    For an IPv4 address, this is the address itself. For an IPv6 address, it is its /64 network. Any other text is
    returned unchanged.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ip_network((parsed, 64), strict=False))  # noqa: PLR2004


async def _hit_or_raise(limiter: SlidingWindowCounterRateLimiter, limit: RateLimitItem, identifier: str) -> None:
    if not await limiter.hit(limit, identifier):
        resets_at, _ = await limiter.get_window_stats(limit, identifier)
        raise TooManyRequestsError(max(1, math.ceil(resets_at - time.time())))
