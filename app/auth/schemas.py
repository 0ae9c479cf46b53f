"""The response that describes the principal of a request."""

from typing import Any, ClassVar

from app.auth.scopes import Scope
from app.fields.schemas import Representation


class CurrentPrincipal(Representation):
    """The API key or person whose credentials the request has, and what these credentials permit."""

    example: ClassVar[dict[str, Any]] = {
        "name": "key:front-desk",
        "scopes": ["patients:read", "patients:write"],
        "hospitals": ["hos123"],
    }

    name: str
    """The name under which the journal and the audit record the principal: `key:` and the name of an API key, or
    `oidc:` and the subject of an access token. It is `local` if the service does not require authentication."""
    scopes: list[Scope]
    """The scopes that the principal has. With `admin`, these are all scopes."""
    hospitals: list[str] | None
    """The ids of the hospitals that the principal is restricted to; `null` if it is not restricted."""
