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
    """What `Client.send` takes."""

    method: str
    path: str
    body: str | None = None


def list_request(parameters: str = "") -> Request:
    """A page of the list, with further query parameters that name nobody."""
    return Request("GET", f"{PATIENTS_PATH}?limit={PAGE_SIZE}{parameters and '&' + parameters}")


def search_request(parameters: Mapping[str, str | list[str]], limit: int = PAGE_SIZE) -> Request:
    """A page of those whom parameters describe, which stand in no URL."""
    return Request("POST", f"{PATIENTS_PATH}search/", json.dumps({**parameters, "limit": limit}))


def request_after_pages(client: Client, request: Request, pages: int) -> Request:
    """The page so many after another, by the links from each to the next.

    Raises:
        SideError: the list ends before.
    """
    for _ in range(pages):
        link = _NEXT_LINK_PATTERN.search(client.send(*request).headers.get("Link", ""))
        if link is None:
            raise SideError(f"{request.path} has less than {pages} pages behind it.")
        request = Request("GET", link[1])
    return request
