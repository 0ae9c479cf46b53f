"""The principal: on whose behalf a request runs. Every route has one, and every query of patients begins from it."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks."""

    name: str


LOCAL = Principal(name="local")
"""The unrestricted principal of a service without authentication."""


async def current_principal() -> Principal:
    """The principal of the request at hand."""
    return LOCAL


CurrentPrincipal = Annotated[Principal, Depends(current_principal)]
"""Usage: `async def route(principal: CurrentPrincipal)`. A test walks the routes and fails where it is missing."""
