"""The URL layout of the API. No other module builds or parses a path."""

SEARCH_SUFFIX = "search/"
"""What follows a list's path in the path of its search, whose parameters are in the body."""


def router_prefix(resource: str) -> str:
    """Return the prefix of the routes of a resource, as `/hospitals/hospitals` for `hospitals`."""
    return f"/{resource}/{resource}"


def list_path(resource: str) -> str:
    """Return the path of the list of a resource."""
    return f"{router_prefix(resource)}/"


def record_path(resource: str, unique_id: str = "{unique_id}") -> str:
    """Return the path of one record, or by default the template of such paths."""
    return f"{list_path(resource)}{unique_id}/"
