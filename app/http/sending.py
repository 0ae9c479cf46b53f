"""How answers leave: in as few pieces as there can be."""

import asyncio
from asyncio.transports import Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Protocol(HttpToolsProtocol):
    """uvicorn's, whose head and body of an answer leave together.

    It writes one after the other, and uvloop sends each at once: two system calls of ours, and two packets for who
    receives them.
    """

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as it is there
        """Have what is written to a new connection go through `_Joining`."""
        super().connection_made(_Joining(transport, self.loop))

    def eof_received(self) -> None:
        """Close, as without this, but not before what is held has been sent."""
        self.transport.close()


class _Joining(Transport):
    """A transport that holds a piece back until the next one comes, or until this turn of the event loop ends."""

    def __init__(self, transport: Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: Any) -> None:
        if self._held:
            pieces, self._held = (self._held, data), b""
            self._transport.writelines(pieces)
        elif data:
            self._held = data
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        data, self._held = self._held, b""
        if data and not self._transport.is_closing():  # else the client has gone
            self._transport.write(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()
