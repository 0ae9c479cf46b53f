"""Requests that list and search patients."""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.client import Client
from benchmarks.operations import PATIENTS_PATH
from benchmarks.sides import SideError

PAGE_SIZE = 50
"""Patients on a page."""
_NEXT_LINK_PATTERN = re.compile(r'<([^>]*)>; rel="next"')


class Request(NamedTuple):
    """The arguments of `Client.send`."""

    method: str
    path: str
    body: str | None = None


def list_request(parameters: str = "") -> Request:
    """Return the request for a page of the list, with further query parameters that contain no personal data."""
    return Request("GET", f"{PATIENTS_PATH}?limit={PAGE_SIZE}{parameters and '&' + parameters}")


def search_request(parameters: Mapping[str, str | list[str]], limit: int = PAGE_SIZE) -> Request:
    """Return the request for a page of matching patients, with all parameters kept out of the URL."""
    return Request("POST", f"{PATIENTS_PATH}search/", json.dumps({**parameters, "limit": limit}))


def request_after_pages(client: Client, request: Request, pages: int) -> Request:
    """Return the request for the page that follows after `pages` pages, found by their links.

    Raises:
        SideError: the list ends before that page.
    """
    for _ in range(pages):
        link = _NEXT_LINK_PATTERN.search(client.send(*request).headers.get("Link", ""))
        if link is None:
            raise SideError(f"{request.path} is followed by fewer than {pages} pages.")
        request = Request("GET", link[1])
    return request
