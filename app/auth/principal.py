"""The principal for which a request runs. Every query of patients is scoped to its hospitals."""

from dataclasses import dataclass

from fastapi import Request

from app.auth.scopes import Scope
from app.errors import MissingScopeError
from app.request_state import RequestState


@dataclass(frozen=True, slots=True)
class Principal:
    """The client of a request and the id of the request, as the journal records them with each change."""

    name: str
    request_id: str | None = None
    scopes: frozenset[Scope] = frozenset({Scope.ADMIN})
    hospitals: frozenset[str] | None = None
    """The hospitals that the principal is restricted to; None if it is unrestricted."""

    @classmethod
    def from_request(cls, request: Request) -> "Principal":
        """Return the principal of a request that `Route` has authenticated.

        It is not a FastAPI dependency, because that would take a tenth longer.
        """
        principal: Principal = RequestState.from_scope(request.scope).principal
        return principal

    def require(self, scope: Scope, *alternatives: Scope) -> None:
        """Check that the principal has `scope`, or one of the `alternatives` that are accepted instead.

        Raises:
            MissingScopeError: the principal has none of them, nor `admin`.
        """
        if self.scopes.isdisjoint({scope, *alternatives, Scope.ADMIN}):
            raise MissingScopeError(scope)
