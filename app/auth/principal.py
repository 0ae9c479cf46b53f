"""The principal of a request. Queries for patients on behalf of a restricted principal cover only its hospitals."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.auth.scopes import Scope
from app.errors import MissingScopeError
from app.request_state import RequestState

if TYPE_CHECKING:  # commands do without FastAPI, whose import takes a fifth of their start
    from fastapi import Request

UNAUTHENTICATED_NAME = "local"
"""Name of the principal of every request to a service that does not require authentication."""


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated client, together with the id of its request. The journal records both with each change."""

    name: str
    request_id: str | None = None
    scopes: frozenset[Scope] = frozenset({Scope.ADMIN})
    hospitals: frozenset[str] | None = None
    """Ids of the hospitals that the principal is restricted to; None if the principal is unrestricted."""

    @property
    def effective_scopes(self) -> list[Scope]:
        """All scopes whose permissions the principal has, in the order of `Scope`: with `admin`, every scope."""
        return [scope for scope in Scope if Scope.ADMIN in self.scopes or scope in self.scopes]

    @classmethod
    def from_request(cls, request: "Request") -> "Principal":
        """Return the principal of a request that `app.api.routing.Route` has authenticated.

        This is not a FastAPI dependency, because a dependency would make requests take a tenth longer.
        """
        principal: Principal = RequestState.from_scope(request.scope).principal
        return principal

    def has(self, scope: Scope) -> bool:
        """Return whether the principal has `scope` or `admin`."""
        return not self.scopes.isdisjoint({scope, Scope.ADMIN})

    def require(self, scope: Scope, *alternatives: Scope) -> None:
        """Check that the principal has `scope`, any of the `alternatives`, or `admin`.

        Raises:
            MissingScopeError: the principal has none of these scopes. The error names `scope`.
        """
        if self.scopes.isdisjoint({scope, *alternatives, Scope.ADMIN}):
            raise MissingScopeError(scope)
