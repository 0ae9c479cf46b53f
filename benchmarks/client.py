"""A client for single requests; under load wrk asks."""

import http.client
import json
import socket
from typing import Any

from benchmarks.operations import WHOLE_LIST
from benchmarks.sides import Running, SideError

PATIENCE = 600
"""Seconds that an answer may take: a whole list is built in memory by some."""
CHUNK = 1 << 20


def ask(run: Running, method: str, path: str, body: str | None = None) -> Any:
    """The JSON of an answer.

    Raises:
        SideError: it is no success.
    """
    headers = {**run.headers, "Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", run.port, timeout=PATIENCE)
    try:
        connection.request(method, path, None if body is None else body.encode(), headers)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status >= http.client.BAD_REQUEST:
        raise SideError(f"{run.side.name} answers {method} {path} with {answer.status}: {content[:500]!r}")
    return json.loads(content)


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
