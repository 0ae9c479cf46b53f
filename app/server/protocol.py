"""The HTTP protocol of a client connection. It parses bytes into requests and decides when the connection ends.

uvicorn's protocol does the parsing with httptools, which wraps llhttp. In addition, this module ensures that no byte of
one request is read as part of another, that idle clients cannot hold a connection, and that connections do not exhaust
the file descriptors.

Two parts could be contributed upstream. `_reparse_without_upgrade` can be removed when uvicorn #2722 and httptools #124
are fixed: because of these bugs, the body of a request that asks for an upgrade is lost. Write coalescing
(`app.server.coalescing`) can be removed when uvicorn has it.
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
from app.http.strict_json import MAX_BODY_SIZE_BYTES
from app.identifiers import new_identifier
from app.observability.metrics import observe_request
from app.request_state import UNKNOWN_ROUTE, RequestState
from app.server.coalescing import CoalescingTransport

log = structlog.get_logger()

MAX_HEAD_SIZE_BYTES = 32 * 1024
"""Maximum size of the head of a request, in bytes. The same limit applies to the chunk extensions between two parts of
a body and to the trailers after a body."""
RECEIVE_PROGRESS_BYTES = 16 * 1024
"""Minimum number of bytes of a response that a client must receive during each client timeout."""
RESERVED_FILE_DESCRIPTORS = 64
"""Number of file descriptors that are reserved for the rest of the process (the database, files, name lookups), so that
client connections cannot take them."""
DESCRIPTOR_LOG_INTERVAL_SECONDS = 10.0
"""Minimum number of seconds between two log events that report that file descriptors have run out."""

_HOP_BY_HOP_HEADERS = frozenset({b"connection", b"upgrade", b"http2-settings"})
_SUPPORTED_VERSIONS = frozenset({"1.0", "1.1"})
_DISCARDED_TRAILERS: MutableSequence[tuple[bytes, bytes]] = deque(maxlen=0)
"""Sequence that discards everything that is appended to it. uvicorn appends trailers to it and would otherwise treat
them as headers of the request."""


class InvalidRequestError(Exception):
    """A request is not valid HTTP or is not supported. The message tells the client what to change."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class HeadTooLargeError(InvalidRequestError):
    """The head of a request, or its chunk extensions and trailers, exceed `MAX_HEAD_SIZE_BYTES`."""

    def __init__(self) -> None:
        super().__init__(431, HEAD_TOO_LARGE_DETAIL)


class StrictHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with strict framing, without upgrades, and with a timeout for clients that do nothing."""

    _descriptor_limit_logged_at: ClassVar[float] = -DESCRIPTOR_LOG_INTERVAL_SECONDS
    """Time at which this process last logged that file descriptors have run out."""

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
        self.parser = HttpRequestParser(self)  # uvicorn's parser keeps reading after `Connection: close`
        self._has_stopped_reading = False
        """Whether further bytes are ignored, because they can no longer be separated into requests."""
        self._framing_size_bytes = 0
        """Number of bytes read since the last head was complete or the last part of a body arrived.

        It limits heads, chunk extensions and trailers to `MAX_HEAD_SIZE_BYTES`.
        """
        self._body_size_bytes = 0
        """Number of bytes of the body that have arrived of the request that was read last."""
        self._responding_cycle: RequestResponseCycle | None = None
        """The request that is being served or was served last. `self.cycle` is the request that was read last."""
        self._client_timeout_seconds = client_timeout_seconds
        self._last_client_progress: object = None
        """The result of `_client_progress` at the previous check of the client."""
        self._client_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Set up write coalescing and the client timeout; abort the connection if file descriptors have run out."""
        self._coalescing_transport = CoalescingTransport(transport, self.loop)
        super().connection_made(self._coalescing_transport)
        self._client_timer = self.loop.call_later(self._client_timeout_seconds, self._check_client)
        descriptor_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # the system assigns the lowest free number, so the number of this descriptor shows how many are in use
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
        """Notify the request that is being served that the client has disconnected.

        uvicorn itself notifies only the request that was read last.
        """
        if self._client_timer is not None:
            self._client_timer.cancel()
        if self._responding_cycle is not None and not self._responding_cycle.response_complete:
            self._responding_cycle.disconnected = True
            self._responding_cycle.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Send pending bytes and close the connection. Without this method, the pending bytes would be lost."""
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse the received bytes, and serve each request as soon as its head is complete."""
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
        """Parse a request again, without the headers that ask for an upgrade.

        `rest` contains the received bytes that follow the head of the request. httptools assumes that a request for an
        upgrade has no body, and that the bytes after its head belong to another protocol or to the next request. But
        this service supports no upgrades. A new parser therefore gets the same head without the headers that ask for an
        upgrade. The head also gets `Connection: close`, so that the parser accepts no further request.
        """
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % (name, value) for name, value in self.headers if name not in _HOP_BY_HOP_HEADERS]
        self.parser = HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join([*lines, b"Connection: close", b"\r\n"]) + rest)

    def on_headers_complete(self) -> None:
        """Check the head of a request and begin to serve the request.

        A request that asks for an upgrade is not served yet, because `_reparse_without_upgrade` parses it again.
        """
        self._check_head()
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # its client would take 100 for the response (RFC 9110, section 10.1.1)
        self._framing_size_bytes = self._body_size_bytes = 0
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            self.scope["state"][CLIENT_GONE_KEY] = self.transport.is_closing
            self.headers = _DISCARDED_TRAILERS  # type: ignore[assignment]  # only `append` is called
        elif self.parser.get_method() == b"CONNECT":
            raise InvalidRequestError(400, "This service is not a proxy.")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._responding_cycle = cycle
        if cycle.waiting_for_100_continue:
            # a proxy that gets a final response instead may send its next request in the place of the body, which
            # would be taken for it (Go before 1.22.5, CVE-2024-24791)
            cycle.keep_alive = False
        super()._start_asgi_task(cycle, app)

    def _check_head(self) -> None:
        """Check the properties of a request's head that the parser does not check.

        Raises:
            InvalidRequestError: the head is too large, its HTTP version is not supported, it does not have
                exactly one Host header (HTTP/1.0 allows none), or it has a Transfer-Encoding other than exactly
                `chunked`.
        """
        header_names = [name for name, _ in self.headers]
        version = self.parser.get_http_version()
        if version not in _SUPPORTED_VERSIONS:
            raise InvalidRequestError(400, "This service supports only HTTP/1.1. Use that version.")
        host_count = header_names.count(b"host")
        if host_count != 1 and (host_count or version != "1.0"):
            raise InvalidRequestError(400, "Send exactly one Host header.")
        if b"transfer-encoding" in header_names:
            codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
            if codings != [b"chunked"] or version == "1.0":
                raise InvalidRequestError(
                    400, "The only supported Transfer-Encoding is a single `chunked`, in HTTP/1.1."
                )
        if self._framing_size_bytes > MAX_HEAD_SIZE_BYTES:  # these bytes may include part of a body
            size = len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
            if size > MAX_HEAD_SIZE_BYTES:
                raise HeadTooLargeError

    def on_body(self, body: bytes) -> None:
        """Pass part of a body on to the application, and count framing bytes from zero again."""
        self._framing_size_bytes = 0
        self._body_size_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Mark a request as complete, unless it asks for an upgrade.

        A request that asks for an upgrade is not complete yet, because `_reparse_without_upgrade` parses it again.
        """
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _reject(self, error: InvalidRequestError) -> None:
        """Reject an invalid request and close the connection.

        Responses on a connection have no ids, so the client assigns them to its requests by their order. An error
        response is sent only if the client assigns it to the invalid request and not to another one.
        """
        self._has_stopped_reading = True
        request_id = new_identifier("req")
        log.warning("request refused", request_id=request_id, status=error.status, reason=error.detail)
        cycle: RequestResponseCycle | None = self.cycle
        is_in_head = cycle is None or cycle.scope is not self.scope
        if cycle is not None and not cycle.response_complete and (is_in_head or not cycle.more_body):
            cycle.keep_alive = False  # the connection closes after the current response
            return
        # a second response to the same request would be mistaken for the response to the next request
        if is_in_head or cycle is None or not (cycle.response_started or self.pipeline):
            observe_request("", UNKNOWN_ROUTE, error.status, 0, is_complete=True)
            scope: dict[str, Any] = {"path": ""}  # which is not known if the head is invalid
            RequestState(request_id, "").attach(scope)
            response = ProblemResponse(scope, error.status, error.detail)
            headers = [*response.raw_headers, (b"connection", b"close"), (b"x-request-id", request_id.encode())]
            lines = [b"%b: %b\r\n" % header for header in (*headers, *SECURITY_HEADERS)]
            self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", bytes(response.body)]))
        self.transport.close()

    def _check_client(self) -> None:
        """Abort the connection if the client has made no progress since the previous check, one client timeout ago."""
        progress = self._client_progress()
        if progress is not None and progress == self._last_client_progress:
            self._coalescing_transport.abort()
            return
        self._last_client_progress = progress
        self._client_timer = self.loop.call_later(self._client_timeout_seconds, self._check_client)

    def _client_progress(self) -> object:
        """Return a value that changes when the client makes progress, or None if nothing is expected from the client.

        While a request arrives, there is progress when its head or its body is complete, and whenever another
        `MAX_BODY_SIZE_BYTES` of a larger body have arrived, which only an import may have; but not when a smaller part
        arrives. While a response is sent, there is progress whenever the client has received another
        `RECEIVE_PROGRESS_BYTES`.
        """
        if self.flow.write_paused or self.transport.is_closing():
            return "response", (
                self._coalescing_transport.written_bytes - self._undelivered_bytes()
            ) // RECEIVE_PROGRESS_BYTES
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            return "request", cycle
        if cycle.more_body and not (self.flow.read_paused or cycle.waiting_for_100_continue):
            return "body", cycle, self._body_size_bytes // MAX_BODY_SIZE_BYTES
        return None

    def _undelivered_bytes(self) -> int:
        """Return the number of response bytes, in this process and in the kernel, that have not reached the client."""
        kernel_queue_size = bytearray(4)
        with suppress(OSError):  # the socket was just closed, or the system is not Linux
            fcntl.ioctl(self._file_descriptor(), termios.TIOCOUTQ, kernel_queue_size)
        return self._coalescing_transport.get_write_buffer_size() + int.from_bytes(kernel_queue_size, sys.byteorder)

    def _file_descriptor(self) -> int:
        descriptor: int = self._coalescing_transport.get_extra_info("socket").fileno()
        return descriptor
