"""Scopes: what a principal may do. Each route must declare the scope it requires, or that it is public."""

from enum import StrEnum
from typing import Any


class Scope(StrEnum):
    """A permission that an API key or an access token may grant."""

    PATIENTS_READ = "patients:read"
    PATIENTS_WRITE = "patients:write"
    PATIENTS_DELETE = "patients:delete"
    BREAK_GLASS = "patients:break-glass"
    """Reading a patient outside the hospital scope, for a reason that is recorded in the audit."""
    HISTORY_READ = "history:read"
    DIRECTORY_READ = "directory:read"
    """Reading hospitals and doctors."""
    DIRECTORY_WRITE = "directory:write"
    PROFILES_READ = "profiles:read"
    PROFILES_WRITE = "profiles:write"
    AUDIT_READ = "audit:read"
    METRICS_READ = "metrics:read"
    ADMIN = "admin"
    """Everything that the other scopes grant."""

    @property
    def is_read_only(self) -> bool:
        """Whether the scope permits only reading."""
        return self.endswith(":read")


SECURITY_SCHEMES = {
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "A service's API key, created with `patients-api keys create`.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A service's API key, or a person's access token from the identity provider (a JWT).",
    },
}
"""The ways to send credentials, as OpenAPI security schemes."""


def requires(scope: Scope) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that requires `scope`; `Route` enforces what it declares."""
    return {"security": [{scheme: [scope.value]} for scheme in SECURITY_SCHEMES]}


PUBLIC_ROUTE: dict[str, Any] = {"security": []}
"""The `openapi_extra` of a route that needs no credentials."""


def required_scope(openapi_extra: dict[str, Any] | None) -> Scope | None:
    """Return the scope that a route declares in its `openapi_extra`; None for a public route.

    Raises:
        ValueError: the route declares no security.
    """
    if openapi_extra is None or "security" not in openapi_extra:
        raise ValueError("A route must declare openapi_extra=requires(Scope.…) or PUBLIC_ROUTE.")
    return Scope(next(iter(openapi_extra["security"][0].values()))[0]) if openapi_extra["security"] else None
