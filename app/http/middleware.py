"""The middleware that every request passes through.

It is pure ASGI, because Starlette's BaseHTTPMiddleware more than halves throughput. This is the order of the middleware
from the outermost to the innermost, with optional middleware in parentheses:

RequestContext → (CORS) → UnhandledErrors → (TrustedHosts) → CancelOnDisconnect → BodyLimit → TrailingSlashAndHead
→ the application
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.problems import NOT_FOUND_DETAIL, UNEXPECTED_ERROR_DETAIL, ProblemResponse, body_too_large_detail
from app.http.strict_json import MAX_BODY_SIZE_BYTES
from app.identifiers import new_identifier
from app.observability.logging import UNLOGGED_ROUTES, describe_error
from app.observability.metrics import observe_request
from app.request_state import RequestState, current_request, never_gone

log = structlog.get_logger()

_MAX_CONTENT_LENGTH_DIGITS = 18
"""Number of digits above which a `Content-Length` is too large for any limit, so that it need not be parsed."""
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
"""The HTTP methods with a request body. No route reads the body of a request that has any other method."""

_PROBE_PATHS = frozenset({"/livez", "/readyz"})
_EXPECTED_STATUSES = frozenset({HTTPStatus.OK, HTTPStatus.NO_CONTENT})
CLIENT_GONE_KEY = "client_gone"
"""Key in the `state` of an ASGI scope. Under this key, the server may store a function that returns whether the client
has disconnected."""
_REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")


SECURITY_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""Headers that are added to every response that does not set them itself (OWASP REST Security Cheat Sheet)."""


class RequestContext:
    """Assigns an id to each request, and logs and counts the request once, when it ends.

    The id is the request's own `X-Request-ID` if that is well-formed, and otherwise a new id. The id is logged and
    returned in the `X-Request-ID` header of the response. The log line and the metrics contain the route's path
    template, but never the path, the query or a body, because ids of records may be identity numbers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._log = log.bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_at = time.perf_counter()
        # if there are several X-Request-ID headers, the first one counts
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
                status = int(message["status"])  # a member of HTTPStatus would be shown differently on a console
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
                state.release_stream_slot()  # the slot is held until the response has been sent or abandoned
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
    """Responds to an unexpected error with a 500 that reveals no details, and logs where the error occurred.

    If the response has already started, its status can no longer change. The response is then left incomplete, and the
    server closes the connection.
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
        except Exception as error:  # this is the last resort for any error
            if scope["type"] != "http":
                raise
            log.error(  # noqa: TRY400  # no traceback, because it would quote values
                "unexpected error", request_id=RequestState.from_scope(scope).request_id, **describe_error(error)
            )
            if not response_started:
                await ProblemResponse(scope, 500, UNEXPECTED_ERROR_DETAIL)(scope, receive, send)


class CORS(CORSMiddleware):
    """Starlette's CORS middleware, except that it responds to a rejected preflight with a problem response."""

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
    """Rejects requests for host names that are not allowed, with a problem response.

    Starlette's middleware makes the check, but would respond in plain text. Health probes are accepted under any host
    name, because they are sent to the address of a container and their responses reveal nothing.
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
    """Discard an ASGI message instead of sending it to the client."""


class BodyLimit:
    """Rejects requests whose body is larger than `MAX_BODY_SIZE_BYTES`, with a problem response.

    Some paths have a limit of their own.

    The limit also applies to bodies without a declared length. The framework has a limit of its own, but responds in
    plain text if the declared length exceeds it.
    """

    def __init__(self, app: ASGIApp, limits_by_path: Mapping[str, int]) -> None:
        """Limit bodies. `limits_by_path` has the limits of paths, without trailing slashes, that differ."""
        self.app = app
        self._limits_by_path = limits_by_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in BODY_METHODS:
            await self.app(scope, receive, send)
            return
        limit = self._limits_by_path.get(scope["path"].rstrip("/"), MAX_BODY_SIZE_BYTES)
        declared_length = Headers(scope=scope).get("content-length", "").lstrip("0")
        if declared_length.isdecimal() and (
            len(declared_length) > _MAX_CONTENT_LENGTH_DIGITS or int(declared_length) > limit
        ):
            await ProblemResponse(scope, 413, body_too_large_detail(limit))(scope, receive, send)
            return
        received_size = 0

        async def receive_limited() -> Message:
            nonlocal received_size
            message = await receive()
            received_size += len(message.get("body", b""))
            if received_size > limit:
                raise HTTPException(413)  # the framework does not wrap this exception in another while it reads a body
            return message

        await self.app(scope, receive_limited, send)


class TrailingSlashAndHead:
    """Serves every path with and without its trailing slash, and HEAD for every GET.

    It never redirects, because a redirect loses the body and trusts the Host header. The response to a path with an
    escaped slash is 404. No id contains a slash, and routes are matched against the unescaped path, in which the slash
    would separate two segments.
    """

    def __init__(self, app: ASGIApp, slash_prefixes: Iterable[str]) -> None:
        self.app = app
        self.slash_prefixes = tuple(f"{prefix}/" for prefix in slash_prefixes)
        """The beginnings of the paths that their routes declare with a trailing slash."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if b"%" in scope["raw_path"] and b"%2f" in scope["raw_path"].lower():
            await ProblemResponse(scope, 404, NOT_FOUND_DETAIL)(scope, receive, send)
            return
        path = scope["path"].removesuffix("/")
        with_slash = f"{path}/"
        path = with_slash if with_slash.startswith(self.slash_prefixes) or not path else path
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
