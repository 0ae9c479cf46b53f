"""Sends a message to an endpoint. Only processes that deliver import this module, which loads the HTTP client."""

import asyncio
import time
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import NamedTuple

import httpx

from app.webhooks.messages import Message, signed_headers

TIMEOUT_SECONDS = 15
"""Maximum duration of an attempt in seconds, from connecting to the head of the response."""
MAX_DISCARDED_BYTES = 4096
DISCARD_TIMEOUT_SECONDS = 1
"""Maximum number of seconds for which the body of a response is read, whose head has decided the outcome."""
MAX_RETRY_AFTER_SECONDS = 86_400
"""Maximum number of seconds that an endpoint can ask to wait."""


class Outcome(NamedTuple):
    """The outcome of an attempt to send a message."""

    error: str | None
    """None if the endpoint accepted the message. Otherwise, a code such as `status_500`, `timeout` or `connection`."""
    retry_after_seconds: float = 0.0
    """The number of seconds that the endpoint asks to wait before the next attempt."""

    @property
    def is_gone(self) -> bool:
        """Whether the receiver asks for no more messages."""
        return self.error == f"status_{HTTPStatus.GONE}"


def create_client() -> httpx.AsyncClient:
    """Return an HTTP client for all endpoints.

    It follows no redirects, which would lead to URLs that no operator has added, and keeps no cookies, which would be
    sent to other endpoints of the same host.
    """
    return httpx.AsyncClient(
        follow_redirects=False,
        timeout=TIMEOUT_SECONDS,
        headers={"User-Agent": "patients-api-webhooks"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


async def send(client: httpx.AsyncClient, url: str, message: Message, secrets_in_use: Collection[bytes]) -> Outcome:
    """Send a message once. The head of the response decides the outcome.

    The body is read only if it is short, so that the connection can be used again, and discarded.
    """
    headers = signed_headers(message, secrets_in_use, int(time.time()))
    outcome = None
    try:
        async with (
            asyncio.timeout(TIMEOUT_SECONDS) as limit,
            client.stream("POST", url, content=message.body, headers=headers) as response,
        ):
            if response.is_success:
                outcome = Outcome(None)
            else:
                outcome = Outcome(f"status_{response.status_code}", _retry_after_seconds(response))
            limit.reschedule(asyncio.get_running_loop().time() + DISCARD_TIMEOUT_SECONDS)
            if int(response.headers.get("content-length", MAX_DISCARDED_BYTES + 1)) <= MAX_DISCARDED_BYTES:
                async for _ in response.aiter_raw():
                    pass
            return outcome
    except (TimeoutError, httpx.TimeoutException):
        return outcome or Outcome("timeout")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        return outcome or Outcome("connection")


def _retry_after_seconds(response: httpx.Response) -> float:
    header, seconds = response.headers.get("retry-after", ""), 0.0
    if header.isdecimal():
        seconds = float(header)
    else:
        with suppress(ValueError, TypeError, OverflowError):
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
