"""A client for one request at a time; wrk generates concurrent load."""

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
"""The timeout for a response, because some sides build the whole list in memory."""
MAX_IDLE_SECONDS = 4
"""How long a connection may be idle before it is replaced; servers close it after five seconds."""
CHUNK_SIZE_BYTES = 1 << 20


class Response(NamedTuple):
    """The content and the headers of a response."""

    content: bytes
    headers: HTTPMessage


class Client:
    """A connection to a side, kept open between requests."""

    def __init__(self, server: SideServer) -> None:
        self._server = server
        self._headers = {**server.headers, "Content-Type": "application/json"}
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=RESPONSE_TIMEOUT_SECONDS)
        self._last_used = 0.0

    def send(self, method: str, path: str, body: str | None = None) -> Response:
        """Send a request and return the response.

        Raises:
            SideError: the status is an error.
        """
        if time.monotonic() - self._last_used > MAX_IDLE_SECONDS:
            self.close()
        self._connection.request(method, path, None if body is None else body.encode(), self._headers)
        response = self._connection.getresponse()
        content = response.read()
        self._last_used = time.monotonic()
        if response.status >= http.client.BAD_REQUEST:
            raise SideError(
                f"{self._server.side.name} responds to {method} {path} with {response.status}: {content[:500]!r}"
            )
        return Response(content, response.headers)

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        self._connection.close()


def request_json(server: SideServer, method: str, path: str, body: str | None = None) -> Any:
    """Send a request and return the JSON of its response.

    Raises:
        SideError: the status is an error.
    """
    with closing(Client(server)) as client:
        return json.loads(client.send(method, path, body).content)


def drain_list(server: SideServer) -> None:
    """Receive the whole list and check only its end, so that the client costs almost nothing.

    Raises:
        SideError: the response is an error or incomplete.
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
    # the end of the array, possibly followed by the end of a chunked body
    if not is_ok or b"]" not in tail:
        raise SideError(f"{server.side.name} does not return the whole list")
