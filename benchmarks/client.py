"""A client for one request at a time; under load wrk asks."""

import http.client
import json
import socket
import time
from contextlib import closing
from http.client import HTTPMessage
from typing import Any, NamedTuple

from benchmarks.operations import WHOLE_LIST
from benchmarks.sides import SideError, SideServer

RESPONSE_TIMEOUT_SECONDS = 600
"""Seconds that an answer may take: a whole list is built in memory by some."""
MAX_IDLE_SECONDS = 4
"""Seconds after which a connection is not used again: servers hang up after five."""
CHUNK_SIZE_BYTES = 1 << 20


class Response(NamedTuple):
    """What came back."""

    content: bytes
    headers: HTTPMessage


class Client:
    """One connection to a side, kept open from request to request."""

    def __init__(self, server: SideServer) -> None:
        self._server = server
        self._headers = {**server.headers, "Content-Type": "application/json"}
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=RESPONSE_TIMEOUT_SECONDS)
        self._last_used = 0.0

    def send(self, method: str, path: str, body: str | None = None) -> Response:
        """Wait for the answer to a request.

        Raises:
            SideError: it is no success.
        """
        if time.monotonic() - self._last_used > MAX_IDLE_SECONDS:
            self.close()
        self._connection.request(method, path, None if body is None else body.encode(), self._headers)
        response = self._connection.getresponse()
        content = response.read()
        self._last_used = time.monotonic()
        if response.status >= http.client.BAD_REQUEST:
            raise SideError(
                f"{self._server.side.name} answers {method} {path} with {response.status}: {content[:500]!r}"
            )
        return Response(content, response.headers)

    def close(self) -> None:
        """Hang up; the next request calls again."""
        self._connection.close()


def request_json(server: SideServer, method: str, path: str, body: str | None = None) -> Any:
    """The JSON of an answer.

    Raises:
        SideError: it is no success.
    """
    with closing(Client(server)) as client:
        return json.loads(client.send(method, path, body).content)


def drain_list(server: SideServer) -> None:
    """Receive the whole list and look at nothing of it but its end, as a client that costs nothing would.

    Raises:
        SideError: it is no success, or not complete.
    """
    lines = [f"GET {WHOLE_LIST.paths[0]} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in server.headers.items()]
    buffer = bytearray(CHUNK_SIZE_BYTES)
    with socket.create_connection(("127.0.0.1", server.port), timeout=RESPONSE_TIMEOUT_SECONDS) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        received = connection.recv_into(buffer)
        is_ok = buffer.startswith(b"HTTP/1.1 200 ")
        tail = b""
        while received:
            tail = (tail + buffer[max(0, received - 16) : received])[-16:]
            received = connection.recv_into(buffer)
    # the array's end, and that of a chunked body where it is one
    if not is_ok or b"]" not in tail:
        raise SideError(f"{server.side.name} does not answer with the whole list")
