"""A receiver of webhooks on a port of its own, which verifies messages with the package standardwebhooks."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from standardwebhooks import Webhook


class Received(NamedTuple):
    """A request that the receiver got."""

    id: str
    timestamp: str
    headers: dict[str, str]
    body: bytes
    concurrent: int
    """The number of requests that the receiver was handling, with this one."""

    @property
    def content(self) -> dict[str, Any]:
        """The message."""
        content: dict[str, Any] = json.loads(self.body)
        return content


class Receiver:
    """Keeps the requests that it gets, and responds as `respond` says."""

    def __init__(self) -> None:
        self.url = ""
        self.received: list[Received] = []
        self.respond: Callable[[Received], str | None] = lambda _: "204 No Content"
        """Returns the status line and further headers of the response to a request; None to never respond."""
        self._running = 0

    def verify(self, secret: str) -> list[dict[str, Any]]:
        """Return the content of all messages, after verifying each with the secret."""
        return [Webhook(secret).verify(request.body, request.headers) for request in self.received]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                _, *lines = head.decode().strip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                self._running += 1
                try:
                    request = Received(
                        headers["webhook-id"], headers["webhook-timestamp"], headers, body, self._running
                    )
                    self.received.append(request)
                    response = self.respond(request)
                    if response is None:
                        await asyncio.sleep(3600)
                    await asyncio.sleep(0.005)  # as if there was something to do
                finally:
                    self._running -= 1
                length = "" if "Content-Length" in str(response) else "\r\nContent-Length: 0"
                writer.write(f"HTTP/1.1 {response}{length}\r\n\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    """Run a receiver on a free port."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    receiver.url = f"http://127.0.0.1:{port}/hooks?token=1"
    try:
        yield receiver
    finally:
        server.close()
