"""Write coalescing: the head and the body of a response are sent in one write.

uvicorn writes them separately. aiohttp #10991 and Bun #41341 make the same change in those servers. The change could be
contributed to uvicorn, and this module can be removed when uvicorn writes both together.
"""

import asyncio
from asyncio.transports import Transport
from typing import Any


class CoalescingTransport(Transport):
    """A transport that sends the head and the body of a response together.

    uvicorn writes the head and then the body, and uvloop sends each of them immediately. Each response then takes two
    system calls and two packets. This class therefore holds a chunk until the next chunk arrives or the current
    iteration of the event loop ends.

    uvloop raises an error if a closed transport is used, but the protocol learns only one iteration later that the
    transport is closed. Using a closed transport of this class therefore has no effect.
    """

    def __init__(self, transport: Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._pending = b""
        self.written_bytes = 0
        """Number of bytes that have been written to this transport so far."""

    def write(self, data: Any) -> None:
        if self._transport.is_closing():
            self._pending = b""
            return
        self.written_bytes += len(data)
        if self._pending:
            pieces, self._pending = (self._pending, data), b""
            self._transport.writelines(pieces)
        elif data:
            self._pending = data
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        data, self._pending = self._pending, b""
        if data and not self._transport.is_closing():  # otherwise the client has disconnected
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._pending = b""
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return len(self._pending) + self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
