"""The principal: on whose behalf a request runs. Every route has one, and every query of patients begins from it."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.auth.scopes import Scope
from app.errors import MissingScopeError


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and in which request: what the journal writes down of a change."""

    name: str
    request_id: str | None = None
    scopes: frozenset[Scope] = frozenset({Scope.ADMIN})
    hospitals: frozenset[str] | None = None
    """The hospitals that it is limited to, if it is."""

    def require(self, scope: Scope, *others: Scope) -> None:
        """Go on only where it has the scope, or one of the `others` that do as well.

        Raises:
            MissingScopeError: the principal lacks the scope.
        """
        if self.scopes.isdisjoint({scope, *others, Scope.ADMIN}):
            raise MissingScopeError(scope)


async def current_principal(request: Request) -> Principal:
    """The principal of the request at hand, whom `Route` has authenticated."""
    principal: Principal = request.scope["state"]["principal"]
    return principal


CurrentPrincipal = Annotated[Principal, Depends(current_principal)]
"""Usage: `async def route(principal: CurrentPrincipal)`. A test walks the routes and fails where it is missing."""
