"""Keep-alive connections for one request after another, and clients that disconnect in the middle of one."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from random import Random
from typing import Any

from tests.processes import RawRequest, parse_response_head

RESPONSE_TIMEOUT_SECONDS = 60
MAX_WAIT_SECONDS = 0.03
"""How long a client waits at most before it disconnects; most responses begin earlier and are left half read."""
BODYLESS_STATUSES = frozenset({204, 304})


class Disconnect(Enum):
    """When a client closes its connection."""

    DURING_REQUEST = "before the request was sent in full"
    AFTER_REQUEST = "as soon as the request was sent"
    WHILE_WAITING = "shortly after the request was sent"
    DURING_RESPONSE = "after the response began"


@dataclass
class TimedResponse:
    """The response to one request as the client saw it.

    Timestamps are seconds since 1970, like those of PostgreSQL's clock.
    """

    started_at: float
    status: int | None = None
    """None if the response did not begin."""
    headers: dict[str, str] = field(default_factory=dict)
    """By their lowercase names."""
    head_at: float | None = None
    content: bytes | None = None
    """The body; None if the client disconnected or the connection broke before its end."""
    ended_at: float = 0.0

    @property
    def is_complete(self) -> bool:
        return self.content is not None

    @cached_property
    def text(self) -> str:
        return (self.content or b"").decode()

    @cached_property
    def document(self) -> Any:
        """The parsed JSON body."""
        return json.loads(self.text)


OnHead = Callable[[], Awaitable[None]]
"""Called when the head of a response has arrived, before its body is read."""


class ClientConnection:
    """A connection that is opened on demand, and again after it was closed."""

    def __init__(self, port: int, timeout_seconds: float = RESPONSE_TIMEOUT_SECONDS) -> None:
        self._port = port
        self._timeout = timeout_seconds
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self._streams

    async def close(self, *, reset: bool = False) -> None:
        """Close the connection if it is open; with a reset, sent data may not arrive."""
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            if reset:
                writer.transport.abort()
            else:
                writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def send(self, call: RawRequest, on_head: OnHead | None = None) -> TimedResponse:
        """Send a request and read its response, which is incomplete if the connection breaks."""
        reader, writer = await self._open()
        response = TimedResponse(time.time())
        try:
            async with asyncio.timeout(self._timeout):
                writer.write(call.to_bytes(keep_alive=True))
                await self._read_head(reader, response)
                if on_head is not None:
                    await on_head()
                response.content = await _read_body(reader, call, response)
        except (OSError, EOFError, TimeoutError):
            await self.close()
        response.ended_at = time.time()
        if response.headers.get("connection", "").lower() == "close":
            await self.close()
        return response

    async def send_and_disconnect(self, call: RawRequest, disconnect: Disconnect, random: Random) -> TimedResponse:
        """Send a request and disconnect at some point before the end of its response."""
        reader, writer = await self._open()
        response = TimedResponse(time.time())
        sent = call.to_bytes(keep_alive=True)
        if disconnect is Disconnect.DURING_REQUEST:
            sent = sent[: random.randrange(1, len(sent))]
        # a reset by the server ends the request as well
        with suppress(OSError, EOFError):
            writer.write(sent)
            if disconnect in {Disconnect.DURING_REQUEST, Disconnect.AFTER_REQUEST}:
                await writer.drain()
            else:
                wait = self._timeout if disconnect is Disconnect.DURING_RESPONSE else random.random() * MAX_WAIT_SECONDS
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._read_head(reader, response)
        await self.close(reset=random.random() < 0.5)
        response.ended_at = time.time()
        return response

    @staticmethod
    async def _read_head(reader: asyncio.StreamReader, response: TimedResponse) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        response.head_at = time.time()
        response.status, response.headers = parse_response_head(head)


async def _read_body(reader: asyncio.StreamReader, call: RawRequest, response: TimedResponse) -> bytes:
    if call.method == "HEAD" or response.status in BODYLESS_STATUSES:
        return b""
    if "content-length" in response.headers:
        return await reader.readexactly(int(response.headers["content-length"]))
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(parts)
