"""The state of a request while it is served, from the first middleware to its log line."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

UNKNOWN_ROUTE = "(none)"
"""Name of the route in logs and metrics if no route has matched the request (yet)."""

_KEY = "request"


def never_gone() -> bool:
    """Return False: the client counts as connected if the server cannot detect that it disconnects."""
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
    principal_name: str | None = None
    """The name of the principal. It is set as soon as the credentials are verified, so that the log contains it even if
    the request is then rejected. It is None if no credentials were verified."""
    principal: Any = None
    """The authenticated `app.auth.principal.Principal`. The type is Any, because importing it would be circular."""
    audit: Any = None
    """The request's `app.audit.recorder.RequestAudit`. The type is Any, because importing it would be circular."""
    release_stream_slot: Callable[[], None] | None = None
    """Function that releases the slot that the request holds for a streamed list, or None if it holds none. It is
    called after the response was sent or abandoned."""

    @classmethod
    def from_scope(cls, scope: Scope) -> "RequestState":
        """Return the state of the request that has this ASGI scope."""
        state: RequestState = scope["state"][_KEY]
        return state

    def attach(self, scope: Scope) -> None:
        """Store this state in the ASGI scope of its request, from which `from_scope` returns it."""
        scope.setdefault("state", {})[_KEY] = self


current_request: ContextVar[RequestState] = ContextVar("current_request")
"""The state of the request that the current task serves. The variable is not set outside of requests."""
