"""Scopes: what a principal may do. A route declares the one it needs; none declared is none served."""

from enum import StrEnum
from typing import Any


class Scope(StrEnum):
    """What a key or token may grant."""

    PATIENTS_READ = "patients:read"
    PATIENTS_WRITE = "patients:write"
    PATIENTS_DELETE = "patients:delete"
    BREAK_GLASS = "patients:break-glass"
    """To read one patient across the walls between hospitals, for a reason that is put on record."""
    HISTORY_READ = "history:read"
    DIRECTORY_READ = "directory:read"
    """Hospitals and doctors."""
    DIRECTORY_WRITE = "directory:write"
    PROFILES_READ = "profiles:read"
    PROFILES_WRITE = "profiles:write"
    AUDIT_READ = "audit:read"
    METRICS_READ = "metrics:read"
    ADMIN = "admin"
    """Everything that the others grant."""

    @property
    def is_read_only(self) -> bool:
        """Whether it lets one look, and change nothing."""
        return self.endswith(":read")


SECURITY_SCHEMES = {
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "A key of a service, from `patients-api keys create`.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of a service, or a person's access token from the identity provider (a JWT).",
    },
}
"""How credentials may be sent, as OpenAPI's security schemes."""


def requires(scope: Scope) -> dict[str, Any]:
    """The `openapi_extra` of a route that needs `scope`: `Route` asks for what the document says."""
    return {"security": [{scheme: [scope.value]} for scheme in SECURITY_SCHEMES]}


PUBLIC_ROUTE: dict[str, Any] = {"security": []}
"""The `openapi_extra` of a route that needs no credentials."""


def required_scope(openapi_extra: dict[str, Any] | None) -> Scope | None:
    """The scope that a route declares by its `openapi_extra`; none for an open one.

    Raises:
        ValueError: it declares nothing.
    """
    if openapi_extra is None or "security" not in openapi_extra:
        raise ValueError("A route declares openapi_extra=needs(Scope.…), or OPEN.")
    return Scope(next(iter(openapi_extra["security"][0].values()))[0]) if openapi_extra["security"] else None
