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

from app.http.problems import BODY_TOO_LARGE, UNEXPECTED, ProblemResponse
from app.observability.logging import QUIET, describe
from app.observability.metrics import count_request
from app.observability.statements import request_state
from app.resource.identifiers import new_identifier

log = structlog.get_logger()

MAX_BODY = 1024 * 1024
"""Bytes of the largest body: a patient with a thousand links needs a twentieth of it."""

_MAX_BODY_DIGITS = len(str(MAX_BODY))
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
"""Of the others nobody reads the body."""

_PROBES = frozenset({"/livez", "/readyz"})
_FINE = frozenset({HTTPStatus.OK, HTTPStatus.NO_CONTENT})
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


_SECURITY = (
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
        started = time.perf_counter()
        # of several the first
        request_id = dict(reversed(scope["headers"])).get(b"x-request-id", b"").decode("latin-1")
        if _SANE_REQUEST_ID.fullmatch(request_id) is None:
            request_id = new_identifier("req")
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["method"] = scope["method"]  # HEAD is served as GET
        status: int | None = None
        complete = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = int(message["status"])  # a member of HTTPStatus reads otherwise on a terminal
                said = {name for name, _ in message["headers"]}
                ours = [pair for pair in _SECURITY if pair[0] not in said]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), *ours]
            elif message["type"] == "http.response.body":
                complete = not message.get("more_body", False)
            await send(message)

        context = request_state.set(state)
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            request_state.reset(context)
            seconds = time.perf_counter() - started
            route = state.get("route", "(none)")
            count_request(scope["method"], route, status, seconds, complete=complete)
            write = self._log.debug if route in QUIET and status in _FINE else self._log.info
            write(
                "request",
                request_id=request_id,
                method=scope["method"],
                route=route,
                principal=state.get("who"),
                status=status,
                complete=complete,
                duration_ms=round(seconds * 1000, 1),
            )


class Problems:
    """Answer what nobody thought of with a 500 that tells nothing, and log where it happened.

    Once an answer has begun it cannot become an error: it is left incomplete, and the server breaks the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, note_start)
        except ClientDisconnect:
            pass  # nobody is left to answer
        except Exception as error:  # this is the last resort
            if scope["type"] != "http":
                raise
            log.error(  # noqa: TRY400  # not the traceback: it quotes values
                "unexpected error", request_id=scope["state"]["request_id"], **describe(error)
            )
            if not started:
                await ProblemResponse(scope, 500, UNEXPECTED)(scope, receive, send)


class CORS(CORSMiddleware):
    """Starlette's, but that it answers a refused preflight with a problem."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        if "origin" in headers and "access-control-request-method" in headers and scope["method"] == "OPTIONS":
            answer = self.preflight_response(request_headers=Headers(scope=scope))
            if answer.status_code != HTTPStatus.OK:
                detail = f"{bytes(answer.body).decode()}: PATIENTS_CORS_ORIGINS lists the origins that may call."
                await ProblemResponse(scope, 400, detail, headers={"Vary": "Origin"})(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


class Hosts:
    """Refuse, with a problem, requests for names that are not ours. Starlette's middleware decides, in plain text.

    Probes are answered by any name: they come to the address of a container, and learn nothing.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self.app = app
        self._decide = TrustedHostMiddleware(self._accept, allowed, www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self.app(scope, receive, send)
            return
        await self._decide(scope, receive, _discard)
        if scope["state"].get("host_accepted"):
            await self.app(scope, receive, send)
        else:
            await ProblemResponse(scope, 400, "This service is not called by that name.")(scope, receive, send)

    @staticmethod
    async def _accept(scope: Scope, _: Receive, __: Send) -> None:
        scope["state"]["host_accepted"] = True


async def _discard(_: Message) -> None:
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
        declared = Headers(scope=scope).get("content-length", "").lstrip("0")
        if declared.isdecimal() and (len(declared) > _MAX_BODY_DIGITS or int(declared) > MAX_BODY):
            await ProblemResponse(scope, 413, BODY_TOO_LARGE)(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                raise HTTPException(413)  # what the framework lets through while it reads a body
            return message

        await self.app(scope, receive_limited, send)


class Paths:
    """Serve every path with and without its last slash, and HEAD wherever GET is.

    Never by a redirect: that drops bodies and trusts the Host header.
    """

    def __init__(self, app: ASGIApp, slashed: Iterable[str]) -> None:
        self.app = app
        self.slashed = tuple(slashed)
        """What the paths that routes have with a last slash begin with."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removesuffix("/")
        path = f"{path}/" if path.startswith(self.slashed) or not path else path
        if path == scope["path"] and scope["method"] != "HEAD":
            await self.app(scope, receive, send)
        elif scope["method"] != "HEAD":
            await self.app({**scope, "path": path}, receive, send)
        else:
            await self.app({**scope, "path": path, "method": "GET"}, receive, _headers_only(send))


def _headers_only(send: Send) -> Send:
    ended = False

    async def send_headers(message: Message) -> None:
        nonlocal ended
        if message["type"] == "http.response.start":
            await send(message)
        elif not ended:
            ended = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_headers
