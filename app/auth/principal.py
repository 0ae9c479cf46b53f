"""The principal: on whose behalf a request runs. Every route has one, and every query of patients begins from it."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and in which request: what the journal writes down of a change."""

    name: str
    request_id: str | None = None


async def current_principal(request: Request) -> Principal:
    """The principal of the request at hand: without authentication, the unrestricted local one."""
    return Principal("local", request.scope["state"]["request_id"])


CurrentPrincipal = Annotated[Principal, Depends(current_principal)]
"""Usage: `async def route(principal: CurrentPrincipal)`. A test walks the routes and fails where it is missing."""
