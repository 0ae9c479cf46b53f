"""The middleware of every request, outermost first. Pure ASGI, because BaseHTTPMiddleware more than halves throughput.

RequestContext → (CORS) → UnhandledErrors → (TrustedHosts) → CancelOnDisconnect → BodyLimit → TrailingSlashAndHead
→ the application
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
from app.request_state import RequestState, current_request, never_gone

log = structlog.get_logger()

MAX_BODY_SIZE_BYTES = 1024 * 1024
"""Maximum size of a request body in bytes; a patient with a thousand links needs a twentieth of it."""

_MAX_CONTENT_LENGTH_DIGITS = len(str(MAX_BODY_SIZE_BYTES))
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
"""The methods that have a body; no route reads the body of any other."""

_PROBE_PATHS = frozenset({"/livez", "/readyz"})
_EXPECTED_STATUSES = frozenset({HTTPStatus.OK, HTTPStatus.NO_CONTENT})
CLIENT_GONE_KEY = "client_gone"
"""Key in the request state: a function that returns whether the client has disconnected, if the server provides it."""
_REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")


SECURITY_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""The default headers of all responses that do not set them (OWASP REST Security Cheat Sheet)."""


class RequestContext:
    """Gives each request an id, sent as `X-Request-ID` and logged; logs and counts each request once, when it ends.

    The log line and the metrics contain the route's template, never the path, the query or a body, because ids may be
    identity numbers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._log = log.bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_at = time.perf_counter()
        # the first, if there are several
        request_id = dict(reversed(scope["headers"])).get(b"x-request-id", b"").decode("latin-1")
        if _REQUEST_ID_PATTERN.fullmatch(request_id) is None:
            request_id = new_identifier("req")
        is_client_gone = scope.get("state", {}).get(CLIENT_GONE_KEY, never_gone)
        state = RequestState(request_id, scope["method"], is_client_gone)
        state.attach(scope)
        status: int | None = None
        is_complete = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, is_complete
            if message["type"] == "http.response.start":
                status = int(message["status"])  # a console shows a member of HTTPStatus differently
                present_names = {name for name, _ in message["headers"]}
                default_headers = [pair for pair in SECURITY_HEADERS if pair[0] not in present_names]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), *default_headers]
            elif message["type"] == "http.response.body":
                is_complete = not message.get("more_body", False) and not is_client_gone()
            await send(message)

        context_token = current_request.set(state)
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            current_request.reset(context_token)
            if state.release_stream_slot is not None:
                state.release_stream_slot()  # held until the response was sent or abandoned
            duration_seconds = time.perf_counter() - started_at
            route = state.route
            observe_request(scope["method"], route, status, duration_seconds, is_complete=is_complete)
            write_log_line = (
                self._log.debug if route in UNLOGGED_ROUTES and status in _EXPECTED_STATUSES else self._log.info
            )
            write_log_line(
                "request",
                request_id=request_id,
                method=scope["method"],
                route=route,
                principal=state.principal_name,
                status=status,
                complete=is_complete,
                duration_ms=round(duration_seconds * 1000, 1),
            )


class UnhandledErrors:
    """Responds to unexpected errors with a 500 without details, and logs where they occurred.

    Once a response has started it cannot become an error: it is left incomplete, and the server closes the connection.
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
            pass  # there is no client left to respond to
        except Exception as error:  # the last resort for all errors
            if scope["type"] != "http":
                raise
            log.error(  # noqa: TRY400  # without the traceback, because it quotes values
                "unexpected error", request_id=RequestState.from_scope(scope).request_id, **describe_error(error)
            )
            if not response_started:
                await ProblemResponse(scope, 500, UNEXPECTED_ERROR_DETAIL)(scope, receive, send)


class CORS(CORSMiddleware):
    """Starlette's CORS middleware, except that it responds to a rejected preflight with a problem."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        if "origin" in headers and "access-control-request-method" in headers and scope["method"] == "OPTIONS":
            response = self.preflight_response(request_headers=Headers(scope=scope))
            if response.status_code != HTTPStatus.OK:
                detail = f"{bytes(response.body).decode()}: PATIENTS_CORS_ORIGINS lists the allowed origins."
                await ProblemResponse(scope, 400, detail, headers={"Vary": "Origin"})(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


class TrustedHosts:
    """Rejects requests for unknown host names with a problem, where Starlette's middleware would respond in plain text.

    Health probes are accepted under any name: they are sent to the address of a container, and reveal nothing.
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
            await ProblemResponse(scope, 400, "This service is not available under this host name.")(
                scope, receive, send
            )

    @staticmethod
    async def _mark_accepted(scope: Scope, _: Receive, __: Send) -> None:
        scope["state"]["host_accepted"] = True


async def _discard_message(_: Message) -> None:
    """Discard a message."""


class BodyLimit:
    """Rejects bodies larger than `MAX_BODY_SIZE_BYTES`, with or without a declared length, with a problem.

    The framework's own limit responds to a declared length in plain text.
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
                raise HTTPException(413)  # the framework does not wrap this exception while it reads a body
            return message

        await self.app(scope, receive_limited, send)


class TrailingSlashAndHead:
    """Serves every path with and without its trailing slash, and HEAD for every GET.

    It never redirects, because a redirect drops bodies and trusts the Host header. A path with an escaped slash is not
    found: no id contains a slash, and routes are matched against the unescaped path, where it would separate segments.
    """

    def __init__(self, app: ASGIApp, slash_prefixes: Iterable[str]) -> None:
        self.app = app
        self.slash_prefixes = tuple(slash_prefixes)
        """Prefixes of the paths that routes declare with a trailing slash."""

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
