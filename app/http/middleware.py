"""The edges every request passes, outermost first. Pure ASGI: a BaseHTTPMiddleware halves the throughput and more.

RequestContext → (CORS) → Problems → (Hosts) → Hangups → BodyLimit → Paths → the application
"""

import re
import time
from collections.abc import Iterable, Sequence
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.problems import BODY_TOO_LARGE_DETAIL, NOT_FOUND_DETAIL, UNEXPECTED_ERROR_DETAIL, ProblemResponse
from app.identifiers import new_identifier
from app.observability.logging import UNLOGGED_ROUTES, describe_error
from app.observability.metrics import observe_request
from app.observability.statements import current_request_state

log = structlog.get_logger()

MAX_BODY_SIZE_BYTES = 1024 * 1024
"""Bytes of the largest body: a patient with a thousand links needs a twentieth of it."""

_MAX_CONTENT_LENGTH_DIGITS = len(str(MAX_BODY_SIZE_BYTES))
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
"""Of the others nobody reads the body."""

_PROBE_PATHS = frozenset({"/livez", "/readyz"})
_EXPECTED_STATUSES = frozenset({HTTPStatus.OK, HTTPStatus.NO_CONTENT})
CLIENT_GONE_KEY = "client_gone"
"""In the state of a request: a function that tells whether its client has hung up, where the server knows."""
_REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")


SECURITY_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""On every answer that does not say otherwise (OWASP REST Security Cheat Sheet)."""


class RequestContext:
    """Give each request an id, in `X-Request-ID` and every log line; log it in one line when it ends, and count it.

    Line and metrics hold the route's template, never the path, the query or a body: ids may be identity numbers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._log = log.bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_at = time.perf_counter()
        # of several the first
        request_id = dict(reversed(scope["headers"])).get(b"x-request-id", b"").decode("latin-1")
        if _REQUEST_ID_PATTERN.fullmatch(request_id) is None:
            request_id = new_identifier("req")
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        is_client_gone = state.get(CLIENT_GONE_KEY, _never_gone)
        state["method"] = scope["method"]  # HEAD is served as GET
        status: int | None = None
        is_complete = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, is_complete
            if message["type"] == "http.response.start":
                status = int(message["status"])  # a member of HTTPStatus reads otherwise on a terminal
                present_names = {name for name, _ in message["headers"]}
                default_headers = [pair for pair in SECURITY_HEADERS if pair[0] not in present_names]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), *default_headers]
            elif message["type"] == "http.response.body":
                is_complete = not message.get("more_body", False) and not is_client_gone()
            await send(message)

        context_token = current_request_state.set(state)
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            current_request_state.reset(context_token)
            if (release_slot := state.get("leave")) is not None:
                release_slot()  # the place that the request has held until its answer was sent, or given up
            duration_seconds = time.perf_counter() - started_at
            route = state.get("route", "(none)")
            observe_request(scope["method"], route, status, duration_seconds, is_complete=is_complete)
            write_log_line = (
                self._log.debug if route in UNLOGGED_ROUTES and status in _EXPECTED_STATUSES else self._log.info
            )
            write_log_line(
                "request",
                request_id=request_id,
                method=scope["method"],
                route=route,
                principal=state.get("who"),
                status=status,
                complete=is_complete,
                duration_ms=round(duration_seconds * 1000, 1),
            )


def _never_gone() -> bool:
    return False


class UnhandledErrors:
    """Answer what nobody thought of with a 500 that tells nothing, and log where it happened.

    Once an answer has begun it cannot become an error: it is left incomplete, and the server breaks the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response_started = False

        async def send_noting_start(message: Message) -> None:
            nonlocal response_started
            response_started = True
            await send(message)

        try:
            await self.app(scope, receive, send_noting_start)
        except ClientDisconnect:
            pass  # nobody is left to answer
        except Exception as error:  # this is the last resort
            if scope["type"] != "http":
                raise
            log.error(  # noqa: TRY400  # not the traceback: it quotes values
                "unexpected error", request_id=scope["state"]["request_id"], **describe_error(error)
            )
            if not response_started:
                await ProblemResponse(scope, 500, UNEXPECTED_ERROR_DETAIL)(scope, receive, send)


class CORS(CORSMiddleware):
    """Starlette's, but that it answers a refused preflight with a problem."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        if "origin" in headers and "access-control-request-method" in headers and scope["method"] == "OPTIONS":
            response = self.preflight_response(request_headers=Headers(scope=scope))
            if response.status_code != HTTPStatus.OK:
                detail = f"{bytes(response.body).decode()}: PATIENTS_CORS_ORIGINS lists the origins that may call."
                await ProblemResponse(scope, 400, detail, headers={"Vary": "Origin"})(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


class TrustedHosts:
    """Refuse, with a problem, requests for names that are not ours. Starlette's middleware decides, in plain text.

    Probes are answered by any name: they come to the address of a container, and learn nothing.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str]) -> None:
        self.app = app
        self._trusted_host_middleware = TrustedHostMiddleware(self._mark_accepted, allowed_hosts, www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _PROBE_PATHS:
            await self.app(scope, receive, send)
            return
        await self._trusted_host_middleware(scope, receive, _discard_message)
        if scope["state"].get("host_accepted"):
            await self.app(scope, receive, send)
        else:
            await ProblemResponse(scope, 400, "This service is not called by that name.")(scope, receive, send)

    @staticmethod
    async def _mark_accepted(scope: Scope, _: Receive, __: Send) -> None:
        scope["state"]["host_accepted"] = True


async def _discard_message(_: Message) -> None:
    """Send nothing."""


class BodyLimit:
    """Refuse bodies of more than `MAX_BODY` bytes, declared or not, with a problem.

    The framework's own limit answers a declared length in plain text.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in BODY_METHODS:
            await self.app(scope, receive, send)
            return
        declared_length = Headers(scope=scope).get("content-length", "").lstrip("0")
        if declared_length.isdecimal() and (
            len(declared_length) > _MAX_CONTENT_LENGTH_DIGITS or int(declared_length) > MAX_BODY_SIZE_BYTES
        ):
            await ProblemResponse(scope, 413, BODY_TOO_LARGE_DETAIL)(scope, receive, send)
            return
        received_size = 0

        async def receive_limited() -> Message:
            nonlocal received_size
            message = await receive()
            received_size += len(message.get("body", b""))
            if received_size > MAX_BODY_SIZE_BYTES:
                raise HTTPException(413)  # what the framework lets through while it reads a body
            return message

        await self.app(scope, receive_limited, send)


class TrailingSlashAndHead:
    """Serve every path with and without its last slash, and HEAD wherever GET is.

    Never by a redirect: that drops bodies and trusts the Host header. A path with an escaped slash is nobody's: no id
    has a slash, and routes are matched against the unescaped path, in which it would separate two parts.
    """

    def __init__(self, app: ASGIApp, slash_prefixes: Iterable[str]) -> None:
        self.app = app
        self.slash_prefixes = tuple(slash_prefixes)
        """What the paths that routes have with a last slash begin with."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if b"%" in scope["raw_path"] and b"%2f" in scope["raw_path"].lower():
            await ProblemResponse(scope, 404, NOT_FOUND_DETAIL)(scope, receive, send)
            return
        path = scope["path"].removesuffix("/")
        path = f"{path}/" if path.startswith(self.slash_prefixes) or not path else path
        if path == scope["path"] and scope["method"] != "HEAD":
            await self.app(scope, receive, send)
        elif scope["method"] != "HEAD":
            await self.app({**scope, "path": path}, receive, send)
        else:
            await self.app({**scope, "path": path, "method": "GET"}, receive, _send_headers_only(send))


def _send_headers_only(send: Send) -> Send:
    is_ended = False

    async def send_headers(message: Message) -> None:
        nonlocal is_ended
        if message["type"] == "http.response.start":
            await send(message)
        elif not is_ended:
            is_ended = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_headers
