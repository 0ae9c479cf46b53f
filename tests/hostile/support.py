"""Raw bytes on a connection, in as many separate reads as a test chooses."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.processes import port_of


@asynccontextmanager
async def connected(url: str, *, receive_buffer: int | None = None) -> AsyncIterator[socket.socket]:
    """Open a connection to a service, with a receive buffer of the given size."""
    with socket.socket() as connection:
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port_of(url)))
        yield connection


async def send(connection: socket.socket, *pieces: bytes) -> None:
    """Send pieces, each after the peer has read the ones before, as long as it reads."""
    loop = asyncio.get_running_loop()
    for piece in pieces:
        try:
            await loop.sock_sendall(connection, piece)
        except (BrokenPipeError, ConnectionResetError):
            return
        await _await_read_by_peer(connection)


async def _await_read_by_peer(connection: socket.socket) -> None:
    try:
        theirs, ours = (_proc_net_address(*address) for address in (connection.getpeername(), connection.getsockname()))
    except OSError:
        return
    async with asyncio.timeout(30):
        while _is_unread(f"{theirs} {ours} {ESTABLISHED_STATE} "):  # noqa: ASYNC110  # the kernel has no notification
            await asyncio.sleep(0)


def _is_unread(connection: str) -> bool:
    """Return whether the kernel holds bytes that the owner of this end of a connection has not read."""
    match = re.search(rf"{connection}\w+:(\w+)", Path("/proc/net/tcp").read_text())
    return match is not None and int(match[1], 16) > 0


ESTABLISHED_STATE = "01"
"""The state in the notation of `/proc/net/tcp`."""


def _proc_net_address(host: str, port: int) -> str:
    return f"{socket.inet_aton(host)[::-1].hex().upper()}:{port:04X}"


async def read_to_end(connection: socket.socket) -> bytes:
    """Read everything until the peer closes the connection."""
    received = b""
    try:
        async with asyncio.timeout(30):
            while piece := await asyncio.get_running_loop().sock_recv(connection, 65_536):
                received += piece
    except ConnectionResetError:
        pass
    return received


def statuses(received: bytes) -> list[int]:
    """Return the statuses of the responses in the received bytes, in order."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def single_bytes(content: bytes) -> list[bytes]:
    """Split content into pieces of one byte each."""
    return [content[place : place + 1] for place in range(len(content))]
