"""Scopes, the permissions of principals.

Each route must declare which scope it requires, that any credentials suffice, or that it is public.
"""

from enum import StrEnum
from typing import Any


class Scope(StrEnum):
    """A permission that an API key or an access token may grant."""

    PATIENTS_READ = "patients:read"
    PATIENTS_WRITE = "patients:write"
    PATIENTS_DELETE = "patients:delete"
    PATIENTS_MERGE = "patients:merge"
    """Permits merging two patients into one, and undoing this."""
    BREAK_GLASS = "patients:break-glass"
    """Permits reading a patient outside the principal's hospital scope, for a reason that the audit records."""
    DUPLICATES_READ = "duplicates:read"
    """Permits reading the queue of patients that may be registered twice."""
    DUPLICATES_WRITE = "duplicates:write"
    """Permits deciding that two patients in this queue are two persons."""
    HISTORY_READ = "history:read"
    DIRECTORY_READ = "directory:read"
    """Permits reading hospitals and doctors."""
    DIRECTORY_WRITE = "directory:write"
    PROFILES_READ = "profiles:read"
    PROFILES_WRITE = "profiles:write"
    CHANGES_READ = "changes:read"
    """Permits following the changes of all records that the principal can see, by id, without their contents."""
    AUDIT_READ = "audit:read"
    METRICS_READ = "metrics:read"
    ADMIN = "admin"
    """Permits everything that the other scopes permit."""

    @property
    def is_read_only(self) -> bool:
        """Whether the scope permits reading but no changes."""
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
"""The ways in which a client can send credentials, as OpenAPI security schemes by name."""


def requires(scope: Scope) -> dict[str, Any]:
    """Return the `openapi_extra` with which a route declares that it requires `scope`.

    `app.api.routing.Route` enforces the scope.
    """
    return {"security": [{scheme: [scope.value]} for scheme in SECURITY_SCHEMES]}


PUBLIC_ROUTE: dict[str, Any] = {"security": []}
"""The `openapi_extra` with which a route declares that it needs no credentials."""
ANY_CREDENTIALS: dict[str, Any] = {"security": [{scheme: []} for scheme in SECURITY_SCHEMES]}
"""The `openapi_extra` with which a route declares that it needs valid credentials, whatever their scopes."""


def is_public(openapi_extra: dict[str, Any] | None) -> bool:
    """Return whether a route needs no credentials according to its `openapi_extra`.

    Raises:
        ValueError: the route declares neither that it is public nor which credentials it needs.
    """
    return not _declared_security(openapi_extra)


def required_scope(openapi_extra: dict[str, Any] | None) -> Scope | None:
    """Return the scope that a route requires according to its `openapi_extra`.

    Return None if the route is public or any credentials suffice.

    Raises:
        ValueError: the route declares neither that it is public nor which credentials it needs.
    """
    scopes = {scope for schemes in _declared_security(openapi_extra) for names in schemes.values() for scope in names}
    return Scope(scopes.pop()) if scopes else None


def _declared_security(openapi_extra: dict[str, Any] | None) -> list[dict[str, list[str]]]:
    if openapi_extra is None or "security" not in openapi_extra:
        raise ValueError("A route must declare openapi_extra=requires(Scope.…), ANY_CREDENTIALS or PUBLIC_ROUTE.")
    security: list[dict[str, list[str]]] = openapi_extra["security"]
    return security
