"""What is known of a request while it is served, from the first middleware to its log line."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

UNKNOWN_ROUTE = "(none)"
"""The route of a request that no route has matched (yet), in logs and metrics."""

_KEY = "request"


def never_gone() -> bool:
    """Return that the client is still connected, where the server does not know."""
    return False


@dataclass(slots=True)
class RequestState:
    """The state of one request. Middleware and the route fill it in; logs, metrics, traces and the audit read it."""

    request_id: str
    method: str
    """The method as sent: HEAD is served as GET."""
    is_client_gone: Callable[[], bool] = never_gone
    """Returns whether the client has disconnected, as far as the server knows."""
    route: str = UNKNOWN_ROUTE
    """The template of the path, which holds no id."""
    principal_name: str | None = None
    """The name of the caller, as far as it is known; set before the credentials are accepted."""
    principal: Any = None
    """The authenticated `app.auth.principal.Principal`, whose type this module does not import."""
    audit: Any = None
    """The request's `app.audit.recorder.RequestAudit`, whose type this module does not import."""
    release_stream_slot: Callable[[], None] | None = None
    """Called after the response was sent or abandoned, if the request holds a slot for a streamed list."""

    @classmethod
    def from_scope(cls, scope: Scope) -> "RequestState":
        """Return the state of a request by its ASGI scope."""
        state: RequestState = scope["state"][_KEY]
        return state

    def attach(self, scope: Scope) -> None:
        """Make this the state of the request with this ASGI scope."""
        scope.setdefault("state", {})[_KEY] = self


current_request: ContextVar[RequestState] = ContextVar("current_request")
"""The state of the request that the current task serves; unset outside of requests."""
