"""The URL layout of resources: where their routes begin, and the paths of their lists and records."""

SEARCH_SUFFIX = "search/"
"""Suffix that turns the path of a list into the path of its search endpoint. That endpoint takes the parameters of the
list in the request body."""
IMPORT_SUFFIX = "import/"
"""Suffix that turns the path of a list into the path to which many records can be sent at once."""


DUPLICATES_PREFIX = "/patients/duplicates"
"""Path prefix of the queue of possible duplicates."""
MATCH_SUFFIX = "match/"
"""Suffix of the path that returns the patients that may be a given person."""

FHIR_PREFIX = "/fhir"
"""The path of the FHIR interface, and the prefix of its other paths."""


def is_fhir_path(path: str) -> bool:
    """Return whether a path belongs to the FHIR interface, whose errors have a format of their own."""
    return path == FHIR_PREFIX or path.startswith(f"{FHIR_PREFIX}/")


def router_prefix(resource: str) -> str:
    """Return the path prefix of all routes of a resource, such as `/hospitals/hospitals` for `hospitals`."""
    return f"/{resource}/{resource}"


def list_path(resource: str) -> str:
    """Return the path of the list of a resource, such as `/hospitals/hospitals/` for `hospitals`."""
    return f"{router_prefix(resource)}/"


def record_path(resource: str, unique_id: str = "{unique_id}") -> str:
    """Return the path of one record of a resource. Without `unique_id`, return the path template of all its records."""
    return f"{list_path(resource)}{unique_id}/"
