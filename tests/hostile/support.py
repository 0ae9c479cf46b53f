"""Bytes on a connection, past all libraries, in as many reads as a test says."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.processes import port_of


@asynccontextmanager
async def connected(url: str, *, receive_buffer: int | None = None) -> AsyncIterator[socket.socket]:
    """A connection to a service, with so many bytes for what has arrived and was not read."""
    with socket.socket() as plain:
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port_of(url)))
        yield plain


async def send(plain: socket.socket, *pieces: bytes) -> None:
    """Send pieces, each when the other side has read those before, as long as it reads any."""
    loop = asyncio.get_running_loop()
    for piece in pieces:
        try:
            await loop.sock_sendall(plain, piece)
        except (BrokenPipeError, ConnectionResetError):
            return
        await _read_by_other_side(plain)


async def _read_by_other_side(plain: socket.socket) -> None:
    try:
        theirs, ours = (_in_proc(*address) for address in (plain.getpeername(), plain.getsockname()))
    except OSError:
        return
    async with asyncio.timeout(30):
        while _is_unread(f"{theirs} {ours} {ESTABLISHED} "):  # noqa: ASYNC110  # the kernel tells nobody
            await asyncio.sleep(0)


def _is_unread(connection: str) -> bool:
    """Whether the kernel holds bytes that the owner of this end of a connection has not read."""
    found = re.search(rf"{connection}\w+:(\w+)", Path("/proc/net/tcp").read_text())
    return found is not None and int(found[1], 16) > 0


ESTABLISHED = "01"
"""As `/proc/net/tcp` writes it."""


def _in_proc(host: str, port: int) -> str:
    return f"{socket.inet_aton(host)[::-1].hex().upper()}:{port:04X}"


async def everything(plain: socket.socket) -> bytes:
    """All that still comes, until the other side closes the connection."""
    received = b""
    try:
        async with asyncio.timeout(30):
            while piece := await asyncio.get_running_loop().sock_recv(plain, 65_536):
                received += piece
    except ConnectionResetError:
        pass
    return received


def statuses(received: bytes) -> list[int]:
    """The statuses of the answers in what was received, in their order."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def by_the_byte(content: bytes) -> list[bytes]:
    """One piece for each byte."""
    return [content[place : place + 1] for place in range(len(content))]
