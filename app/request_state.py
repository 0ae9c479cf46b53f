"""The state of a request while it is served, from the first middleware to its log line."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

UNKNOWN_ROUTE = "(none)"
"""Value that logs and metrics contain instead of a route, as long as no route has matched the request."""

_KEY = "request"


def never_gone() -> bool:
    """Return False, so that the client counts as connected. Used if the server cannot detect a disconnect."""
    return False


@dataclass(slots=True)
class RequestState:
    """The state of one request. Middleware and the route set it; logs, metrics, traces and the audit read it."""

    request_id: str
    method: str
    """The HTTP method as the client sent it: HEAD stays HEAD, although the request is served like GET."""
    is_client_gone: Callable[[], bool] = never_gone
    """Function that returns whether the client has disconnected, as far as the server can detect this."""
    route: str = UNKNOWN_ROUTE
    """The path template of the matched route. Unlike the path, it contains no id."""
    is_read: bool = False
    """Whether the matched route changes nothing. Messages about such a request do not say what was stored."""
    principal_name: str | None = None
    """The name of the principal. It is set as soon as the credentials are verified, so that the log contains it even if
    the request is then rejected. It is None if no credentials were verified."""
    principal: Any = None
    """The authenticated principal, an `app.auth.principal.Principal`. It is annotated as Any to avoid a circular
    import."""
    audit: Any = None
    """The audit of the request, an `app.audit.recorder.RequestAudit`. It is annotated as Any to avoid a circular
    import."""
    release_stream_slot: Callable[[], None] | None = None
    """Function that releases the slot that the request holds for a streamed list, or None if it holds none. The
    function is called after the response has been sent or abandoned."""

    @classmethod
    def from_scope(cls, scope: Scope) -> "RequestState":
        """Return the state of the request to which this ASGI scope belongs."""
        state: RequestState = scope["state"][_KEY]
        return state

    def attach(self, scope: Scope) -> None:
        """Store this state in the ASGI scope of its request, from which `from_scope` returns it."""
        scope.setdefault("state", {})[_KEY] = self


current_request: ContextVar[RequestState] = ContextVar("current_request")
"""The state of the request that the current task serves. The variable is not set outside of requests."""
