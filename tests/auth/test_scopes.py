"""Deny by default: every route declares its scope or is in a short list of paths that need none."""

import pytest
from fastapi import Response
from fastapi.routing import iter_route_contexts

from app.api.routing import make_router
from app.auth.scopes import ANY_CREDENTIALS, PUBLIC_ROUTE, Scope, requires
from app.main import create_app
from app.settings import Settings

PUBLIC_PATHS = {"/", "/docs", "/docs/assets", "/fhir/metadata", "/livez", "/openapi.json", "/readyz"}
"""The paths that need no credentials. None of them may reveal anything about a patient."""
PATHS_FOR_ANY_CREDENTIALS = {"/me/"}
"""The paths for which any valid credentials suffice. None of them may reveal anything about a patient either."""


async def empty_endpoint() -> Response:
    return Response()


def test_every_route_declares_a_scope_or_is_listed_as_public() -> None:
    """Every route, of the application or of the framework, declares a scope or is listed as needing none."""
    app = create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"}))
    routes = [(route.path, route.original_route) for route in iter_route_contexts(app.routes)]
    unguarded = {path for path, route in routes if getattr(route, "is_public", True)}
    assert unguarded == PUBLIC_PATHS, "declare openapi_extra=requires(Scope.…), or add the path to the list here"
    without_scope = {path for path, route in routes if getattr(route, "required_scope", None) is None}
    assert without_scope == PUBLIC_PATHS | PATHS_FOR_ANY_CREDENTIALS


@pytest.mark.parametrize("extra", [None, {}, {"x-internal": True}])
def test_a_route_without_a_declared_scope_cannot_be_created(extra: dict[str, object] | None) -> None:
    """A route without a declaration fails at import, so the service does not start."""
    router = make_router("/secrets", tag="secrets")
    with pytest.raises(ValueError, match="A route must declare"):
        router.get("/", openapi_extra=extra)(empty_endpoint)
    assert router.routes == []


@pytest.mark.parametrize("extra", [PUBLIC_ROUTE, ANY_CREDENTIALS, requires(Scope.AUDIT_READ)])
def test_a_route_with_a_declared_scope_can_be_created(extra: dict[str, object]) -> None:
    """A route with a declaration is created, so the missing declaration is what fails above."""
    router = make_router("/secrets", tag="secrets")
    router.get("/", openapi_extra=extra)(empty_endpoint)
    assert len(router.routes) == 1


def test_a_scope_that_does_not_exist_cannot_be_declared() -> None:
    """A misspelled scope, which would lock out everyone but admins, fails at import."""
    router = make_router("/secrets", tag="secrets")
    with pytest.raises(ValueError, match="patient:read"):
        router.get("/", openapi_extra={"security": [{"bearer": ["patient:read"]}]})(empty_endpoint)
