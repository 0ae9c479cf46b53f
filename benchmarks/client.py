"""A client for one request at a time; under load wrk asks."""

import http.client
import json
import socket
import time
from contextlib import closing
from http.client import HTTPMessage
from typing import Any, NamedTuple

from benchmarks.operations import WHOLE_LIST
from benchmarks.sides import Running, SideError

PATIENCE = 600
"""Seconds that an answer may take: a whole list is built in memory by some."""
IDLE = 4
"""Seconds after which a connection is not used again: servers hang up after five."""
CHUNK = 1 << 20


class Answer(NamedTuple):
    """What came back."""

    content: bytes
    headers: HTTPMessage


class Client:
    """One connection to a side, kept open from request to request."""

    def __init__(self, run: Running) -> None:
        self._run = run
        self._headers = {**run.headers, "Content-Type": "application/json"}
        self._connection = http.client.HTTPConnection("127.0.0.1", run.port, timeout=PATIENCE)
        self._used = 0.0

    def send(self, method: str, path: str, body: str | None = None) -> Answer:
        """Wait for the answer to a request.

        Raises:
            SideError: it is no success.
        """
        if time.monotonic() - self._used > IDLE:
            self.close()
        self._connection.request(method, path, None if body is None else body.encode(), self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        self._used = time.monotonic()
        if answer.status >= http.client.BAD_REQUEST:
            raise SideError(f"{self._run.side.name} answers {method} {path} with {answer.status}: {content[:500]!r}")
        return Answer(content, answer.headers)

    def close(self) -> None:
        """Hang up; the next request calls again."""
        self._connection.close()


def ask(run: Running, method: str, path: str, body: str | None = None) -> Any:
    """The JSON of an answer.

    Raises:
        SideError: it is no success.
    """
    with closing(Client(run)) as client:
        return json.loads(client.send(method, path, body).content)


def drain_list(run: Running) -> None:
    """Receive the whole list and look at nothing of it but its end, as a client that costs nothing would.

    Raises:
        SideError: it is no success, or not complete.
    """
    lines = [f"GET {WHOLE_LIST.paths[0]} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in run.headers.items()]
    buffer = bytearray(CHUNK)
    with socket.create_connection(("127.0.0.1", run.port), timeout=PATIENCE) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        received = connection.recv_into(buffer)
        ok = buffer.startswith(b"HTTP/1.1 200 ")
        end = b""
        while received:
            end = (end + buffer[max(0, received - 16) : received])[-16:]
            received = connection.recv_into(buffer)
    # the array's end, and that of a chunked body where it is one
    if not ok or b"]" not in end:
        raise SideError(f"{run.side.name} does not answer with the whole list")
