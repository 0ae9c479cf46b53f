"""The requests for different pages, which each side is asked for in its own way."""

from contextlib import closing

from benchmarks.client import Client
from benchmarks.database import SELECT_PATIENT_IDS, fetch_ids
from benchmarks.operations import PAGE_SIZE, PATIENTS_PATH
from benchmarks.sides import SideServer

MAX_PAGES = 200
"""The number of pages among which the pages of "different pages of 50" are drawn."""


def page_paths(url: str, server: SideServer) -> list[str]:
    """Return the paths of the pages after the first one, which are the same pages for all sides.

    The service gives a cursor with each page; its peers are asked for the patients after an id.
    """
    if server.side.has_pages_by_id:
        last_ids = fetch_ids(url, SELECT_PATIENT_IDS, server.side.hospitals)[PAGE_SIZE - 1 : -1 : PAGE_SIZE]
        return [f"{PATIENTS_PATH}?limit={PAGE_SIZE}&after={unique_id}" for unique_id in last_ids[:MAX_PAGES]]
    paths: list[str] = []
    path = f"{PATIENTS_PATH}?limit={PAGE_SIZE}"
    with closing(Client(server)) as client:
        while len(paths) < MAX_PAGES and (cursor := client.send("GET", path).headers["Next-Cursor"]) is not None:
            path = f"{PATIENTS_PATH}?limit={PAGE_SIZE}&cursor={cursor}"
            paths.append(path)
    return paths
