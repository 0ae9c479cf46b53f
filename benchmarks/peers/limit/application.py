"""A bare ASGI application: no framework, no validation, and one statement per request."""

import gc
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import asyncpg

from app.identifiers import new_identifier
from benchmarks.peers.limit import statements

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

POOL_SIZE = 4
PATIENTS_PATH = "/patients/patients/"
LIMIT_PARAMETER = b"limit="
AFTER_PARAMETER = "&after="
JSON_HEADER = (b"content-type", b"application/json")
RAW_COPY_OPTIONS = {"format": "csv", "delimiter": "\x02", "quote": "\x01"}
"""COPY options that leave JSON unchanged: JSON escapes control characters, so these do not occur in it."""

_pool: asyncpg.Pool


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """Handle one request, or the lifespan of the server."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["path"] != PATIENTS_PATH:
        unique_id = scope["path"][len(PATIENTS_PATH) : -1]
        if scope["method"] == "GET":
            document = await _pool.fetchval(statements.SELECT_PATIENT, unique_id)
        else:
            document = await _pool.fetchval(statements.UPDATE_PATIENT, unique_id, await _read_body(receive))
        await _send_response(send, 200 if document else 404, document or "null")
    elif scope["method"] == "POST":
        await _send_response(
            send, 201, await _pool.fetchval(statements.INSERT_PATIENT, new_identifier("pat"), await _read_body(receive))
        )
    elif scope["query_string"].startswith(LIMIT_PARAMETER):
        limit, _, after = scope["query_string"][len(LIMIT_PARAMETER) :].decode().partition(AFTER_PARAMETER)
        await _send_response(send, 200, await _pool.fetchval(statements.select_page(int(limit)), after))
    else:
        await _stream_all(send)


async def _lifespan(receive: Receive, send: Send) -> None:
    global _pool
    await receive()
    settings = {"jit": "off"}
    async with asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=POOL_SIZE, max_size=POOL_SIZE, server_settings=settings, reset=_skip_reset
    ) as _pool:
        gc.freeze()
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _skip_reset(_: asyncpg.Connection) -> None:
    """Leave a connection as it is: a reset would cost another round trip, and no session state is ever changed."""


async def _read_body(receive: Receive) -> str:
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    return str(body, "utf-8")


async def _send_response(send: Send, status: int, document: str) -> None:
    body = document.encode()
    headers = [JSON_HEADER, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stream_all(send: Send) -> None:
    """Stream the whole list as PostgreSQL copies it out."""
    await send({"type": "http.response.start", "status": 200, "headers": [JSON_HEADER]})
    opening = b"["

    async def forward(data: bytes) -> None:
        nonlocal opening
        await send({"type": "http.response.body", "body": opening + data[len(opening) :], "more_body": True})
        opening = b""

    async with _pool.acquire() as connection:
        await connection.copy_from_query(statements.SELECT_ALL_PATIENTS, output=forward, **RAW_COPY_OPTIONS)
    await send({"type": "http.response.body", "body": b"]" if not opening else b"[]"})
