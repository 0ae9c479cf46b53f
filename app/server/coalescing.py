"""How answers leave: in as few pieces as there can be."""

import asyncio
from asyncio.transports import Transport
from typing import Any


class CoalescingTransport(Transport):
    """A transport by which the head and the body of an answer leave together.

    uvicorn writes one after the other, and uvloop sends each at once: two system calls of ours, and two packets for who
    receives them. So a piece is held back until the next one comes, or until this turn of the event loop ends.

    uvloop raises errors where what is closed is used; the protocol hears of that a turn later. Here it has no effect.
    """

    def __init__(self, transport: Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._pending = b""
        self.written_bytes = 0
        """Bytes that were given to it so far."""

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
        if data and not self._transport.is_closing():  # else the client has gone
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
