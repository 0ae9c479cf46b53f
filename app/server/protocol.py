"""How the bytes of a connection become requests, and when a connection ends.

The parser is llhttp, by httptools, in uvicorn's protocol. This module adds that no byte of a request is read as a part
of another, that no client keeps a connection by doing nothing, and that connections do not use up all descriptors.
"""

import asyncio
import fcntl
import resource
import sys
import termios
from asyncio.transports import Transport
from collections import deque
from collections.abc import MutableSequence
from contextlib import suppress
from typing import Any, ClassVar

import structlog
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.http.middleware import CLIENT_GONE_KEY, SECURITY_HEADERS
from app.http.problems import HEAD_TOO_LARGE_DETAIL, ProblemResponse
from app.identifiers import new_identifier
from app.observability.metrics import observe_request
from app.server.coalescing import CoalescingTransport

log = structlog.get_logger()

MAX_HEAD_SIZE_BYTES = 32 * 1024
"""The largest head of a request; also what may come in one piece between bytes of a body: extensions, trailers."""
MIN_RECEIVED_BYTES = 16 * 1024
"""What a client takes of its answer at least within the time it has."""
RESERVED_FILE_DESCRIPTORS = 64
"""File descriptors that connections of clients leave to the rest of the process: its database, files, name lookups."""
DESCRIPTOR_LOG_INTERVAL_SECONDS = 10.0
"""The least time between two lines in the log that say that descriptors have run out."""

_HOP_BY_HOP_HEADERS = frozenset({b"connection", b"upgrade", b"http2-settings"})
_SUPPORTED_VERSIONS = frozenset({"1.0", "1.1"})
_DISCARDED_TRAILERS: MutableSequence[tuple[bytes, bytes]] = deque(maxlen=0)
"""Where trailers go: they would be taken for headers of the request."""


class InvalidRequestError(Exception):
    """A request that is not served; the message tells the client what to change."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class HeadTooLargeError(InvalidRequestError):
    """A head, or what is neither head nor body, is larger than `MAX_HEAD_SIZE_BYTES`."""

    def __init__(self) -> None:
        super().__init__(431, HEAD_TOO_LARGE_DETAIL)


class StrictHttpProtocol(HttpToolsProtocol):
    """uvicorn's, without upgrades, with strict framing, and with an end for connections whose client does nothing."""

    _descriptor_limit_logged_at: ClassVar[float] = -DESCRIPTOR_LOG_INTERVAL_SECONDS
    """When the log last said, for the whole process, that descriptors have run out."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        client_timeout_seconds: float,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser = HttpRequestParser(self)  # uvicorn's own reads on after `Connection: close`
        self._has_stopped_reading = False
        """Whether no further byte is read: what was sent cannot be told apart into requests any more."""
        self._framing_size_bytes = 0
        """Bytes in the reads since a head was complete, or since the last byte of a body."""
        self._responding_cycle: RequestResponseCycle | None = None
        """The request that is being answered, or was last; `cycle` is the one that was read last."""
        self._client_timeout_seconds = client_timeout_seconds
        self._last_client_progress: object = None
        """What the client owed the service when that was last looked at."""
        self._client_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as it is there
        """Have answers leave in one piece, begin to watch the client; or end at once where descriptors run out."""
        self._coalescing_transport = CoalescingTransport(transport, self.loop)
        super().connection_made(self._coalescing_transport)
        self._client_timer = self.loop.call_later(self._client_timeout_seconds, self._check_client)
        descriptor_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # the system gives the lowest number that is free
        if (
            descriptor_limit != resource.RLIM_INFINITY
            and self._file_descriptor() >= descriptor_limit - RESERVED_FILE_DESCRIPTORS
        ):
            self._coalescing_transport.abort()
            if self.loop.time() - StrictHttpProtocol._descriptor_limit_logged_at >= DESCRIPTOR_LOG_INTERVAL_SECONDS:
                StrictHttpProtocol._descriptor_limit_logged_at = self.loop.time()
                log.error(
                    "connections are refused: the process is at its limit of file descriptors",
                    limit=descriptor_limit,
                    connections=len(self.connections),
                )

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered; uvicorn tells the one that was read last."""
        if self._client_timer is not None:
            self._client_timer.cancel()
        if self._responding_cycle is not None and not self._responding_cycle.response_complete:
            self._responding_cycle.disconnected = True
            self._responding_cycle.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Close, as without this, but not before what is held has been sent."""
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse what was sent, and serve each request that is complete enough for it."""
        if self._has_stopped_reading:
            return
        self._unset_keepalive_if_required()
        self._framing_size_bytes += len(data)
        try:
            try:
                self.parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                self._reparse_without_upgrade(data[upgrade.args[0] :])
            if self._framing_size_bytes > MAX_HEAD_SIZE_BYTES:
                raise HeadTooLargeError
        except InvalidRequestError as error:
            self._reject(error)
        except HttpParserError as error:
            context = error.__context__
            parse_error = InvalidRequestError(400, f"This is not valid HTTP: {error}.")
            self._reject(context if isinstance(context, InvalidRequestError) else parse_error)

    def _reparse_without_upgrade(self, rest: bytes) -> None:
        """Read a request anew that asks for an upgrade, as one that does not, and the `rest` that follows its head.

        httptools takes it for one without a body, and what follows for another protocol, or the next request. There are
        no upgrades here: another parser gets the same head without what asks for one, and with `Connection: close`,
        after which it takes nothing for a request.
        """
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % (name, value) for name, value in self.headers if name not in _HOP_BY_HOP_HEADERS]
        self.parser = HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join([*lines, b"Connection: close", b"\r\n"]) + rest)

    def on_headers_complete(self) -> None:
        """Serve the request, if its head is one; not yet if it asks for an upgrade, see `_read_without_upgrade`."""
        self._check_head()
        self._framing_size_bytes = 0
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            self.scope["state"][CLIENT_GONE_KEY] = self.transport.is_closing
            self.headers = _DISCARDED_TRAILERS  # type: ignore[assignment]  # nothing but `append` is called
        elif self.parser.get_method() == b"CONNECT":
            raise InvalidRequestError(400, "This service is no proxy.")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._responding_cycle = cycle
        super()._start_asgi_task(cycle, app)

    def _check_head(self) -> None:
        """Check what the parser does not.

        Raises:
            RefusedError: the head is too large, its version is none of ours, it names no host or several, or it has a
                body that is encoded in other ways than `chunked`.
        """
        header_names = [name for name, _ in self.headers]
        version = self.parser.get_http_version()
        if version not in _SUPPORTED_VERSIONS:
            raise InvalidRequestError(400, "This service speaks HTTP/1.1.")
        host_count = header_names.count(b"host")
        if host_count != 1 and (host_count or version != "1.0"):
            raise InvalidRequestError(400, "Send one Host header.")
        if b"transfer-encoding" in header_names:
            codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
            if codings != [b"chunked"] or version == "1.0":
                raise InvalidRequestError(400, "The only Transfer-Encoding is `chunked`, once, in HTTP/1.1.")
        if self._framing_size_bytes > MAX_HEAD_SIZE_BYTES:  # or a body came with it
            size = len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
            if size > MAX_HEAD_SIZE_BYTES:
                raise HeadTooLargeError

    def on_body(self, body: bytes) -> None:
        """Pass a part of a body on."""
        self._framing_size_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request is complete, which one that asks for an upgrade is not yet."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _reject(self, error: InvalidRequestError) -> None:
        """Answer what is no request, where it is its turn to be answered, and end the connection."""
        self._has_stopped_reading = True
        request_id = new_identifier("req")
        log.warning("request refused", request_id=request_id, status=error.status, reason=error.detail)
        cycle: RequestResponseCycle | None = self.cycle
        is_in_head = cycle is None or cycle.scope is not self.scope
        if cycle is not None and not cycle.response_complete and (is_in_head or not cycle.more_body):
            cycle.keep_alive = False  # this answer, which is on its way, is the last
            return
        # an answer to a request that has one already would be taken for the answer to the next
        if is_in_head or cycle is None or not (cycle.response_started or self.pipeline):
            observe_request("", "(none)", error.status, 0, is_complete=True)
            response = ProblemResponse({"state": {"request_id": request_id}}, error.status, error.detail)
            headers = [*response.raw_headers, (b"connection", b"close"), (b"x-request-id", request_id.encode())]
            lines = [b"%b: %b\r\n" % header for header in (*headers, *SECURITY_HEADERS)]
            self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", bytes(response.body)]))
        self.transport.close()

    def _check_client(self) -> None:
        """End the connection if the client has owed the same for a whole period."""
        progress = self._client_progress()
        if progress is not None and progress == self._last_client_progress:
            self._coalescing_transport.abort()
            return
        self._last_client_progress = progress
        self._client_timer = self.loop.call_later(self._client_timeout_seconds, self._check_client)

    def _client_progress(self) -> object:
        """What the client has to do next, which changes when it has done it; None if it is the service's turn.

        A request is owed until it is complete, however many bytes of it come; of an answer, some bytes must be taken.
        """
        if self.flow.write_paused or self.transport.is_closing():
            return "answer", (
                self._coalescing_transport.written_bytes - self._undelivered_bytes()
            ) // MIN_RECEIVED_BYTES
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            return "request", cycle
        if cycle.more_body and not (self.flow.read_paused or cycle.waiting_for_100_continue):
            return "body", cycle
        return None

    def _undelivered_bytes(self) -> int:
        """Bytes of answers that have not reached the client's side, here and in the kernel."""
        kernel_queue_size = bytearray(4)
        with suppress(OSError):  # it has just been closed, or is no Linux socket
            fcntl.ioctl(self._file_descriptor(), termios.TIOCOUTQ, kernel_queue_size)
        return self._coalescing_transport.get_write_buffer_size() + int.from_bytes(kernel_queue_size, sys.byteorder)

    def _file_descriptor(self) -> int:
        descriptor: int = self._coalescing_transport.get_extra_info("socket").fileno()
        return descriptor
